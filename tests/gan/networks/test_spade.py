"""SPADE layers, blocks and generators, their supernet and its statistics."""

import pytest
import torch
from torch import nn

from smallnets.gan.networks.calibration import calibrate
from smallnets.gan.networks.counting import count
from smallnets.gan.networks.spade import SPADE, SPADEBlock, block_cost, fold_spectral_norm
from smallnets.gan.networks.spade_generator import (
    SPADEGenerator,
    SuperSPADEGenerator,
    spade_generator_cost,
)

SIZE = (32, 64)
CONFIGS = [(2,) * 8, (1,) * 8, (2, 1, 2, 1, 1, 2, 1, 2)]


def labels(batch=1, seed=0):
    numbers = torch.randint(0, 4, (batch, *SIZE), generator=torch.Generator().manual_seed(seed))
    return nn.functional.one_hot(numbers, 4).movedim(-1, 1).float()


def small_super(**options):
    torch.manual_seed(0)
    return SuperSPADEGenerator(4, ngf=2, upsampling="normal", **options)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(
    "options", [{}, {"separable": False}, {"norm": "instance"}], ids=["mobile", "dense", "instance"]
)
def test_exports_are_slices_bit_for_bit(config, options):
    supernet, maps = small_super(**options).eval(), labels()
    if options.get("norm") != "instance":
        calibrate(supernet, config, [labels(2, 1)])
    else:
        maps = nn.functional.interpolate(maps, scale_factor=2)  # no single pixels to norm
    image, taps = supernet(maps, config, taps=True)
    exported = supernet.export(config)
    same, same_taps = exported(maps, taps=True)
    assert torch.equal(image, same)
    assert [tap.shape[1] for tap in taps] == supernet.tap_channels(config)
    assert exported.tap_channels() == supernet.tap_channels(config)
    assert all(torch.equal(a, b) for a, b in zip(taps, same_taps, strict=True))
    size = tuple(maps.shape[2:])
    assert supernet.cost(config, size) == exported.cost(size) == count(exported, (4, *size))


def test_full_configuration_is_the_plain_network():
    supernet = small_super().eval()
    plain = SPADEGenerator(4, ngf=2, upsampling="normal", separable=True).eval()
    plain.load_state_dict(supernet.state_dict())
    assert torch.equal(supernet(labels()), plain(labels()))


def test_a_wide_output_block_keeps_its_learned_shortcut():
    exported = small_super().export((1, 1, 1, 1, 2, 1, 1, 1))  # up_0 reads and writes 16 channels
    assert exported.up_0.conv_s.weight.shape == (16, 16, 1, 1)


def test_calibrated_statistics_are_those_of_the_batch():
    supernet, config, maps = small_super(), CONFIGS[2], labels(2)
    before = [parameter.clone() for parameter in supernet.parameters()]
    assert calibrate(supernet, config, [maps]) is supernet
    assert supernet.training
    kept = supernet.head_0.norm_0.param_free_norm.running_mean.clone()
    small = nn.functional.interpolate(maps, size=(1, 2))
    x = supernet.fc(small, 32)
    assert torch.allclose(kept, x.mean((0, 2, 3)), atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(before, supernet.parameters(), strict=True))


def test_after_calibration_it_does_not_matter_what_was_trained_last():
    images = []
    for last in CONFIGS[:2]:
        supernet = small_super()
        supernet(labels(2, 5), last)
        calibrate(supernet, CONFIGS[2], [labels(2, 1), labels(2, 2)])
        images.append(supernet.eval()(labels(), CONFIGS[2]))
    assert torch.equal(*images)


def test_a_wider_configuration_needs_a_calibration_of_its_own():
    supernet, maps = small_super(), [labels(2, 1)]
    expected = calibrate(supernet, None, maps).eval()(labels(), taps=True)[1][0]
    calibrate(supernet, CONFIGS[1], maps)
    assert not torch.allclose(supernet(labels(), taps=True)[1][0], expected, rtol=0.1)
    calibrate(supernet, None, maps)
    assert torch.equal(supernet(labels(), taps=True)[1][0], expected)


def test_gradients_outside_the_slice_are_exactly_zero():
    supernet, config = small_super(), CONFIGS[1]
    supernet(labels(2), config).square().mean().backward()
    narrow = supernet.export(config).state_dict()
    for name, parameter in supernet.named_parameters():
        gradient = parameter.grad.clone()
        gradient[tuple(slice(side) for side in narrow[name].shape)] = 0
        assert (gradient == 0).all(), name


def test_calibration_is_the_mean_over_batches_in_any_order():
    found = []
    for seeds in ((1, 2), (2, 1)):
        supernet = small_super()
        calibrate(supernet, CONFIGS[2], [labels(2, seed) for seed in seeds])
        found.append(supernet.up_3.norm_0.param_free_norm.running_var)
    assert torch.allclose(*found, rtol=1e-5)


def test_more_upsampling_doubles_once_more():
    network = SPADEGenerator(4, ngf=1, upsampling="more").eval()
    maps = nn.functional.interpolate(labels(), scale_factor=2)
    assert network(maps).shape == (1, 3, 64, 128)
    assert count(network, (4, 64, 128)) == network.cost((64, 128))


@pytest.mark.parametrize("gene", range(8))
def test_costs_grow_with_every_gene(gene):
    narrow, wide = [2] * 8, [2] * 8
    wide[gene] = 3
    small, large = (spade_generator_cost(c, (64, 64), 4) for c in (narrow, wide))
    for name in ("published", "outsized", "exact", "parameters"):
        assert getattr(small, name) < getattr(large, name)


def test_spectral_norm_is_folded_away():
    torch.manual_seed(0)
    teacher = SPADEGenerator(4, ngf=1, upsampling="normal", spectral=True)
    teacher(labels(2))
    before = teacher.eval()(labels())
    teacher.train()
    plain = fold_spectral_norm(teacher)
    assert plain is teacher
    assert plain.training
    assert torch.allclose(plain.eval()(labels()), before, atol=1e-6)
    fresh = SPADEGenerator(4, ngf=1, upsampling="normal")
    assert set(plain.state_dict()) == set(fresh.state_dict())


@pytest.mark.parametrize("learned", [False, True])
def test_costs_of_blocks(learned):
    block = SPADEBlock(6, 5, 6, 4, 3, separable=True, learned=learned)
    maps = torch.zeros(1, 4, 8, 8)
    counted = count(block, torch.zeros(1, 6, 8, 8), labels=maps)
    closed = block_cost(64, 6, 5, 6, 4, 3, learned=learned, separable=True, norm="batch")
    assert counted == closed


def test_without_scale_and_shift_spade_is_its_norm():
    layer = SPADE(6, 4, 3, norm="instance")
    for part in (layer.mlp_gamma, layer.mlp_beta):
        nn.init.zeros_(part.weight)
        nn.init.zeros_(part.bias)
    x = torch.rand(1, 6, 8, 8)
    assert torch.allclose(layer(x, labels()), nn.functional.instance_norm(x))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ((2,) * 7, "8 widths; got 7"),
        ((3,) + (2,) * 7, "at most 2; got 3"),
        ((0,) * 8, "at least 1"),
    ],
)
def test_wrong_configurations_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        small_super()(labels(), config)


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (torch.zeros(1, 3, 32, 32), r"\(batch, 4, height, width\)"),
        (torch.zeros(1, 4, 32, 48), "multiples of 32; got 32 x 48"),
    ],
)
def test_wrong_label_maps_are_refused(maps, message):
    with pytest.raises(ValueError, match=message):
        small_super()(maps)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"upsampling": "most"}, "upsampling must be one of normal, more"),
        ({"norm": "group"}, "norm must be one of"),
        ({"labels": 0}, "labels must be at least 1"),
        ({"config": (1, 2)}, "8 widths; got 2"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SPADEGenerator(**options)
