"""Quantised networks in ONNX Runtime: the same answers, from integers."""

import onnx
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from smallnets.deploy import onnx_runtime
from smallnets.deploy.int8 import POLICY, deploy, export_int8
from smallnets.models import cifar_resnet
from smallnets.quantize.genie.network import calibrate, quantize
from smallnets.training import seeded

SHAPE = (3, 16, 16)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with seeded(0):
        return cifar_resnet(8, 5, width=8).eval()


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.randn(32, *SHAPE, generator=torch.Generator().manual_seed(0))


def integer(network, pictures, bits=8):
    made = quantize(network, bits, bits, symmetric=True, fold=True, policy=POLICY)
    return calibrate(made, pictures)


@pytest.mark.parametrize("bits", [8, 4])
def test_runtime_agrees_with_the_simulation(network, pictures, bits):
    result = integer(network, pictures, bits)
    found = deploy(network, result, pictures, batch=2, rounds=3)
    assert found.agreement > 0.95
    assert found.difference < 0.1
    assert found.file_bytes["int8"] < 0.6 * found.file_bytes["float"]
    assert all(one.median > 0 for one in found.latency.values())
    assert found.summary["int8"] == found.latency["int8"].median
    assert found.summary["float file"] == found.file_bytes["float"]
    session = onnx_runtime.load(export_int8(result, SHAPE))
    other = onnx_runtime.predict(session, 2 * pictures)
    assert not torch.allclose(other, onnx_runtime.predict(session, pictures))


def test_weights_are_integers_in_the_file(network, pictures):
    result = integer(network, pictures)
    model = onnx.load_from_string(export_int8(result, SHAPE))
    kinds = {one.data_type for one in model.graph.initializer if len(one.dims) == 4}
    assert kinds == {onnx.TensorProto.INT8}
    codes = {
        tuple(one.dims): onnx.numpy_helper.to_array(one)
        for one in model.graph.initializer
        if len(one.dims) == 4
    }
    stem = result.weights["conv"].codes - 128
    assert torch.equal(torch.tensor(codes[tuple(stem.shape)]).float(), stem)


def test_a_channel_with_next_to_no_weights_keeps_its_bias(pictures):
    with seeded(0):
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 5),
        ).eval()
    with torch.no_grad():
        net[2].weight[2] *= 1e-9
        net[2].bias[2] = 3.0  # some 10^12 steps of its sums
    ready = quantize(net, 8, 8, mode="nearest", symmetric=True, policy=POLICY)
    loader = DataLoader(pictures, 32)  # one batch, as of a user's own
    done = deploy(net, calibrate(ready, loader), loader, rounds=1)
    assert done.difference < 1e-3


class Sum(nn.Module):
    """A layer and its input added."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + x


MIDDLES = {
    "3x3": lambda: nn.Conv2d(16, 16, 3, padding=1),
    "1x1": lambda: nn.Conv2d(16, 16, 1),
    "strided": lambda: nn.Conv2d(16, 16, 3, 2),
    "grouped": lambda: nn.Conv2d(16, 16, 3, groups=4),
    "depthwise": lambda: nn.Conv2d(16, 16, 3, groups=16),
    "depthwise 5x5": lambda: nn.Conv2d(16, 16, 5, groups=16),
    "sum": lambda: Sum(nn.Conv2d(16, 16, 3, padding=1)),
    "linear": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(16 * 64, 16), nn.Unflatten(1, (16, 1, 1))
    ),
}


def at_the_top(middle: nn.Module) -> nn.Module:
    """A network whose every activation and weight is at the top of its range."""
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        middle,
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    ).eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.fill_(0.1)
        net[0].weight.zero_()
        net[0].bias.fill_(1.0)
    return net


@pytest.mark.parametrize("slower", [False, True])
@pytest.mark.parametrize("kind", MIDDLES)
def test_sums_of_the_largest_codes_are_not_cut_off(kind, slower, monkeypatch):
    """Where ONNX Runtime's fastest kernels would do that (without VNNI), others are taken; those
    are right on every processor.
    """
    if slower:
        monkeypatch.setattr(onnx_runtime, "cuts_sums_off", lambda: True)
    net = at_the_top(MIDDLES[kind]())
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    done = calibrate(quantize(net, 8, 8, symmetric=True, policy=POLICY), images)
    session = onnx_runtime.load(export_int8(done, (3, 8, 8)))
    for batch in (1, 4):
        assert onnx_runtime.difference(done, session, images[:batch]) < 0.01
    if slower:
        options = session.get_session_options()
        assert options.get_session_config_entry(onnx_runtime.EXACT_SUMS[0]) == "1"


def test_a_file_that_runs_otherwise_than_in_floating_point_is_refused(
    network, pictures, monkeypatch
):
    exported = export_int8(integer(network, pictures), SHAPE)
    simulate = onnx_runtime.simulation
    wrong = onnx.load_from_string(exported)
    steps = [one for one in wrong.graph.initializer if one.name.endswith("_bias_step")]
    assert len(steps) > 3
    for one in steps:
        one.CopyFrom(onnx.numpy_helper.from_array(3 * onnx.numpy_helper.to_array(one), one.name))
    other = wrong.SerializeToString()
    monkeypatch.setattr(onnx_runtime, "simulation", lambda given: simulate(other))
    with pytest.raises(ValueError, match="on this processor logits are off by ") as error:
        onnx_runtime.load(exported)
    assert "\n" not in str(error.value)


def test_networks_that_say_not_a_number_are_not_compared(network, pictures):
    result = integer(network, pictures)
    broken = cifar_resnet(8, 5, width=8)
    nn.init.constant_(broken.classifier.bias, torch.nan)
    with pytest.raises(ValueError, match="logits must be finite"):
        deploy(broken, result, pictures, rounds=1)


def test_what_integer_kernels_cannot_do(network, pictures):
    plain = calibrate(quantize(network, 8, 8), pictures)
    with pytest.raises(ValueError, match="must be quantised with symmetric=True"):
        export_int8(plain, SHAPE)
    with pytest.raises(ValueError, match=r"weights must have at most 8 bits; .* has 12"):
        export_int8(quantize(network, 12, 8, symmetric=True), SHAPE)
    with pytest.raises(ValueError, match="activations must be quantised to at most 8 bits; got 12"):
        export_int8(quantize(network, 8, 12, symmetric=True, policy=POLICY), SHAPE)
    with pytest.raises(ValueError, match="calibrate or reconstruct the network before"):
        export_int8(quantize(network, 8, 8, symmetric=True), SHAPE)
