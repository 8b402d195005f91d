import copy

import pytest
import torch
from torch import nn

from smallnets.models import FeatureTap, convnet


@pytest.fixture
def network():
    return convnet(2, 3, depth=2)


@pytest.fixture
def x():
    return torch.rand(2, 3, 8, 8)


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


def test_features_are_the_outputs_of_the_latest_pass(network, x):
    network.eval()
    with FeatureTap(network, ["stage2", "stage1.conv"]) as tap:
        network(torch.zeros_like(x))
        network(x)
        assert list(tap.features) == ["stage2", "stage1.conv"]
        assert torch.equal(tap.features["stage1.conv"], network.stage1.conv(x))
        assert torch.equal(tap.features["stage2"], network.stage2(network.stage1(x)))


def test_features_keep_the_graph(network, x):
    with FeatureTap(network, ["stage1"]) as tap:
        network(x)
    tap.features["stage1"].square().sum().backward()
    assert network.stage1.conv.weight.grad.any()
    assert network.stage2.conv.weight.grad is None


def test_hooks_go_with_the_block_and_features_stay(network, x):
    with FeatureTap(network, network.stage_names) as tap:
        assert hooks(network) == 2
        network(x)
    assert hooks(network) == 0
    kept = tap.features["stage1"]
    network(x + 1)
    assert tap.features["stage1"] is kept


def test_hooks_go_when_the_block_raises(network):
    with pytest.raises(KeyError), FeatureTap(network, ["stage1"]):
        raise KeyError("anything")
    assert hooks(network) == 0


def test_close_ends_a_tap_without_a_block(network, x):
    tap = FeatureTap(network, ["stage1"])
    network(x)
    assert tap.features["stage1"].shape == (2, 2, 8, 8)
    tap.close()
    assert hooks(network) == 0


def test_two_taps_do_not_meet(network, x):
    with FeatureTap(network, ["stage1"]) as outer:
        with FeatureTap(network, ["stage1", "stage2"]):
            network(x)
        assert hooks(network) == 1
        assert list(outer.features) == ["stage1"]


@pytest.mark.parametrize("prefix", ["", "student."])
def test_a_network_inside_a_module_dict(network, x, prefix):
    both = nn.ModuleDict({"student": network, "teacher": convnet(4, 3)})
    with FeatureTap(both if prefix else network, [f"{prefix}stage2"]) as tap:
        both["student"](x)
    assert tap.features[f"{prefix}stage2"].shape == (2, 4, 4, 4)


def test_a_copy_of_the_network_is_not_listened_to(network, x):
    with FeatureTap(network, ["stage1"]) as tap:
        network(x)
        kept = tap.features["stage1"]
        copy.deepcopy(network)(x + 1)
        assert tap.features["stage1"] is kept


def test_reading_before_a_forward_pass(network):
    with (
        FeatureTap(network, network.stage_names) as tap,
        pytest.raises(RuntimeError, match=r"^no features of stage1, stage2 yet: run the network"),
    ):
        tap.features["stage1"]


@pytest.mark.parametrize(
    ("names", "given"), [(["stage1", "stage9"], "'stage9'"), ([""], "''"), ([], "none")]
)
def test_names_that_are_no_submodules(network, names, given):
    with pytest.raises(
        ValueError, match=rf"^names must be among stage1, .*; got {given}$"
    ) as error:
        FeatureTap(network, names)
    assert "stage2.conv" in str(error.value)
    assert "\n" not in str(error.value)
    assert hooks(network) == 0
