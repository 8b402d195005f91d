"""The upsampled convolution computes what upsampling and a convolution do."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from smallnets.models.upsampled import UpsampledConv2d, phase_kernels, upsampled_conv2d


def plain(x, weight, bias):
    return F.conv2d(F.interpolate(x, scale_factor=2), weight, bias, padding=1)


@given(
    batch=st.integers(1, 3), inputs=st.integers(1, 4), outputs=st.integers(1, 4),
    height=st.integers(1, 7), width=st.integers(1, 7), biased=st.booleans(),
    last=st.booleans(), seed=st.integers(0, 1000),
)  # fmt: skip
def test_forward_and_gradients(batch, inputs, outputs, height, width, biased, last, seed):
    g = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64)

    x, weight = drawn(batch, inputs, height, width), drawn(outputs, inputs, 3, 3)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
        weight = weight.contiguous(memory_format=torch.channels_last)
    bias = drawn(outputs) if biased else None
    leaves = [one.requires_grad_() for one in (x, weight, bias) if one is not None]
    ours, theirs = upsampled_conv2d(x, weight, bias), plain(x, weight, bias)
    assert ours.shape == (batch, outputs, 2 * height, 2 * width)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    up = torch.randn(ours.shape, generator=g, dtype=torch.float64)
    for mine, other in zip(
        torch.autograd.grad(ours, leaves, up), torch.autograd.grad(theirs, leaves, up), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


def test_single_precision_in_both_memory_formats():
    torch.manual_seed(0)
    layer = UpsampledConv2d(16, 8)
    x = torch.randn(4, 16, 5, 9)
    expected = plain(x, layer.weight, layer.bias)
    for layout in (torch.contiguous_format, torch.channels_last):
        given_x = x.contiguous(memory_format=layout)
        out = layer.to(memory_format=layout)(given_x)
        assert out.is_contiguous(memory_format=layout)
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


def test_second_derivatives():
    torch.manual_seed(0)
    x = torch.randn(1, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(upsampled_conv2d, (x, weight))


def test_the_layer_takes_the_place_of_two():
    torch.manual_seed(1)
    pair = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(3, 5, 3, padding=1))
    torch.manual_seed(1)
    layer = UpsampledConv2d(3, 5)
    assert list(layer.state_dict()) == ["weight", "bias"]
    layer.load_state_dict(pair[1].state_dict())
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(layer(x), pair(x), rtol=1e-5, atol=1e-5)
    assert UpsampledConv2d(3, 5, bias=False).bias is None


def test_kernels_are_sums_of_weights():
    weight = torch.arange(9.0).view(1, 1, 3, 3)
    even_even, *_, odd_odd = phase_kernels(weight)[:, 0]
    assert even_even.tolist() == [[0, 1 + 2], [3 + 6, 4 + 5 + 7 + 8]]
    assert odd_odd.tolist() == [[0 + 1 + 3 + 4, 2 + 5], [6 + 7, 8]]


@pytest.mark.parametrize(
    ("x", "weight", "message"),
    [
        ((1, 2, 4, 4), (3, 2, 5, 5), r"weight must be \(outputs, inputs, 3, 3\); got"),
        ((1, 3, 4, 4), (3, 2, 3, 3), r"x must be \(batch, 2, height, width\); got \(1, 3, 4, 4\)"),
    ],
)
def test_shapes_that_do_not_fit(x, weight, message):
    with pytest.raises(ValueError, match=message):
        upsampled_conv2d(torch.zeros(x), torch.zeros(weight))
