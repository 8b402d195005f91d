"""Supernets of anybody's generator: found groups, named layers, slices, exports, costs."""

import copy

import pytest
import torch
from torch import nn

from smallnets import measure
from smallnets.gan.networks.calibration import calibrate
from smallnets.gan.networks.counting import count
from smallnets.gan.networks.decompose import decompose
from smallnets.gan.networks.general import supernet
from smallnets.gan.networks.grouping import width_groups
from smallnets.gan.networks.resnet import ResNetGenerator
from smallnets.gan.networks.resnet_widths import MOBILE
from smallnets.gan.networks.super_resnet import SuperResNetGenerator
from smallnets.gan.networks.tapped import Tapped
from smallnets.gan.networks.unet import UNetGenerator

X = 2 * torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) - 1


class Own(nn.Module):
    """A generator with a skip connection, a concatenation and an upsampling in between."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.down = nn.Conv2d(8, 12, 4, 2, 1, bias=False)
        self.norm = nn.InstanceNorm2d(12, affine=True)
        self.inner = nn.Conv2d(12, 12, 3, padding=1)
        self.thin = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.up = nn.ConvTranspose2d(12, 6, 4, 2, 1)
        self.mixed = nn.BatchNorm2d(14)
        self.last = nn.Conv2d(14, 3, 3, padding=1)

    def forward(self, x):
        a = self.first(x)
        b = self.norm(self.down(a)).relu()
        b = b + self.thin(self.inner(b).relu())
        c = self.mixed(torch.cat([a, self.up(b)], dim=1))
        return self.last(c.relu()).tanh()


def own(seed=0):
    torch.manual_seed(seed)
    made = Own()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return made.eval()


def test_groups_are_found_across_skips_and_concatenations():
    groups = width_groups(own(), X)
    sizes = {name: group.size for name, group in groups.items()}
    assert sizes == {"first.0": 8, "down": 12, "up": 6}
    assert {"down", "norm", "inner", "thin"} == set(groups["down"].layers)
    behind = next(m for m in groups["up"].members if m.layer == "last")
    assert behind.places == tuple(range(8, 14))


def test_a_depthwise_layer_behind_a_concatenation_joins_no_groups():
    mobile = decompose(own(), ["last"])
    sizes = {name: group.size for name, group in width_groups(mobile, X).items()}
    assert sizes == {"first.0": 8, "down": 12, "up": 6}


class Shuffled(nn.Module):
    """Has a norm over channels, and a pixel shuffle."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.c, self.d = nn.Conv2d(8, 16, 1), nn.Conv2d(4, 3, 1)

    def forward(self, x):
        return self.d(nn.functional.pixel_shuffle(self.c(self.norm(self.b(self.a(x)))), 2))


class Windows(nn.Module):
    """Puts the quarters of a feature map in another order."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1)

    def forward(self, x):
        y = self.a(x)
        blocks = y.view(*y.shape[:2], 2, y.shape[2] // 2, 2, y.shape[3] // 2)
        return self.b(blocks.permute(0, 1, 4, 3, 2, 5).reshape(y.shape))


def test_what_cannot_be_sliced_is_left_alone():
    made = supernet(Shuffled(), X)
    assert made.genes == (("a",),)
    config = made.space.smallest()
    assert torch.equal(made.export(config)(X), made(X, config))
    for name in "bc":
        with pytest.raises(ValueError, match=f"layer '{name}' must be free to vary"):
            supernet(Shuffled(), X, {name: [4]})
    with pytest.raises(ValueError, match="blocks that change places"):
        supernet(Windows(), X)


def test_grouped_convolutions_are_left_alone_even_with_one_channel_for_each_group():
    layers = (
        nn.Conv2d(3, 8, 1),
        nn.Conv2d(8, 4, 1, groups=4),
        nn.Conv2d(4, 6, 1),
        nn.Conv2d(6, 3, 1),
    )
    made = supernet(nn.Sequential(*layers), X)
    assert made.genes == (("2",),)
    config = made.space.smallest()
    assert torch.equal(made.export(config)(X), made(X, config))


def test_every_width_runs_and_is_exported_bit_for_bit():
    generator = own()
    before = copy.deepcopy(generator.state_dict())
    made = supernet(generator, X, taps=("first", "down"))
    draws = torch.Generator().manual_seed(0)
    assert torch.equal(made(X), generator(X))
    for config in [made.space.smallest(), *(made.space.sample(draws) for _ in range(4))]:
        image, taps = made(X, config, taps=True)
        exported = made.export(config)
        assert type(exported) is Own
        assert torch.equal(exported(X), image)
        assert [tap.shape[1] for tap in taps] == made.tap_channels(config)
        assert made.cost(config) == count(exported, (3, 8, 8))
        assert made.cost(config, (16, 16)) == count(exported, (3, 16, 16))
    after = generator.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_gradients_reach_the_slice_alone():
    made = supernet(own(), X, {"first.0": [8, 4]})
    made(X, (4,)).square().sum().backward()
    gradient = made.network.first[0].weight.grad
    assert gradient[:4].abs().sum() > 0
    assert (gradient[4:] == 0).all()
    # Behind the concatenation the slice is channels 0..3 and 8..13.
    gradient = made.network.last.weight.grad
    assert (gradient[:, 4:8] == 0).all()
    assert (gradient[:, 8:].abs().sum((0, 2, 3)) > 0).all()


def test_training_moves_the_statistics_of_the_slice_alone():
    made = supernet(own(), X, {"first.0": [8, 4]}).train()
    norms = made.network.first[1], made.network.mixed
    before = [norm.running_mean.clone() for norm in norms]
    made(X, (4,))
    moved = [norm.running_mean != old for norm, old in zip(norms, before, strict=True)]
    assert moved[0].tolist() == [True] * 4 + [False] * 4
    assert moved[1].tolist() == [True] * 4 + [False] * 4 + [True] * 6


def test_calibration_gives_statistics_of_the_batch():
    made = supernet(own(), X, {"first.0": [8, 4]})
    calibrate(made, (4,), [X])
    expected = made.network.first[0](X).mean((0, 2, 3))[:4]
    assert torch.allclose(made.network.first[1].running_mean[:4], expected, atol=1e-6)


def test_sorting_changes_no_image_and_puts_strong_channels_first():
    generator = own()
    made = supernet(generator, X, sort=True)
    assert (made(X) - generator(X)).abs().max() < 1e-5
    strength = made.network.first[0].weight.abs().sum((1, 2, 3))
    assert (strength.diff() <= 0).all()
    unet = UNetGenerator(ngf=2, downs=3).eval()
    assert (supernet(unet, X, sort=True)(X) - unet(X)).abs().max() < 1e-5


def test_named_layers_alone_vary_and_some_together():
    made = supernet(own(), X, {("down",): [12, 6], "up": [6, 2]})
    assert made.space.widths == ((12, 6), (6, 2))
    exported = made.export((6, 2))
    assert exported.first[0].out_channels == 8
    assert (exported.down.out_channels, exported.up.out_channels) == (6, 2)
    net = nn.Sequential(*(nn.Conv2d(a, b, 1) for a, b in ((3, 4), (4, 4), (4, 4), (4, 3))))
    tied = supernet(net, X, {("0", "1", "2"): [4, 2]}).export((2,))
    assert [layer.out_channels for layer in tied] == [2, 2, 2, 3]


def test_it_agrees_with_the_supernet_of_the_resnet_family():
    torch.manual_seed(0)
    family = SuperResNetGenerator(ngf=4, n_blocks=3)
    plain = ResNetGenerator(ngf=4, n_blocks=3, separable=MOBILE, clamp=True)
    plain.load_state_dict(family.state_dict())
    pointwise = "conv_block.1.conv.2"
    widths = {
        "model.1": [4, 3], "model.4": [8, 4], "model.7": [16, 12],
        **{f"model.{10 + block}.{pointwise}": [16, 4 * (block + 1)] for block in range(3)},
        "model.13": [8, 2], "model.16": [4, 2],
    }  # fmt: skip
    made = supernet(plain, X, widths)
    config = (3, 2, 3, 1, 2, 3, 1, 2)
    image = made(X, (3, 4, 12, 4, 8, 12, 2, 2))
    assert torch.equal(image, family(X, config))
    assert made.cost((3, 4, 12, 4, 8, 12, 2, 2)) == family.cost(config, (8, 8))


def test_linear_layers_before_feature_maps_are_sliced_in_blocks():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 12))
    x = torch.rand(2, 3, 2, 2)
    made = supernet(net, x, {"1": [20, 5]})
    assert torch.equal(made.export((5,))(x), made(x, (5,)))
    assert measure.parameters(made.export((5,))) == 12 * 5 + 5 + 5 * 12 + 12


def test_exports_can_be_trained_further_with_their_taps():
    made = supernet(own(), X, taps=("first",))
    tapped = Tapped(made.export(made.space.smallest()), made.taps)
    image, (tap,) = tapped(X, taps=True)
    assert torch.equal(image, tapped(X))
    assert [tap.shape[1]] == tapped.tap_channels(X) == made.tap_channels(made.space.smallest())
    image.mean().backward()


def test_frozen_generators_stay_frozen():
    generator = own().requires_grad_(False)
    made = supernet(generator, X)
    assert not any(p.requires_grad for p in (*generator.parameters(), *made.parameters()))


def test_copies_of_a_supernet_are_independent():
    made = supernet(own(), X)
    twin = copy.deepcopy(made)
    with torch.no_grad():
        twin.network.last.weight.zero_()
    config = made.space.smallest()
    assert not torch.equal(made(X, config), twin(X, config))
    made.load_state_dict(supernet(own(1), X).state_dict())
    assert torch.equal(made(X, config), supernet(own(1), X)(X, config))


class Counting(nn.Module):
    """Expects its own number of channels."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1)

    def forward(self, x):
        return self.b(self.a(x) * torch.arange(8.0).view(8, 1, 1))


def tied():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 3, 1)
    )
    net[2].weight = net[1].weight
    return net


@pytest.mark.parametrize(
    ("generator", "widths", "message"),
    [
        (own, {"nowhere": [4]}, "a layer must be one of first.0, .*; got 'nowhere'"),
        (own, {"last": [2]}, "must be free to vary; it makes the output"),
        (own, {"down": [13]}, "must be at most 12; got 13"),
        (own, {"down": [6, 2.5]}, "whole number"),
        (own, {"down": []}, "at least one number"),
        (own, {"down": [4], "norm": [4]}, "named once; 'norm' has that of an earlier name"),
        (own, {("down", "up"): [4]}, "equally wide; those of .* have 6, 12 channels"),
        (own, {}, "at least one layer"),
        (own, [1.5], "between 0 and 1; got 1.5"),
        (own, [0.0], "greater than 0"),
        (Counting, None, "must run with widths"),
        (tied, None, "parameters of its own"),
        (lambda: nn.Conv2d(3, 3, 1), None, "layers whose widths can vary"),
        (lambda: weight_normed(), None,
         "plain parameter"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_in_one_line(generator, widths, message):
    with pytest.raises(ValueError, match=message) as caught:
        supernet(generator(), X, widths)
    assert "\n" not in str(caught.value)


def weight_normed():
    made = own()
    nn.utils.parametrizations.weight_norm(made.down)
    return made


def test_wrong_examples_taps_and_configurations_are_refused():
    with pytest.raises(ValueError, match="example must be a batch"):
        supernet(own(), X[:0])
    with pytest.raises(ValueError, match="traceable on the example"):
        supernet(own(), X[:, :2])
    with pytest.raises(ValueError, match="a tap must be the dotted name of a module of Own"):
        supernet(own(), X, taps=("nowhere",))
    made = supernet(own(), X, {"down": [12, 6]})
    with pytest.raises(ValueError, match="must be one of 12, 6; got 5"):
        made(X, (5,))
    with pytest.raises(ValueError, match="1 widths; got 2"):
        made.export((6, 6))
    with pytest.raises(ValueError, match="sequence of whole numbers; got 6"):
        made.cost(6)
    assert supernet(own(), X, {"down": [6, 12]}).space.widths == ((12, 6),)


def test_decomposed_layers_are_separable_and_still_vary():
    generator = own()
    mobile = decompose(generator, ["inner", "last"])
    assert [type(layer).__name__ for layer in mobile.inner.conv] == [
        "Conv2d", "InstanceNorm", "Conv2d",
    ]  # fmt: skip
    assert isinstance(generator.inner, nn.Conv2d)
    assert mobile(X).shape == X.shape
    made = supernet(mobile, X)
    config = made.space.smallest()
    assert torch.equal(made.export(config)(X), made(X, config))
    assert made.cost(config) == count(made.export(config), (3, 8, 8))
    for layers, message in (
        (["thin"], "plain convolution of more than one pixel"),
        (["nowhere"], "there is none of that name"),
        ([], "names of convolutions"),
    ):
        with pytest.raises(ValueError, match=message):
            decompose(generator, layers)
    with pytest.raises(ValueError, match="norm must be one of"):
        decompose(generator, ["inner"], norm="none")
