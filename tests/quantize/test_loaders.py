"""Quantisation with networks and batches of one's own."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from smallnets.quantize import genie, layered
from smallnets.surgery import recalibrate
from smallnets.training import TrainSettings, seeded

PLAIN = TrainSettings(epochs=2, lr=0.02, device="cpu", precision="32-true")
Y = torch.arange(40) % 3
X = torch.randn(40, 2, 16, generator=torch.Generator().manual_seed(0)) + Y.view(-1, 1, 1)
LOADER = DataLoader(TensorDataset(X, Y), 16)


@pytest.fixture
def network():
    with seeded(0):
        return nn.Sequential(
            nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 6, 3), nn.ReLU(),
            nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 3),
        ).eval()  # fmt: skip


def test_all_widths_are_trained_on_a_loader_and_steps_start_from_its_first_batch(network):
    many = layered.to_layered(network, (8, 4), keep_float=())
    expected = layered.to_layered(network, (8, 4), keep_float=()).start(X[:16])
    started = many.start(LOADER.dataset.tensors[0][:16])
    for (_, one), (_, other) in zip(started.layers(), expected.layers(), strict=True):
        assert torch.equal(one.inputs.steps["8"], other.inputs.steps["8"])
    fresh = layered.to_layered(network, (8, 4), keep_float=())
    history = layered.train_once(fresh, LOADER, PLAIN, seed=0)
    assert set(history[0]) == {"loss", "loss 8", "loss 4", "weight 8", "weight 4"}
    with pytest.raises(ValueError, match="labels must be between 0 and 2; got 1 to 3"):
        layered.train_once(fresh, [(X, Y + 1)], PLAIN, seed=0)
    layered.recalibrate_width(fresh, LOADER, 4)


def test_statistics_come_from_a_loader_as_from_its_inputs(network):
    one, other = (recalibrate(network, data).state_dict() for data in (LOADER, X.split(16)))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert int(one["1.num_batches_tracked"]) == 3
    with pytest.raises(ValueError, match="at least one batch; got none"):
        recalibrate(network, [])


def test_a_network_is_calibrated_and_reconstructed_from_a_loader(network):
    by_loader, by_tensor = (genie.quantize(network, 4, 8, mode="nearest") for _ in range(2))
    genie.calibrate(by_loader, LOADER)
    genie.calibrate(by_tensor, X[:16])
    assert torch.equal(by_loader(X), by_tensor(X))
    few = genie.ReconstructionSettings(iterations=3, batch_size=8, init_images=16)
    by_loader, by_tensor = genie.quantize(network, 4, 8), genie.quantize(network, 4, 8)
    genie.reconstruct(by_loader, LOADER, few, count=24)
    genie.reconstruct(by_tensor, X[:24], few)
    assert torch.equal(by_loader(X), by_tensor(X))
    with pytest.raises(ValueError, match=r"at least one batch of 8 images; got 4"):
        genie.reconstruct(by_loader, LOADER, few, count=4)
