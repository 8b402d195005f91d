"""ResNet generators and their supernet."""

from dataclasses import replace

import pytest
import torch

from smallnets.gan.networks.counting import count
from smallnets.gan.networks.resnet import PARTS, ResNetGenerator
from smallnets.gan.networks.resnet_widths import MOBILE, channels_of, eight, resnet_cost
from smallnets.gan.networks.super_resnet import SuperResNetGenerator

SIZE = (12, 16)


def images(batch=2, seed=0):
    return 2 * torch.rand(batch, 3, *SIZE, generator=torch.Generator().manual_seed(seed)) - 1


def small_super(**options):
    torch.manual_seed(0)
    return SuperResNetGenerator(ngf=4, n_blocks=3, **options)


CONFIGS = [(4,) * 8, (1,) * 8, (3, 2, 4, 1, 3, 2, 4, 2), (2, 3, 3, 4, 2, 3)]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(
    "options",
    [{}, {"separable": ()}, {"separable": PARTS, "kernel_size": 5}, {"norm": "batch"}],
    ids=["mobile", "dense", "all separable", "batch norm"],
)
def test_exports_are_slices_bit_for_bit(config, options):
    supernet, x = small_super(**options).eval(), images()
    image, taps = supernet(x, config, taps=True)
    exported = supernet.export(config)
    same, same_taps = exported(x, taps=True)
    assert torch.equal(image, same)
    assert [tap.shape[1] for tap in taps] == supernet.tap_channels(config)
    assert exported.tap_channels() == supernet.tap_channels(config)
    assert all(torch.equal(a, b) for a, b in zip(taps, same_taps, strict=True))
    cost = supernet.cost(config, SIZE)
    assert cost == exported.cost(SIZE) == count(exported, (3, *SIZE))
    sliced = count(supernet, (3, *SIZE), config=config)
    assert replace(sliced, parameters=cost.parameters) == cost


def test_full_configuration_is_the_plain_network():
    supernet, x = small_super(), images()
    plain = ResNetGenerator(ngf=4, n_blocks=3, separable=MOBILE, clamp=True)
    plain.load_state_dict(supernet.state_dict())
    assert torch.equal(supernet(x), plain(x))
    assert torch.equal(supernet(x), supernet(x, supernet.full_config))


def test_gradients_outside_the_slice_are_exactly_zero():
    supernet = small_super()
    supernet(images(), (2,) * 8).square().mean().backward()
    narrow = supernet.export((2,) * 8).state_dict()
    for name, parameter in supernet.named_parameters():
        gradient = parameter.grad.clone()
        gradient[tuple(slice(side) for side in narrow[name].shape)] = 0
        assert (gradient == 0).all(), name


def test_exports_are_copies():
    supernet, x = small_super(), images()
    exported = supernet.export((2,) * 8)
    before = exported(x)
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.zero_()
    assert torch.equal(exported(x), before)


def test_configurations_given_are_not_changed():
    config = [2, 3, 3, 4, 2, 3]
    small_super()(images(), config)
    assert config == [2, 3, 3, 4, 2, 3]


def test_six_numbers_are_eight():
    assert eight((1, 2, 3, 4, 5, 6)) == (1, 2, 3, 4, 4, 4, 5, 6)
    channels = channels_of((1, 2, 3, 4, 5, 6, 7, 8))
    assert channels.hidden == (16,) * 3 + (20,) * 3 + (24,) * 3
    assert (channels.down, channels.stream, channels.up, channels.last) == (4, 12, 14, 8)
    legacy = channels_of((1, 2, 3, 4, 5, 6), legacy=True)
    assert legacy.hidden == (16, 12, 12) * 3


@pytest.mark.parametrize("gene", range(8))
def test_costs_grow_with_every_gene(gene):
    narrow, wide = [2] * 8, [2] * 8
    wide[gene] = 3
    small, large = (resnet_cost(channels_of(c), SIZE) for c in (narrow, wide))
    for name in ("published", "outsized", "exact", "parameters"):
        assert getattr(small, name) < getattr(large, name)
    assert small.exact <= small.outsized <= small.published


def test_inputs_are_clamped_but_in_the_plain_mobile_network():
    x = 3 * images()
    for options, clamped in (({}, True), ({"separable": MOBILE}, False)):
        network = ResNetGenerator(ngf=2, n_blocks=1, **options)
        assert torch.equal(network(x), network(x.clamp(-1, 1))) == clamped
    assert small_super().clamp


def test_only_the_blocks_of_the_mobile_network_are_separable():
    names = [n for n, _ in ResNetGenerator(ngf=2, separable=MOBILE).named_parameters()]
    assert all("conv_block" in name for name in names if ".conv." in name)
    assert sum(".conv.0.weight" in name for name in names) == 18


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ((2,) * 7, "6 or 8 widths; got 7"),
        ((2,) * 7 + (5,), "width 7 of the configuration must be at most 4; got 5"),
        ((0,) + (2,) * 7, "at least 1"),
        ((2.0,) + (2,) * 7, "whole number"),
        ("2_2_2_2_2_2_2_2", "whole numbers"),
    ],
)
def test_wrong_configurations_are_refused(config, message):
    supernet = small_super()
    for use in (lambda: supernet(images(), config), lambda: supernet.export(config)):
        with pytest.raises(ValueError, match=message):
            use()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 4, 16, 16), r"\(batch, 3, height, width\)"),
        ((3, 16, 16), r"\(batch, 3, height, width\)"),
        ((1, 3, 16, 18), "multiples of 4, and at least 8; got 16 x 18"),
        ((1, 3, 4, 16), "at least 8; got 4 x 16"),
    ],
)
def test_wrong_images_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        small_super()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"separable": ("middle",)}, "separable part must be one of down, blocks, up"),
        ({"norm": "group"}, "norm must be one of"),
        ({"kernel_size": 6}, "odd"),
        ({"ngf": 0}, "ngf must be at least 1"),
        ({"n_blocks": 2.5}, "whole number"),
        ({"config": (1, 2, 3)}, "6 or 8"),
        ({"dropout": 2}, "between 0 and 1"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ResNetGenerator(**options)


def test_smallest_images_run_in_training_mode():
    x = torch.zeros(1, 3, 8, 8)
    assert small_super()(x, (1,) * 8).shape == x.shape
