import math

import numpy as np
import pytest
import torch
from torch import nn

from smallnets.measure import macs, parameters
from smallnets.models import FeatureTap, wide_resnet

GOLDEN = "02-similarity-preserving"
CLOSE = {"rtol": 1e-4, "atol": 1e-6}


def test_parameters_and_macs_are_those_of_the_published_code(golden):
    table = golden(GOLDEN)["N_wrn_depth_width_classes_params_convmacs_fcmacs"]
    assert len(table) > 0
    for depth, width, classes, params, conv_macs, linear_macs in table.tolist():
        network = wide_resnet(depth, width, classes)
        assert parameters(network) == params, (depth, width, classes)
        assert macs(network, (3, 32, 32)) == conv_macs + linear_macs, (depth, width, classes)


def our_name(name: str) -> str:
    """The published code's name of a weight, in this library's words."""
    if name == "conv1.weight":
        return "conv.weight"
    parts = name.split(".")
    if parts[0].startswith("block"):
        stage, _, index, *rest = parts
        layer = rest[0].replace("bn", "norm").replace("convShortcut", "shortcut")
        return ".".join([stage.replace("block", "stage"), index, layer, *rest[1:]])
    return ".".join([{"bn1": "norm", "fc": "classifier"}[parts[0]], *parts[1:]])


@pytest.fixture(scope="module")
def published(golden):
    """The published code's network with its own weights, rebuilt from nothing but the file."""
    arrays = golden(GOLDEN)
    shapes = [tuple(side for side in shape if side) for shape in arrays["N_net_shapes"].tolist()]
    pieces = np.split(arrays["N_net_state"], np.cumsum([math.prod(s) for s in shapes])[:-1])
    state = {
        str(name): torch.from_numpy(piece.reshape(shape))
        for name, piece, shape in zip(arrays["N_net_keys"], pieces, shapes, strict=True)
    }
    blocks = sum(name.startswith("block1.") and name.endswith("conv1.weight") for name in state)
    classes = len(state["fc.bias"])
    width = len(state["block1.layer.0.conv1.weight"]) // 16
    network = wide_resnet(6 * blocks + 4, width, classes, state["conv1.weight"].shape[1]).eval()
    ours = {our_name(name): weight for name, weight in state.items()}
    missing, unexpected = network.load_state_dict(ours, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in missing)
    assert unexpected == []
    return network, arrays


def test_outputs_are_those_of_the_published_code(published):
    network, arrays = published
    with FeatureTap(network, [*network.stage_names, "norm", "flatten"]) as tap, torch.no_grad():
        logits = network(torch.from_numpy(arrays["N_net_x"]))
    features = tap.features
    np.testing.assert_allclose(logits, arrays["N_net_logits"], **CLOSE)
    np.testing.assert_allclose(features["stage3"], arrays["N_net_f3"], **CLOSE)
    np.testing.assert_allclose(features["norm"], arrays["N_net_f3_preact"], **CLOSE)
    np.testing.assert_allclose(features["flatten"], arrays["N_net_f4"], **CLOSE)


def test_stages_are_those_of_the_published_code(published):
    network, arrays = published
    names = ("conv", *network.stage_names)
    with FeatureTap(network, names) as tap, torch.no_grad():
        network(torch.from_numpy(arrays["N_net_x"]))
    for i, name in enumerate(names):
        feature = tap.features[name]
        assert feature.shape == tuple(arrays[f"N_net_f{i}_shape"])
        means = feature.flatten(1).mean(1)
        np.testing.assert_allclose(means, arrays[f"N_net_f{i}_mean"], **CLOSE)


@pytest.mark.parametrize("shape", [(1, 1, 28, 28), (1, 3, 8, 8), (2, 4, 31, 19), (2, 3, 32, 32)])
def test_stages(shape):
    n, channels, height, width = shape
    network = wide_resnet(10, 1, 5, channels)
    assert network.stage_names == ("stage1", "stage2", "stage3")
    with FeatureTap(network, network.stage_names) as tap:
        assert network(torch.rand(shape)).shape == (n, 5)
    for i, feature in enumerate(tap.features.values()):
        size = math.ceil(height / 2**i), math.ceil(width / 2**i)
        assert feature.shape == (n, 16 * 2**i, *size)
        assert feature.min() < 0 < feature.max(), "a raw sum has both signs"


def test_initial_weights():
    torch.manual_seed(0)
    network = wide_resnet(10, 4, 10)
    weight = network.stage3[0].conv2.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 256)), rel=0.01)
    assert not network.classifier.bias.any()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 7
    assert all((m.weight == 1).all() and not m.bias.any() for m in norms)


@pytest.mark.parametrize("depth", [4, 8, 14, 20])
def test_depth_must_be_6n_plus_4(depth):
    message = rf"^depth must be 6n \+ 4 \(10, 16, 22, \.\.\.\); got {depth}$"
    with pytest.raises(ValueError, match=message):
        wide_resnet(depth, 1, 10)


@pytest.mark.parametrize(("name", "value"), [("width", 0), ("in_channels", 0), ("num_classes", 0)])
def test_sizes_are_at_least_one(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be at least 1; got {value}$"):
        wide_resnet(**{"depth": 10, "width": 1, "num_classes": 10, name: value})
