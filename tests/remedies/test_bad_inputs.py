"""What is refused, each in one line."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from smallnets.remedies import Budget, try_remedies


class Two(nn.Module):
    def forward(self, x, y):
        return x + y


class Listed(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return [self.inner(x)]


class OneAtATime(Listed):
    def forward(self, x):
        return self.inner(x).reshape(1, 4) if len(x) == 1 else self.inner(x)


class Unknown(Listed):
    def forward(self, x):
        return self.inner(x) + torch.linalg.svdvals(x).sum((1, 2), keepdim=True)[:, 0]


class Maps(nn.Module):
    def forward(self, x):
        return x * 2


@pytest.fixture
def refused(small, test, plan, tmp_path):
    """refused(line, ...) -> whether one line says so."""

    def call(line, network=small, loader=test, budget=None, **options):
        options = {"plan": plan(), "folder": tmp_path / "out", "batches": ()} | options
        with pytest.raises(ValueError, match=line) as caught:
            try_remedies(network, loader, budget, **options)
        assert "\n" not in str(caught.value)

    return call


def test_networks(refused, small):
    refused("network must be an nn.Module; got int", 3)
    refused("the network does not take images of shape .*missing 1 required", Two())
    refused(r"must say one tensor \(images, classes\); got list: wrap it", Listed(small))
    refused("must have float32 weights; got torch.float16: call float", small.half())
    refused(r"must return logits \(n, classes\); got the shape", Maps())


def test_networks_that_cannot_be_exported(refused, small):
    refused("cannot be exported: .*linalg_svd", Unknown(small))
    refused("must take batches of any size", OneAtATime(small))


def test_networks_that_are_not_finite(refused, small):
    with torch.no_grad():
        small.last.bias[0] = torch.nan
    refused("the network must say finite numbers; got", small)


def pairs(inputs, labels):
    return DataLoader(TensorDataset(inputs, labels), 4)


def test_loaders(refused):
    x, y = torch.randn(12, 3, 8, 8), torch.arange(12) % 4
    refused("data must give at least one batch; got none", loader=[])
    refused(
        "data must give at least one batch; got none",
        loader=DataLoader(TensorDataset(x), 16, drop_last=True),
    )
    refused("loader must be a DataLoader, a list of batches, .*; got Tensor", loader=x)
    refused("train must be a DataLoader, a list of batches, .*; got int", train=3)
    refused(
        "loader must start anew whenever it is read; got a generator", loader=(p for p in [(x, y)])
    )
    refused("train must start anew whenever it is read; got a list_iterator", train=iter([(x, y)]))
    refused("train must give pairs", train=[x, x])
    refused("data must give at least one batch; got none", train=[])
    refused("must give at least 2 batches; got 1", loader=[(x, y)])
    refused("images must hold finite numbers", loader=pairs(x * torch.nan, y))
    spoilt = x.clone()
    spoilt[-1] = torch.inf
    refused("images must hold finite numbers", loader=pairs(spoilt, y))
    refused("labels must be between 0 and 3; got 7", loader=pairs(x, y + 4))
    late = y.clone()
    late[-1] = 9
    refused("labels must be between 0 and 3; got 9", loader=pairs(x, late))
    refused("labels must be at least 0; got -1", loader=pairs(x, y - 1))
    refused("labels must be whole numbers", loader=pairs(x, y.float()))
    refused("got uint8: normalise them", loader=pairs(x.byte(), y))
    refused("calibration examples must be at least 2", loader=[(x[:1], y[:1])] * 2)
    refused("does not take images of shape", loader=pairs(x[:, :2], y))
    refused("of one shape; got", train=pairs(x[:, :, :4], y))


def test_numbers(refused, tmp_path):
    refused("budget must be a Budget; got float", budget=1e6)
    refused("plan must be a Plan; got dict", plan={})
    refused("batches must be a list of numbers; got 8", batches=8)
    refused("batches must be a list of numbers; got <list_iterator", batches=iter([1]))
    refused("every one of batches must be at least 1; got 0", batches=(0,))
    refused("threads must be a whole number of at least 1; got True", threads=True)
    refused("rounds must be at least 1; got 0", rounds=0)
    refused("batches must hold 1 for a budget of milliseconds", budget=Budget(milliseconds=1))
    refused("folder must be a path; got int", folder=3)
    (tmp_path / "file").touch()
    refused("cannot be made", folder=tmp_path / "file")


def test_odd_but_good_inputs(small, plan, tmp_path):
    small.requires_grad_(False)
    small.last.bias.requires_grad_(True)
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(8, 3, 8, 8, generator=draws).to(memory_format=torch.channels_last)
    loader = [(x.double().requires_grad_(), torch.arange(8) % 4)] * 2
    asked = plan(low_rank=(0.5,), int8=True)
    found = [
        try_remedies(small, loader, train=loader, plan=asked, folder=tmp_path / n, batches=())
        for n in "ab"
    ]
    assert not found[0].refused
    assert [row.requires_grad for row in small.parameters()] == [False] * 8 + [True]
    values = [[(row.accuracy, row.bytes) for row in one.rows] for one in found]
    assert values[0] == values[1]
