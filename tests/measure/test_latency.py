import subprocess
import sys

import pytest
import torch
from torch import nn

from smallnets.measure import latency
from smallnets.models import convnet


class Recorder(nn.Module):
    """Remembers what it was called with."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        self.seen = (tuple(x.shape), x.dtype, self.training, torch.get_num_threads())
        return x * self.scale


def test_quartiles_are_in_order_and_the_network_is_left_as_it_was():
    network = convnet(2, 3).train()
    result = latency(network, (3, 8, 8), seconds=0.02)
    assert 0 < result.low <= result.median <= result.high < 1
    assert result.threads == 1
    assert result.batch == 1
    assert network.training


def test_what_is_timed():
    model, threads = Recorder(), torch.get_num_threads()
    result = latency(model, (4, 5), threads=2, batch=3, warm_up=7, seconds=0.01)
    assert model.seen == ((3, 4, 5), torch.float64, False, 2)
    assert torch.get_num_threads() == threads
    assert (result.threads, result.batch, result.warm_up) == (2, 3, 7)
    assert model.calls >= result.runs + result.warm_up > 7
    assert result.median * result.runs <= 1, "seconds per pass, not per block"


def test_more_work_takes_longer():
    small, large = (latency(nn.Linear(n, n), (n,), batch=8, seconds=0.02) for n in (16, 2048))
    assert large.median > 3 * small.median


@pytest.mark.parametrize("name", ["threads", "warm_up"])
def test_counts_are_at_least_one(name):
    with pytest.raises(ValueError, match=f"^{name} must be at least 1; got 0$"):
        latency(nn.Linear(2, 2), (2,), **{name: 0})


def test_errors():
    with pytest.raises(ValueError, match=r"^seconds must be greater than 0; got 0$"):
        latency(nn.Linear(2, 2), (2,), seconds=0)
    with pytest.raises(ValueError, match=r"input_shape must be at least 1; got 0$"):
        latency(nn.Linear(2, 2), (2,), batch=0)


def test_importing_the_room_writes_nothing():
    """What a library prints on import ends up in the stored outputs of chapters."""
    command = [sys.executable, "-c", "import smallnets.measure"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout + result.stderr == ""
