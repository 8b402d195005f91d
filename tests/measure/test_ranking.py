import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smallnets.measure.ranking import correlations, pooled, within_layers


def test_perfect_and_reversed_orders():
    a = torch.tensor([1.0, 2.0, 4.0, 8.0])
    assert correlations(a, 3 * a + 1) == pytest.approx((1, 1, 1))
    assert correlations(a, a.exp())[1:] == pytest.approx((1, 1))
    assert correlations(a, -a) == pytest.approx((-1, -1, -1))


@given(st.lists(st.integers(-50, 50), min_size=3, max_size=12, unique=True), st.randoms())
def test_ranks_ignore_what_keeps_the_order(values, random):
    a = torch.tensor(values).double()
    b = a[torch.tensor(random.sample(range(len(a)), len(a)))]
    plain, bent = correlations(a, b), correlations((a / 20).exp(), b)
    assert plain[1:] == pytest.approx(bent[1:])


def test_a_constant_has_no_correlation():
    with pytest.warns(UserWarning, match="constant is undefined"):
        assert all(map(math.isnan, correlations(torch.ones(4), torch.arange(4.0))))


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.ones(3), torch.ones(4), "one length of at least 2"),
        (torch.ones(1), torch.ones(1), "one length of at least 2"),
        (torch.ones(2, 2), torch.ones(2, 2), "one length of at least 2"),
        (torch.tensor([1.0, math.nan]), torch.ones(2), "must be finite"),
    ],
)
def test_bad_lists_are_refused_in_one_line(a, b, message):
    with pytest.raises(ValueError, match=message) as error:
        correlations(a, b)
    assert "\n" not in str(error.value)


def test_pooling_sees_layers_that_averages_do_not():
    a = {"low": torch.tensor([1.0, 2.0, 3.0]), "high": torch.tensor([11.0, 12.0, 13.0])}
    b = {"low": torch.tensor([3.0, 2.0, 1.0]), "high": torch.tensor([13.0, 12.0, 11.0])}
    assert within_layers(a, b).spearman == pytest.approx(-1)
    assert pooled(a, b).spearman > 0.5


def test_constant_layers_are_left_out():
    a = {"dead": torch.zeros(3), "alive": torch.tensor([1.0, 2.0, 3.0])}
    b = {"dead": torch.arange(3.0), "alive": torch.tensor([1.0, 2.0, 3.0])}
    assert within_layers(a, b).kendall == pytest.approx(1)
    assert math.isnan(within_layers({"dead": a["dead"]}, {"dead": b["dead"]}).pearson)
