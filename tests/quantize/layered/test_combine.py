"""Losses of the widths, and how their gradients are combined."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smallnets.losses import entropy
from smallnets.quantize.layered import (
    check_simplex,
    gram_matrix,
    min_norm,
    multi_width_loss,
    pcgrad,
    with_gradients,
)
from smallnets.quantize.layered.combine import fixed_weights, rule


def test_identical_logits_are_already_learned():
    logits = torch.randn(6, 5, dtype=torch.float64)
    student = logits.clone().requires_grad_()
    labels = torch.zeros(6, dtype=torch.long)
    loss = multi_width_loss({4: logits, 2: student}, labels, "soft")[2]
    assert loss.item() == pytest.approx(entropy(logits).mean().item())
    (slope,) = torch.autograd.grad(loss, student)
    assert slope.abs().max() < 1e-12


def test_a_teacher_gets_no_gradient():
    top, low = (torch.randn(4, 3).requires_grad_() for _ in range(2))
    loss = multi_width_loss({8: top, 2: low}, torch.tensor([0, 1, 2, 0]), "recursive")[2]
    assert torch.autograd.grad(loss, top, allow_unused=True)[0] is None


@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 999))
def test_min_norm_is_optimal(count, size, seed):
    rows = np.random.default_rng(seed).normal(size=(count, size)) * 10.0 ** (seed % 5 - 2)
    gradients = torch.from_numpy(rows)
    gram = gradients @ gradients.T
    alpha = min_norm(gram)
    assert alpha.min() >= 0
    assert alpha.sum().item() == pytest.approx(1)
    step = alpha @ gradients
    norm, unit = step.square().sum(), gram.diagonal().max()
    products = gradients @ step
    assert (products >= norm - 1e-7 * unit).all()
    active = alpha > 1e-6
    torch.testing.assert_close(
        products[active], norm.expand(int(active.sum())), rtol=1e-5, atol=float(1e-7 * unit)
    )
    order = torch.from_numpy(np.random.default_rng(seed).permutation(count))
    other = min_norm(gram[order][:, order]) @ gradients[order]
    torch.testing.assert_close(other, step, rtol=1e-4, atol=float(1e-6 * unit.sqrt()))


def test_special_gradients():
    g = torch.tensor([3.0, 4.0], dtype=torch.float64)
    alone = min_norm(gram_matrix([[g]]))
    opposed = min_norm(gram_matrix([[g], [-g]]))
    same = min_norm(gram_matrix([[g], [g]]))
    assert alone.tolist() == [1]
    assert opposed.tolist() == pytest.approx([0.5, 0.5])
    assert (same @ torch.stack([g, g])).tolist() == pytest.approx(g.tolist())


def test_normalised_min_norm_does_not_favour_the_short():
    long = torch.tensor([30.0, 0.0], dtype=torch.float64)
    short = torch.tensor([0.0, 1.0], dtype=torch.float64)
    gram = gram_matrix([[long], [short]])
    assert min_norm(gram)[1] > 0.99
    step = min_norm(gram, normalise=True) @ torch.stack([long, short])
    assert step[0].item() == pytest.approx(step[1].item())


def test_fixed_weights_by_name():
    assert fixed_weights("mean", 4) == (0.25,) * 4
    assert fixed_weights("narrowest half", 3) == pytest.approx((0.4, 0.4, 0.2))
    assert fixed_weights("highest only", 3) == (1, 0, 0)
    assert fixed_weights("narrowest half", 1) == fixed_weights("highest only", 1) == (1,)
    with pytest.raises(ValueError, match="name must be one of mean, random width"):
        fixed_weights("min-norm", 3)


def test_pcgrad_projects_what_opposes():
    a = torch.tensor([1.0, 0.0], dtype=torch.float64)
    b = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    found = pcgrad(gram_matrix([[a], [b]])) @ torch.stack([a, b])
    projected = a - (a @ b) / (b @ b) * b + b - (a @ b) / (a @ a) * a
    torch.testing.assert_close(found, projected / 2)
    friends = gram_matrix([[a], [torch.tensor([1.0, 1.0], dtype=torch.float64)]])
    torch.testing.assert_close(pcgrad(friends), rule("mean", 2)(friends).double())


def test_a_carried_loss_hands_over_its_gradients():
    parameter = torch.ones(3, requires_grad=True)
    loss = with_gradients(torch.tensor(7.0), [parameter], [torch.tensor([1.0, 2.0, 3.0])])
    (2 * loss).backward()
    assert loss.item() == 7
    assert parameter.grad.tolist() == [2, 4, 6]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check_simplex((0.5, 0.6), 2), "sum to 1"),
        (lambda: check_simplex((1.5, -0.5), 2), "at least 0"),
        (lambda: rule((0.5, 0.5), 3), "must be 3 numbers"),
        (lambda: rule("best", 3), "combine must be one of"),
        (lambda: min_norm(torch.full((2, 2), torch.nan)), "must be finite"),
        (lambda: min_norm(torch.eye(9)), "between 1 and 8; got 9"),
        (
            lambda: multi_width_loss({4: torch.ones(1, 2)}, torch.tensor([0]), "soft"),
            "must be hard with a single width",
        ),
        (
            lambda: multi_width_loss({4: torch.ones(1, 2)}, torch.tensor([2])),
            "between 0 and 1; got 2",
        ),
        (
            lambda: multi_width_loss({4: torch.ones(1, 2)}, torch.tensor([0]), "warm"),
            "mode must be one of",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
