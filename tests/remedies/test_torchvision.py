"""torchvision's networks with a loader that is not ours."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import mobilenet_v3_small
from torchvision.models.resnet import BasicBlock, ResNet

from smallnets import measure
from smallnets.deploy import onnx_runtime, packed
from smallnets.remedies import Budget, try_remedies
from smallnets.training import seeded

# Untrained networks: their answers are hardly larger than the rounding.
BITS = {"int8": True, "int8_weights": True, "int8_tolerance": 0.5}
PARTS = {"channels": (0.25,), "criteria": ("Taylor FO",), "low_rank": (0.5,)}


def resnet10(num_classes):
    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes)


@pytest.mark.parametrize(
    ("make", "fields"),
    [
        (resnet10, BITS | {"channels": (0.5,), "criteria": ("magnitude L1",)}),
        (mobilenet_v3_small, BITS | {"sparse": (0.8,)} | PARTS),
    ],
    ids=["resnet10", "mobilenet_v3_small"],
)
def test_a_network_of_torchvision_goes_through(make, fields, plan, tmp_path):
    inputs = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(inputs, torch.arange(24) % 5), 8)
    with seeded(0):
        network = make(num_classes=5)
    found = try_remedies(
        network, loader, Budget(bytes=5e7, macs=5e7), plan=plan(**fields), folder=tmp_path, rounds=2
    )
    assert not found.refused
    assert network.training
    logits = measure.predict(network, inputs)
    original, weights = found["original"], found["int8 weights"]
    run = onnx_runtime.predict(onnx_runtime.load(original.path.read_bytes()), inputs)
    assert onnx_runtime.largest_difference(run, logits) <= original.tolerance == 1e-4
    assert original.macs == measure.macs(network, (3, 32, 32))
    assert len(found.rows) == (4 if make is resnet10 else 7)
    assert weights.agreement > 0.7
    assert weights.bytes < 0.35 * original.bytes
    assert found["int8"].difference <= found["int8"].tolerance
    for row in found.rows:
        assert row.bytes == row.path.stat().st_size
        smaller = row.name.startswith(("channels", "SVD", "Tucker-2"))
        assert (row.macs < original.macs) == smaller, row.name
        if row.name == "sparse 0.8":
            assert len(packed.unpack(row.path)) > 2 * row.bytes
    assert all(set(row.latency) == {1, 32} for row in found.rows)
    assert found.best is not None
    assert found.best.bytes <= 5e7
