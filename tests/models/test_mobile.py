import pytest
import torch
import torchvision
from torch import nn

from smallnets import measure
from smallnets.models import FeatureTap, mobile, mobilenet_v2, mobilenet_v3, named

PUBLISHED = {
    "v2": (mobilenet_v2, {}, torchvision.models.mobilenet_v2, {}, 3_504_872),
    "v2 half": (
        mobilenet_v2, {"width": 0.5}, torchvision.models.mobilenet_v2, {"width_mult": 0.5},
        1_968_680,
    ),
    "v3 large": (mobilenet_v3, {}, torchvision.models.mobilenet_v3_large, {}, 5_483_032),
    "v3 small": (
        mobilenet_v3, {"size": "small"}, torchvision.models.mobilenet_v3_small, {}, 2_542_856,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    ours, settings, theirs, arguments, parameters = PUBLISHED[name]
    with torch.device("meta"):
        network, reference = ours(1000, **settings), theirs(**arguments)
        assert measure.parameters(network) == measure.parameters(reference) == parameters
        shape = (3, 224, 224)
        assert measure.macs(network, shape) == measure.macs(reference, shape)


def test_published_functions_with_the_same_weights():
    """Layers come in the same order, so weights can be handed over one by one."""
    for ours, theirs in (
        (mobilenet_v2(5), torchvision.models.mobilenet_v2(num_classes=5)),
        (mobilenet_v3(5), torchvision.models.mobilenet_v3_large(num_classes=5)),
    ):
        state = theirs.state_dict()
        own = ours.state_dict()
        assert [v.shape for v in own.values()] == [v.shape for v in state.values()]
        ours.load_state_dict(dict(zip(own, state.values(), strict=True)))
        if hasattr(theirs.classifier, "__getitem__"):
            x = torch.rand(2, 3, 64, 64)
            for module in theirs.modules():  # v3 is published with another eps
                if isinstance(module, nn.BatchNorm2d):
                    module.eps = 1e-5
            torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (2, 3, 8, 8), (3, 5, 33, 17)])
def test_any_size_and_channels(norm, shape):
    network = mobile(4, 7, shape[1], norm=norm)
    logits = network(torch.rand(shape))
    assert logits.shape == (shape[0], 7)
    logits.sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_stages_double_in_width_and_halve_in_resolution():
    network = mobile(4, 10, blocks=2)
    with FeatureTap(network, network.stage_names) as tap:
        network(torch.rand(2, 3, 32, 32))
    shapes = [tuple(feature.shape) for feature in tap.features.values()]
    assert shapes == [(2, 4, 16, 16), (2, 8, 8, 8), (2, 16, 4, 4)]
    adds = [block.adds for stage in network.stage_names for block in getattr(network, stage)]
    assert adds == [True, True, False, True, False, True]


def test_depthwise_convolutions_look_at_one_channel_each():
    grouped = [m for m in mobile(4, 10).modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert len(grouped) == 3
    assert all(m.groups == m.in_channels == m.out_channels for m in grouped)


def test_names():
    with torch.device("meta"):
        sizes = {
            name: measure.parameters(named(name, 1000)) for name in ("mobilenet-2", "mobilenet-3")
        }
    assert sizes == {"mobilenet-2": 3_504_872, "mobilenet-3": 5_483_032}
    assert not any(isinstance(m, nn.BatchNorm2d) for m in named("mobilenet-3", 10).modules())
    assert measure.parameters(named("mobile-8", 10)) < 20_000
    with pytest.raises(ValueError, match=r"must be one of convnet-WIDTH, .*; got 'mobilenet-4'"):
        named("mobilenet-4", 10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mobile(0, 10), "width must be at least 1; got 0"),
        (lambda: mobile(4, 10, norm="none"), "norm must be one of batch, group; got 'none'"),
        (lambda: mobile(4, 10, expansion=0), "expansion must be at least 1; got 0"),
        (lambda: mobilenet_v2(10, width=0), "width must be greater than 0; got 0"),
        (lambda: mobilenet_v3(10, size="medium"), "size must be one of large, small; got 'medium'"),
        (lambda: mobilenet_v3(0), "num_classes must be at least 1; got 0"),
    ],
)
def test_bad_sizes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
