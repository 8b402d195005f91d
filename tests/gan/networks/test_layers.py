"""Sliceable layers: slices of weights, gradients of zero elsewhere, norms at any width."""

import pytest
import torch
from torch import nn

from smallnets.gan.networks.layers import (
    AdaIN,
    InstanceNorm,
    LayerNorm,
    SeparableConv2d,
    SliceableBatchNorm2d,
    SliceableConv2d,
    SliceableConvTranspose2d,
    SliceableSeparableConv2d,
    copy_first,
)

LAYERS = {
    "dense": lambda: SliceableConv2d(6, 8, 3, padding=1),
    "transposed": lambda: SliceableConvTranspose2d(6, 8, 3, 2, 1, 1),
    "separable": lambda: SliceableSeparableConv2d(6, 8, 3, padding=1),
    "separable up": lambda: SliceableSeparableConv2d(6, 8, 3, padding=1, up=True),
}


@pytest.fixture
def x(generator):
    return torch.randn(2, 4, 6, 6, generator=generator)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_outside_the_slice_are_exactly_zero(kind, x):
    layer = LAYERS[kind]()
    layer(x, 5).square().sum().backward()
    for name, parameter in layer.named_parameters():
        gradient = parameter.grad.clone()
        transposed = kind == "transposed" and gradient.dim() > 1
        thin = name.startswith("conv.0")
        out, into = (4, 1) if thin else ((4, 5) if transposed else (5, 4))
        inside = gradient[:out] if gradient.dim() == 1 else gradient[:out, :into]
        bias = 5 if gradient.dim() == 1 and not thin else out
        inside = gradient[:bias] if gradient.dim() == 1 else inside
        assert inside.abs().sum() > 0 or name == "conv.0.bias"  # a norm takes that one away
        inside.zero_()
        assert (gradient == 0).all(), name


@pytest.mark.parametrize("kind", LAYERS)
def test_full_width_is_the_ordinary_layer(kind, generator):
    layer = LAYERS[kind]()
    x = torch.randn(1, 6, 5, 5, generator=generator)
    plain = {
        "dense": lambda: nn.Conv2d(6, 8, 3, padding=1),
        "transposed": lambda: nn.ConvTranspose2d(6, 8, 3, 2, 1, 1),
        "separable": lambda: SeparableConv2d(6, 8, 3, padding=1),
        "separable up": lambda: SeparableConv2d(6, 8, 3, padding=1, up=True),
    }[kind]()
    plain.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), plain(x))


def test_nothing_non_linear_lies_between_the_two_convolutions():
    kinds = [type(layer) for layer in SeparableConv2d(3, 4)._modules["conv"]]
    assert kinds == [nn.Conv2d, InstanceNorm, nn.Conv2d]


@pytest.mark.parametrize("width", [0, 9, 2.0, True])
def test_widths_that_are_not_there_are_refused(width, x):
    with pytest.raises(ValueError, match="whole number from 1 to 8"):
        SliceableConv2d(6, 8, 3)(x, width)


def test_too_many_input_channels_are_refused():
    with pytest.raises(ValueError, match="at most 3 input channels; got 4"):
        SliceableConv2d(3, 8, 3)(torch.zeros(1, 4, 5, 5))


@pytest.mark.parametrize("layer", [SliceableConv2d, SliceableConvTranspose2d])
def test_groups_are_one_or_depthwise(layer):
    with pytest.raises(ValueError, match="groups must be 1"):
        layer(4, 8, 3, groups=2)


def test_padded_batch_norm_pulls_absent_channels_to_zero(x):
    norm = SliceableBatchNorm2d(6)
    plain = nn.BatchNorm2d(4)
    assert torch.allclose(norm(x), plain(x), atol=1e-6)
    assert torch.allclose(norm.running_mean[:4], plain.running_mean)
    assert (norm.running_mean[4:] == 0).all()
    assert torch.allclose(norm.running_var[4:], torch.full((2,), 0.9))


def test_layer_norm_of_munit_has_unbiased_deviation(x):
    norm = LayerNorm(6)
    y = norm(x)
    flat = ((y - norm.beta[:4, None, None]) / norm.gamma[:4, None, None]).flatten(1)
    assert torch.allclose(flat.mean(1), torch.zeros(2), atol=1e-6)
    assert torch.allclose(flat.std(1), torch.ones(2), atol=1e-4)


def test_adain_gives_mean_and_deviation(x):
    mean, std = torch.rand(2, 4), torch.rand(2, 4) + 0.5
    y = AdaIN()(x, mean, std)
    assert torch.allclose(y.mean((2, 3)), mean, atol=1e-5)
    assert torch.allclose(y.std((2, 3), correction=0), std, atol=1e-3)
    with pytest.raises(ValueError, match=r"must be \(2, 4\)"):
        AdaIN()(x, mean[:, :3], std)


def test_instance_norm_refuses_single_pixels():
    with pytest.raises(ValueError, match="more than one pixel"):
        InstanceNorm(2)(torch.zeros(1, 2, 1, 1))


def test_copies_of_first_entries_must_fit():
    assert (copy_first(nn.Linear(2, 3), big := nn.Linear(4, 5)).weight == big.weight[:3, :2]).all()
    with pytest.raises(ValueError, match="must fit"):
        copy_first(nn.Linear(2, 6), nn.Linear(4, 5))
    with pytest.raises(ValueError, match="must have 'bias'"):
        copy_first(nn.Linear(2, 3), nn.Linear(4, 5, bias=False))
