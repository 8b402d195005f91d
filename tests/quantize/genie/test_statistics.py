"""BatchNorm statistics, their loss, swing convolution and the generator."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from smallnets.quantize.genie.generator import DataGenerator
from smallnets.quantize.genie.statistics import (
    BatchNormInputs,
    BNStat,
    bn_statistics,
    bns_loss,
    matching_loss,
)
from smallnets.quantize.genie.swing import SwingConv2d, phase_coverage, swing
from smallnets.training import seeded


def stats_of(x):
    variance, mean = torch.var_mean(x, (0, 2, 3))
    return BNStat("norm", mean, variance.sqrt())


def test_loss_is_zero_of_a_batch_with_these_statistics_and_blind_to_order():
    x = torch.randn(6, 4, 5, 5, dtype=torch.float64)
    stat = stats_of(x)
    assert float(bns_loss([x], [stat]).total) < 1e-20
    images = torch.randn(6, 3, 8, 8, dtype=torch.float64) * 2 + 1
    y = x + 0.3 * torch.randn_like(x)
    order = torch.randperm(6)
    for per_image in (False, True):
        one = bns_loss([y], [stat], images, per_image=per_image).total
        two = bns_loss([y[order]], [stat], images[order], per_image=per_image).total
        torch.testing.assert_close(one, two)


@given(st.floats(0.1, 5))
def test_loss_grows_quadratically_with_an_offset(offset):
    x = torch.randn(4, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one = bns_loss([x + offset], [stats_of(x)]).total
    torch.testing.assert_close(one, torch.tensor(offset**2, dtype=torch.float64))
    total = bns_loss([x + offset], [stats_of(x)], reduction="sum").total
    torch.testing.assert_close(total, 3 * one)


def test_per_image_loss_by_hand():
    x = torch.randn(4, 3, 6, 6, dtype=torch.float64)
    stat = stats_of(torch.randn(4, 3, 6, 6, dtype=torch.float64))
    mean, std = x.mean((2, 3)), x.std((2, 3))
    found = bns_loss([x], [stat], per_image=True)
    torch.testing.assert_close(found.mean, (mean - stat.mean).square().sum() / 4)
    torch.testing.assert_close(found.std, (std - stat.std).square().sum() / 4)
    one_place = bns_loss([x[:, :, :1, :1]], [stat], per_image=True, images=x)
    assert one_place.total.isfinite()


def test_a_constant_channel_has_a_finite_gradient():
    x = torch.zeros(4, 2, 3, 3, requires_grad=True)
    stat = BNStat("norm", torch.zeros(2), torch.ones(2))
    bns_loss([x], [stat]).total.backward()
    assert x.grad.isfinite().all()


def test_statistics_of_a_network(resnet, pictures):
    stats = bn_statistics(resnet)
    norms = [m for m in resnet.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(stats) == len(norms)
    torch.testing.assert_close(stats[2].std, (norms[2].running_var + 1e-6).sqrt())
    with BatchNormInputs(resnet) as tap:
        resnet(pictures)
        assert [x.shape[1] for x in tap.inputs] == [len(s.mean) for s in stats]
        kept = tap.inputs
    resnet(pictures[:2])
    assert tap.inputs[0] is kept[0]
    assert 0 < matching_loss(resnet, pictures) < matching_loss(resnet, 3 * pictures)


def test_norms_of_other_dimensions():
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)).eval()
    with pytest.warns(UserWarning, match="no BatchNorm layer of this network has seen data"):
        stats = bn_statistics(network)
    with BatchNormInputs(network) as tap:
        network(torch.randn(8, 4))
        assert bns_loss(tap.inputs, stats).total > 0


def test_what_has_no_statistics_is_refused():
    with pytest.raises(ValueError, match=r"must have BatchNorm layers .*BatchNorm1d.* has none"):
        bn_statistics(nn.Sequential(nn.Conv2d(3, 3, 1)))
    with pytest.raises(ValueError, match=r"running statistics; '0' keeps none"):
        bn_statistics(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)))
    x, stat = torch.randn(2, 3, 4, 4), BNStat("n", torch.zeros(3), torch.ones(3))
    with pytest.raises(ValueError, match="reduction must be one of"):
        bns_loss([x], [stat], reduction="mean")
    with pytest.raises(ValueError, match=r"inputs must be those of 1 layers; got 2"):
        bns_loss([x, x], [stat])
    with pytest.raises(ValueError, match=r"the input of n must be \(batch, 3, ...\)"):
        bns_loss([x[:, :2]], [stat])
    with pytest.raises(ValueError, match="two values a channel"):
        bns_loss([x[:1, :, :1, :1]], [stat])


@given(
    st.integers(2, 3),
    st.sampled_from([1, 3, 5, 7]),
    st.integers(5, 9),
    st.integers(5, 9),
    st.sampled_from([1, 2]),
    st.sampled_from([0, 1, 2]),
    st.sampled_from([0, 1, 2]),
)
def test_swing_keeps_the_shape_and_is_a_shift(stride, kernel, height, width, groups, across, down):
    conv = nn.Conv2d(4, 4, kernel, stride, kernel // 2, groups=groups).double()
    x = torch.randn(2, 4, height, width, dtype=torch.float64)
    swung = SwingConv2d(conv)
    out = swung(x, (across, down))
    assert out.shape == conv(x).shape
    assert torch.equal(swung(x, (1, 1)), conv(x))
    shifted = torch.roll(x, (1 - down, 1 - across), (2, 3))
    inner = slice(kernel // 2 // stride + 1, -(kernel // 2 // stride) - 2)
    torch.testing.assert_close(out[..., inner, inner], conv(shifted)[..., inner, inner])


@given(
    jitter=st.integers(1, 3), down=st.integers(0, 6), across=st.integers(0, 6),
    height=st.integers(4, 7), width=st.integers(4, 7), last=st.booleans(),
)  # fmt: skip
def test_swing_is_padding_by_reflection_and_a_crop(jitter, down, across, height, width, last):
    down, across = min(down, 2 * jitter), min(across, 2 * jitter)
    one = torch.randn(2, 4, height, width, dtype=torch.float64)
    if last:
        one = one.contiguous(memory_format=torch.channels_last)
    other = one.clone().requires_grad_()
    one.requires_grad_()
    conv = nn.Conv2d(4, 3, 3, 2, 1).double()
    ours = SwingConv2d(conv, jitter)(one, (across, down))
    padded = F.pad(other, [jitter] * 4, mode="reflect")
    theirs = conv(padded[..., down : down + height, across : across + width])
    torch.testing.assert_close(ours, theirs)
    up = torch.randn_like(ours)
    (mine,), (expected,) = (
        torch.autograd.grad(y, x, up) for y, x in ((ours, one), (theirs, other))
    )
    torch.testing.assert_close(mine, expected)


def test_swing_draws_and_leaves_the_network_alone(resnet, pictures):
    swung = swing(resnet, generator=torch.Generator().manual_seed(0))
    names = [name for name, m in swung.named_modules() if isinstance(m, SwingConv2d)]
    assert names == ["stage2.0.conv1", "stage2.0.shortcut.conv", "stage3.0.conv1",
                     "stage3.0.shortcut.conv"]  # fmt: skip
    assert not any(isinstance(m, SwingConv2d) for m in resnet.modules())
    one, two = swung(pictures), swung(pictures)
    assert not torch.equal(one, two)
    offsets = {swung.get_submodule(names[0]).draw() for _ in range(200)}
    assert len(offsets) == 9
    with pytest.raises(ValueError, match="jitter must be at least 1"):
        swing(resnet, jitter=0)


@pytest.mark.parametrize(("offset", "side"), [((3, 0), "width"), ((1, -1), "height")])
def test_offsets_stay_inside_the_padding(offset, side):
    swung = SwingConv2d(nn.Conv2d(2, 2, 3, 2, 1))
    with pytest.raises(ValueError, match=f"along the {side} must be between 0 and 2; got"):
        swung(torch.randn(1, 2, 6, 6), offset)


def test_small_maps_do_not_swing():
    conv = nn.Conv2d(2, 2, 1, 2)
    x = torch.randn(3, 2, 1, 1)
    with pytest.warns(UserWarning, match="a map of 1 x 1 is too small for a jitter of 1"):
        assert torch.equal(SwingConv2d(conv)(x), conv(x))


@pytest.mark.parametrize("kernel", [1, 3])
def test_swing_evens_out_the_gradient(kernel):
    conv = nn.Conv2d(3, 8, kernel, 2, kernel // 2).requires_grad_(False)
    plain = phase_coverage(conv, (24, 24))
    swung = phase_coverage(conv, (24, 24), [(a, b) for a in range(3) for b in range(3)])
    assert plain.shape == (2, 2)
    assert float(swung.std()) < 0.6 * float(plain.std())
    assert float(swung.min()) > max(0.3, float(plain.min())), "no phase is left out"


def test_generator():
    generator = DataGenerator((8, 12), 16, 1, (6, 5))
    images = generator(torch.randn(7, 16))
    assert images.shape == (7, 1, 8, 12)
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(1), atol=1e-5, rtol=0)
    published = sum(p.numel() for p in DataGenerator(32).parameters())
    assert published == 2_181_251
    with pytest.raises(ValueError, match="image size must be multiples of 4; got 30"):
        DataGenerator(30)
    with pytest.raises(ValueError, match="every one of widths must be at least 1"):
        DataGenerator(8, widths=(0, 4))


def test_the_generator_is_upsampling_and_convolution():
    """With the same first weights, under the same names, as of the layers written one by one."""
    with seeded(0):
        generator = DataGenerator((8, 12), 16, 3, (6, 5))
    with seeded(0):
        linear = nn.Linear(16, 6 * 2 * 3)
        layers = nn.Sequential(
            nn.BatchNorm2d(6),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(6, 5, 3, padding=1),
            nn.BatchNorm2d(5),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(5, 3, 3, padding=1),
            nn.Tanh(),
            nn.BatchNorm2d(3, affine=False),
        )
    plain = nn.ModuleDict({"linear": linear, "layers": layers}).state_dict()
    assert list(generator.state_dict()) == list(plain)
    assert all(torch.equal(value, plain[name]) for name, value in generator.state_dict().items())
    latents = torch.randn(7, 16)
    expected = layers(linear(latents).view(-1, 6, 2, 3))
    for layout in (torch.contiguous_format, torch.channels_last):
        images = generator.to(memory_format=layout)(latents)
        torch.testing.assert_close(images, expected, rtol=1e-4, atol=1e-5)
        assert images.is_contiguous()
