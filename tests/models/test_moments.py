"""Moments of channels are those of torch, in every order in memory."""

import pytest
import torch

from smallnets.models.moments import channel_moments


@pytest.mark.parametrize("shape", [(4, 5, 6, 7), (2, 5, 1, 1), (9, 5), (3, 5, 8)])
@pytest.mark.parametrize("correction", [0, 1])
@pytest.mark.parametrize("last", [False, True])
def test_moments_and_their_gradients(shape, correction, last):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64) + 3
    if last and len(shape) == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    dims = [d for d in range(len(shape)) if d != 1]
    ours = channel_moments(x, correction)
    theirs = x.mean(dims), x.var(dims, correction=correction)
    up = [torch.randn(5, dtype=torch.float64) for _ in ours]
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)
    torch.testing.assert_close(
        torch.autograd.grad(ours, x, up)[0], torch.autograd.grad(theirs, x, up)[0]
    )


def test_variances_are_unbiased_by_default_and_single_values_have_none():
    x = torch.randn(6, 3, 2, 2)
    torch.testing.assert_close(channel_moments(x)[1], x.var((0, 2, 3)))
    assert channel_moments(x[:1, :, :1, :1])[1].tolist() == [0, 0, 0]


def test_half_precision_is_summed_in_single():
    mean, variance = channel_moments(torch.randn(64, 5, 8, 8).bfloat16())
    assert (mean.dtype, variance.dtype) == (torch.float32, torch.float32)
