"""Instance norm in channels-last memory: the values and gradients of group norm."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smallnets.synthesize.condense.norms import InstanceNorm, norm_relu_pool, normalise_positions


def both(channels=5):
    """The same norm, as it is here and as PyTorch has it."""
    ours, theirs = InstanceNorm(channels), nn.GroupNorm(channels, channels)
    with torch.no_grad():
        for one in (ours, theirs):
            one.weight.copy_(torch.linspace(0.5, 1.5, channels))
            one.bias.copy_(torch.linspace(-1, 1, channels))
    return ours, theirs


def maps(n=3, channels=5, size=(4, 6), dtype=torch.float32):
    draws = torch.Generator().manual_seed(0)
    x = 3 + 2 * torch.randn(n, channels, *size, generator=draws, dtype=dtype)
    return x.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("graph", [True, False])
def test_values_and_gradients_are_those_of_group_norm(graph):
    ours, theirs = both()
    x = maps()
    target = torch.randn_like(x)
    found, gradients = [], []
    for norm in (ours, theirs):
        leaf = x.clone().requires_grad_()
        y = norm(leaf)
        loss = (torch.tanh(y) * target).sum()
        gradients.append(
            torch.autograd.grad(loss, [leaf, norm.weight, norm.bias], create_graph=graph)
        )
        found.append(y)
    torch.testing.assert_close(*found)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), found[1])


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("size", [(4, 6), (5, 6)])
def test_a_block_is_norm_relu_and_pooling(size, graph):
    ours, theirs = both()
    x = maps(size=size)
    found, gradients = [], []
    for step in (
        lambda x: norm_relu_pool(x, ours),
        lambda x: F.avg_pool2d(F.relu(theirs(x)), 2),
    ):
        norm = theirs if gradients else ours
        leaf = x.clone().requires_grad_()
        y = step(leaf)
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        loss = (torch.tanh(y) * weights).sum()
        first = torch.autograd.grad(loss, [leaf, norm.weight, norm.bias], create_graph=graph)
        if graph:
            squares = sum(one.square().sum() for one in first)
            first += torch.autograd.grad(squares, [leaf, norm.weight])
        gradients.append(first)
        found.append(y)
    torch.testing.assert_close(*found)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(norm_relu_pool(x, ours), found[1])
    frozen = norm_relu_pool(x.clone().requires_grad_(), ours.requires_grad_(False))
    torch.testing.assert_close(frozen, found[1])


def test_second_gradients():
    x = maps(2, 3, (2, 3), torch.float64).permute(0, 2, 3, 1).flatten(1, 2).requires_grad_()
    weight = torch.linspace(0.5, 1, 3, dtype=torch.float64).requires_grad_()
    bias = torch.zeros(3, dtype=torch.float64).requires_grad_()
    norm = lambda *inputs: normalise_positions(*inputs, 1e-5)  # noqa: E731
    assert torch.autograd.gradcheck(norm, (x, weight, bias))
    assert torch.autograd.gradgradcheck(norm, (x, weight, bias))


def test_memory_order_and_types_stay():
    ours, _ = both()
    x = maps()
    assert ours(x).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours(x.contiguous()), ours(x))
    assert ours(x.bfloat16()).dtype == torch.float32  # the norm's own type
    constant = torch.full_like(x, 3.0)
    torch.testing.assert_close(ours(constant), ours.bias.view(1, -1, 1, 1).expand_as(x))
    assert list(ours.state_dict()) == ["weight", "bias"]
