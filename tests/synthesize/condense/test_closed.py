"""Real images in closed form: Winograd's convolutions, embeddings and gradients of the weights."""

import copy

import pytest
import torch
from torch.nn import functional as F

from smallnets.synthesize import condense as dm
from smallnets.synthesize.condense import winograd
from smallnets.synthesize.condense.closed import Blocks, suits
from smallnets.synthesize.condense.threads import in_threads


def wide(size=(16, 8), depth=2, **changed):
    """A wide network whose norms are not at their start, in channels-last memory."""
    spec = dm.ConvNetSpec(**{"depth": depth, "width": 64, **changed})
    network = dm.ConvNet(4, 3, size, spec).to(memory_format=torch.channels_last)
    for layer in network.features:
        if isinstance(layer, torch.nn.GroupNorm):
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.uniform_(layer.bias, -0.5, 0.5)
    return network


def share(found, expected):
    return float((found - expected).detach().norm() / expected.detach().norm())


@pytest.mark.parametrize("size", [(4, 4), (8, 12)])
def test_winograd_is_a_convolution_with_its_gradients(size):
    x = torch.randn(3, 5, *size).requires_grad_()
    weight = torch.randn(7, 5, 3, 3).requires_grad_()
    expected = F.conv2d(x, weight, padding=1)
    target = torch.randn_like(expected)
    of_x, of_weight = torch.autograd.grad((expected * target).sum(), [x, weight])
    maps, g = (one.detach().permute(0, 2, 3, 1).contiguous() for one in (x, target))
    weight = weight.detach()
    points = winograd.inputs_at_points(maps)
    found = winograd.convolve(points, winograd.at_points(weight), maps.shape)
    assert share(found.permute(0, 3, 1, 2), expected) < 1e-5
    turned = winograd.at_points(winograd.turned(weight))
    back = winograd.convolve(winograd.inputs_at_points(g), turned, g.shape)
    assert share(back.permute(0, 3, 1, 2), of_x) < 1e-5
    products = torch.bmm(points.transpose(1, 2), winograd.outputs_at_points(g))
    assert share(winograd.weight_gradient(products), of_weight) < 1e-5
    assert winograd.tiles(*size)
    assert not winograd.tiles(6, 8)


@pytest.mark.parametrize(("size", "depth"), [((16, 8), 2), ((16, 16), 3)])
def test_embeddings_are_those_of_the_network(size, depth):
    network, x = wide(size, depth), torch.randn(5, 3, *size)
    assert suits(network, x)
    exact = copy.deepcopy(network).double().embed(x.double())
    with torch.no_grad():
        assert share(Blocks(network, "32-true").embed(x), exact) < 1e-5
        assert 1e-5 < share(Blocks(network, "bf16-mixed").embed(x), exact) < 0.03
        mean = dm.mean_embedding(network, x, together=2)
    assert share(mean, exact.mean(0)) < 1e-5


def test_grey_images_of_28_pixels_are_padded_here_too():
    network = dm.ConvNet(4, 1, (28, 28), dm.ConvNetSpec(2, 64))
    network.to(memory_format=torch.channels_last)
    x = torch.randn(2, 1, 28, 28)
    assert suits(network, x)
    with torch.no_grad():
        assert share(Blocks(network, "32-true").embed(x), network.embed(x)) < 1e-5


def test_gradients_are_those_of_the_network_in_parts_or_whole():
    network, x = wide((16, 16), 3), torch.randn(6, 3, 16, 16)
    exact = copy.deepcopy(network).double()
    loss = F.cross_entropy(exact(x.double()), torch.full((6,), 2))
    expected = torch.autograd.grad(loss, list(exact.parameters()))
    names = [name for name, _ in network.named_parameters()]
    for together, precision, most in ((4, "32-true", 1e-4), (6, "bf16-mixed", 0.2)):
        found = dm.real_gradient(network, x, 2, together, precision)
        for name, a, b in zip(names, found, expected, strict=True):
            if name.startswith("features") and int(name.split(".")[1]) % 4 == 0 and "bias" in name:
                assert not a.any()  # a bias before an instance norm
                assert b.abs().max() < 1e-12
            else:
                assert share(a, b) < most, name


def test_constant_images_stay_finite():
    network, x = wide(), torch.full((2, 3, 16, 8), 0.7)
    with torch.no_grad():
        torch.testing.assert_close(
            Blocks(network, "32-true").embed(x), network.embed(x), rtol=1e-2, atol=1e-2
        )
    assert all(bool(one.isfinite().all()) for one in dm.real_gradient(network, x, 1, 2))


def test_other_networks_and_images_keep_to_their_own_forward():
    x = torch.randn(2, 3, 16, 8)
    assert suits(wide(), x)
    negative = wide()
    with torch.no_grad():
        negative.features[5].weight[3] = -1
    for network in (
        negative, wide(width=32), wide(norm="batch"), wide(activation="swish"), wide(depth=3),
        wide(depth=1), wide(pooling="max"), wide().double(), dm.network("MLP", 4, 3, (16, 8)),
        dm.ConvNet(4, 3, (16, 8), dm.ConvNetSpec(2, 64)),
    ):  # fmt: skip
        assert not suits(network, x)
    assert not suits(wide(), x.clone().requires_grad_())
    assert not suits(wide(), torch.randn(2, 3, 12, 8))
    assert not suits(wide(), torch.randn(2, 1, 16, 8))
    assert not suits(wide(), x.double())


def test_a_wide_network_learns_the_same_set_class_by_class(made):
    real = made(each=8, size=(8, 8))
    factory = dm.Fresh(4, 3, (8, 8), spec=dm.ConvNetSpec(2, 64))
    settings = dm.DMSettings(
        ipc=2, iterations=2, lr=0.1, batch_real=8, precision="32-true", device="cpu"
    )
    usual = dm.condense(real, settings, embed_factory=factory)
    again = dm.condense(real, settings, embed_factory=factory)
    assert torch.equal(usual.set.images, again.set.images)
    alone = dm.condense(real, settings, embed_factory=factory, only=[2]).set
    torch.testing.assert_close(alone.images, usual.set.images[4:6], rtol=1e-4, atol=1e-5)
    narrow = dm.GradientMatchingSettings(
        ipc=2, iterations=2, outer=2, inner=1, batch_real=8, precision="32-true", device="cpu"
    )
    whole = dm.match_gradients(real, narrow, factory=factory)
    half = dm.match_gradients(real, dm.GradientMatchingSettings(
        **{**vars(narrow), "iterations": 1}), factory=factory)  # fmt: skip
    rest = dm.match_gradients(real, narrow, factory=factory, resume=half.state)
    assert torch.equal(rest.set.images, whole.set.images)


def test_threads_take_classes_and_change_nothing(made):
    real = made(each=8, size=(8, 8))
    factory = dm.Fresh(4, 3, (8, 8), spec=dm.ConvNetSpec(2, 64))
    shared = {"ipc": 2, "iterations": 2, "batch_real": 8, "precision": "32-true", "device": "cpu"}
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            settings = dm.dsa(outer=2, inner=0, **shared)
            one = dm.condense(real, dm.DMSettings(joint=False, **shared), embed_factory=factory)
            two = dm.match_gradients(real, settings, factory=factory)
            found.append((one, two))
            assert torch.get_num_threads() == threads
            assert in_threads(lambda k: k * k, range(5)) == [0, 1, 4, 9, 16]
            for items in range(1), range(5):  # one thread to each, be it the only one
                assert in_threads(lambda _: torch.get_num_threads(), items) == [1] * len(items)
            with pytest.raises(ZeroDivisionError):
                in_threads(lambda k: 1 / k, range(5))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*found, strict=True):
        assert torch.equal(one.set.images, two.set.images)
        assert one.losses == two.losses
