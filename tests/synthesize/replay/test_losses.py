"""The generator's six terms: limits, invariances, and what is refused."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smallnets.synthesize import replay as r


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(classes=st.integers(2, 9), base=st.sampled_from([2.0, math.e, 10.0]))
def test_balance_is_least_for_equal_classes_and_zero_for_one(classes, base):
    every = torch.eye(classes, dtype=torch.float64)
    least = -math.log(classes, base)
    assert float(r.class_balance_loss(torch.zeros(3, classes), base)) == pytest.approx(least)
    assert float(r.class_balance_loss(1e4 * every, base)) == pytest.approx(least)
    assert float(r.class_balance_loss(1e4 * every[:1].expand(5, -1), base)) == pytest.approx(0)
    assert float(r.class_balance_loss(normal(8, classes), base)) > least


def test_an_empty_class_has_a_gradient_with_a_least_probability_and_none_without():
    logits = torch.tensor([[500.0, 0, -500], [400.0, 300, -500]], requires_grad=True)
    (sound,) = torch.autograd.grad(r.class_balance_loss(logits), logits)
    assert sound.isfinite().all()
    (broken,) = torch.autograd.grad(r.class_balance_loss(logits, eps=0), logits)
    assert broken.isnan().any()


def test_base_ten_is_smaller_than_nats_by_the_logarithm_of_ten():
    logits = normal(6, 4)
    ratio = r.class_balance_loss(logits, math.e) / r.class_balance_loss(logits, 10)
    assert float(ratio) == pytest.approx(2.302585, rel=1e-6)


@given(scale=st.floats(0.1, 3), seed=st.integers(0, 50))
def test_one_hot_falls_to_zero_with_margins_and_ignores_the_order_of_classes(scale, seed):
    logits = scale * normal(7, 5, seed=seed)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(r.one_hot_loss(logits), r.one_hot_loss(logits[:, order]))
    assert r.one_hot_loss(10 * logits) < r.one_hot_loss(logits)
    assert float(r.one_hot_loss(1e6 * logits)) == pytest.approx(0, abs=1e-6)


def test_activation_is_minus_the_mean_magnitude():
    assert float(r.activation_loss(torch.tensor([[1.0, -3.0], [0.0, 4.0]]))) == -2


def naive_telescoped(images):
    return torch.stack([d.mean().abs() for d in r.neighbour_differences(images)]).mean()


@given(height=st.integers(2, 7), width=st.integers(2, 7), seed=st.integers(0, 50))
def test_telescoped_variation_from_its_edges(height, width, seed):
    images = normal(2, 3, height, width, seed=seed).requires_grad_()
    ours, theirs = r.tv_loss(images), naive_telescoped(images)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)
    for mine, other in zip(
        torch.autograd.grad(ours, images), torch.autograd.grad(theirs, images), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-13)


def test_images_that_exploit_the_telescope():
    board = r.checkerboard(8, 8)
    assert set(board.unique().tolist()) == {-1, 1}
    assert float(r.tv_loss(board)) == pytest.approx(0, abs=1e-7)
    phase = 2 * math.pi * torch.arange(9) / 8  # its last column repeats the first
    periodic = phase.cos().expand(1, 3, 6, 9)
    down = r.neighbour_differences(periodic)[0].mean()
    assert float(down) == pytest.approx(0, abs=1e-7)
    for kind in ("l1", "l2"):
        assert r.tv_loss(board, kind) > 0.9
        assert r.tv_loss(periodic, kind) > 0.1
        assert float(r.tv_loss(torch.ones(2, 3, 4, 4), kind)) == 0
    # True variation tells a board from a plain image; the telescoped one prefers the board.
    ramp = torch.linspace(-1, 1, 8).expand(1, 3, 8, 8)
    assert r.tv_loss(ramp) > r.tv_loss(board)
    assert r.tv_loss(ramp, "l1") < r.tv_loss(board, "l1")


def test_norms_of_variation_by_hand():
    images = torch.tensor([[[[1.0, 2.0], [4.0, 8.0]]]])
    right, down, rising, falling = (1, 4), (3, 6), (2,), (7,)
    norms = [math.sqrt(sum(d * d for d in one)) for one in (right, down, rising, falling)]
    assert float(r.tv_loss(images, "l2")) == pytest.approx(sum(norms) / 4)
    means = [sum(one) / len(one) for one in (right, down, rising, falling)]
    assert float(r.tv_loss(images, "l1")) == pytest.approx(sum(means) / 4)


@given(batch=st.integers(2, 9), seed=st.integers(0, 50), shift=st.floats(-3, 3))
def test_diversity(batch, seed, shift):
    images = normal(batch, 3, 4, 4, seed=seed)
    pairs = batch // 2
    g = torch.Generator().manual_seed(seed)
    first, second = r.draw_pairs(batch, pairs, g)
    assert len(first.unique()) == len(second.unique()) == pairs
    assert first.max() < batch // 2 <= second.min() <= second.max() < batch
    value = r.pair_diversity(images, indices=(first, second))
    assert value <= 0
    swapped = r.pair_diversity(images, indices=(second, first))
    torch.testing.assert_close(value, swapped)
    moved = images + shift * torch.arange(batch).view(-1, 1, 1, 1)
    torch.testing.assert_close(value, r.pair_diversity(moved, indices=(first, second)))
    same = images[:1].expand_as(images)
    assert float(r.pair_diversity(same, pairs, g)) == pytest.approx(0, abs=1e-12)
    a, b = images.flatten(1)[first].log_softmax(1), images.flatten(1)[second].log_softmax(1)
    kl = [(p.exp() * (p - q)).sum(1).mean() for p, q in ((a, b), (b, a))]
    torch.testing.assert_close(value, -(kl[0] + kl[1]) / 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: r.pair_diversity(torch.zeros(6, 3), 4), "at most half of the batch, 3 of 6"),
        (lambda: r.pair_diversity(torch.zeros(6, 3), 0), "n_pairs must be at least 1; got 0"),
        (lambda: r.one_hot_loss(torch.tensor([[math.nan, 1]])), "logits must be finite"),
        (lambda: r.one_hot_loss(torch.zeros(3)), r"logits must be \(batch, classes\); got \(3,\)"),
        (lambda: r.class_balance_loss(torch.zeros(2, 2), 1.0), "base must be greater than 1"),
        (lambda: r.class_balance_loss(torch.zeros(2, 2), eps=-1.0), "eps must be at least 0"),
        (lambda: r.activation_loss(torch.zeros(2, 2, 2)), r"features must be \(batch, features\)"),
        (lambda: r.tv_loss(torch.zeros(1, 3, 1, 4)), "of 2 x 2 pixels or more"),
        (lambda: r.tv_loss(torch.zeros(1, 3, 4, 4), "l3"), "kind must be one of telescoped, l1"),
        (lambda: r.checkerboard(0, 4), "height must be at least 1; got 0"),
    ],
)
def test_refused(call, message):
    with pytest.raises(ValueError, match=rf"^[^\n]*{message}[^\n]*$"):
        call()
