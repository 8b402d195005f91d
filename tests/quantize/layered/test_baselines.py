"""Laws of AdaBits, and what is refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smallnets.quantize.layered import adabits_unit, adabits_weights
from smallnets.quantize.layered.baselines import AdaBits


@given(st.floats(0, 1), st.integers(2, 8))
def test_the_modified_scheme_nests(value, bits):
    v = torch.tensor(value, dtype=torch.float64)
    fine = (adabits_unit(v, bits, "modified") * 2**bits).long()
    coarse = (adabits_unit(v, bits - 1, "modified") * 2 ** (bits - 1)).long()
    assert coarse == fine >> 1


def test_the_original_scheme_does_not_nest():
    v = torch.linspace(0, 1, 101, dtype=torch.float64)
    fine = (adabits_unit(v, 3, "original") * 7).round().long()
    coarse = (adabits_unit(v, 2, "original") * 3).round().long()
    assert (coarse != fine >> 1).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: adabits_unit(torch.ones(1), 2, "floor"), "scheme must be one of"),
        (lambda: AdaBits(scheme="floor"), "scheme must be one of"),
        (lambda: adabits_weights(torch.zeros(2, 1, 3), 2), "one that is not 0; got"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
