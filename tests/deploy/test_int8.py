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


@pytest.mark.parametrize("slower", [False, True])
def test_sums_of_the_largest_codes_are_not_cut_off(slower, monkeypatch):
    """Where ONNX Runtime's fastest kernels would do that (without VNNI), others are taken; those
    are right on every processor.
    """
    if slower:
        monkeypatch.setattr(onnx_runtime, "cuts_sums_off", lambda: True)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).eval()
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.fill_(1.0)
        net[2].weight.fill_(0.1)
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    done = calibrate(quantize(net, 8, 8, symmetric=True, policy=POLICY), images)
    session = onnx_runtime.load(export_int8(done, (3, 8, 8)))
    assert onnx_runtime.difference(done, session, images) < 0.01
    if slower:
        options = session.get_session_options()
        assert options.get_session_config_entry(onnx_runtime.EXACT_SUMS[0]) == "1"


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
