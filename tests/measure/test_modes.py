"""Modes of networks that are looked at."""

import pytest
import torch
from torch import nn

from smallnets.measure import evaluating


def test_every_module_gets_its_own_mode_back_even_after_an_error():
    network = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(3), nn.ReLU())).train()
    network[1].eval()
    before = [module.training for module in network.modules()]

    def fail():
        with evaluating(network):
            assert not any(module.training for module in network.modules())
            network[1][0].train()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [module.training for module in network.modules()] == before


def test_modes_changed_inside_come_back_too():
    network = nn.Sequential(nn.BatchNorm1d(3)).eval()
    with evaluating(network), torch.no_grad():
        network[0].train()
    assert not network[0].training
