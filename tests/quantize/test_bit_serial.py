"""Products of few-bit numbers by counting bits."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smallnets.quantize.bit_serial import bit_planes, bit_serial_linear, bit_serial_product


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 40), st.integers(0, 999))
def test_counting_bits_is_multiplying(x_bits, w_bits, length, seed):
    draws = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 2**x_bits, (3, length), generator=draws)
    w = torch.randint(-(2 ** (w_bits - 1)), 2 ** (w_bits - 1), (2, length), generator=draws)
    found = bit_serial_linear(x.float(), w.int(), x_bits, w_bits)
    assert torch.equal(found, x @ w.T)


def test_the_ends_of_the_range():
    x, w = torch.full((1, 70), 255), torch.full((1, 70), -128)
    assert bit_serial_linear(x, w, 8, 8).tolist() == [[-70 * 255 * 128]]
    planes = bit_planes(torch.tensor([[-1, 1, 0]]), 2, signed=True)
    assert planes.weights.tolist() == [1, -2]
    assert planes.planes.tolist() == [[[0b11000000]], [[0b10000000]]]


@pytest.mark.parametrize(
    ("codes", "bits", "message"),
    [
        (torch.tensor([[4]]), 2, r"codes must be whole numbers from 0 to 3 for 2 bits; got some"),
        (torch.tensor([[-1]]), 2, "from 0 to 3"),
        (torch.tensor([[0.5]]), 2, "must be whole numbers"),
        (torch.tensor([[torch.nan]]), 2, "must be whole numbers"),
        (torch.tensor([1, 2]), 2, r"codes must be rows \(rows, length\); got shape \(2,\)"),
        (torch.zeros(2, 0), 2, r"codes must be rows"),
        (torch.zeros(2, 2), 17, "bits must be between 1 and 16; got 17"),
        (torch.zeros(2, 2), 0, "bits must be at least 1; got 0"),
    ],
)
def test_bad_codes(codes, bits, message):
    with pytest.raises(ValueError, match=message) as error:
        bit_planes(codes, bits)
    assert "\n" not in str(error.value)


def test_rows_of_different_lengths():
    with pytest.raises(ValueError, match="rows must have one length; got 2 and 3"):
        bit_serial_product(bit_planes(torch.ones(1, 2), 1), bit_planes(torch.ones(1, 3), 1))
