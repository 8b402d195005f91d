"""Networks that take feature maps apart are traced part by part, and in no time."""

import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smallnets.prune.importance import kept_units
from smallnets.prune.importance.groups import channel_groups
from smallnets.prune.importance.scores import scores
from smallnets.prune.importance.surgery import costs, masked, remove
from smallnets.prune.importance.tracing import dependency_graphs

IMAGES = torch.randn(2, 3, 8, 8)


class Shuffled(nn.Module):
    """Blocks of channels change places, as in ShuffleNet, behind any part."""

    def __init__(self, *parts: nn.Module, channels: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.parts = nn.ModuleList(parts)
        self.last = nn.Linear(channels, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for part in self.parts:
            x = part(x)
            x = x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
        return self.last(x.mean((2, 3)))


class Shortcut(nn.Module):
    """Its inner convolution writes channels that the input is added to."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.wide, self.narrow = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.narrow(F.relu(self.wide(self.conv(x) + x)))


def inner() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.Conv2d(16, 8, 1),
    )  # fmt: skip


def members(network):
    groups = channel_groups(network, IMAGES)
    return [{f"{m.module} {m.side}" for m in group.members} for group in groups.values()]


def test_what_lies_between_shuffles_can_be_removed():
    torch.manual_seed(0)
    network = Shuffled(inner(), inner()).eval()
    groups = channel_groups(network, IMAGES)
    assert [group.size for group in groups.values()] == [16, 16]
    masks = {name: (torch.arange(16) % 3 > 0).float() for name in groups}
    smaller = remove(network, groups, masks, IMAGES)
    with masked(network, groups, masks):
        assert torch.allclose(network(IMAGES), smaller(IMAGES), atol=1e-6)
    assert smaller.parts[1][3].groups == 10
    prices = costs(network, groups, IMAGES)
    assert prices.parameters(kept_units(masks)) == sum(p.numel() for p in smaller.parameters())
    labels = torch.tensor([0, 1])
    found = scores(network, groups, [(IMAGES, labels)], ("Taylor FO", "oracle"))
    assert all(found["oracle"][name].shape == (16,) for name in groups)


def test_channels_of_a_parts_input_and_output_stay():
    (group,) = members(Shuffled(Shortcut()))
    assert group == {"parts.0.wide out", "parts.0.narrow in"}
    depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1))
    with pytest.raises(ValueError, match="none was found in Shuffled"):
        members(Shuffled(depthwise))


def test_a_network_that_only_flattens_is_traced_as_a_whole():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5))
    assert len(dependency_graphs(network, IMAGES)) == 1


class Windows(nn.Module):
    """Attention within windows, as in Swin: tracing it as a whole takes for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mix, self.back = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.mlp = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = len(x)
        blocks = self.norm(x).view(n, 4, 2, 4, 2, 8).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, 8)
        query, key, value = self.mix(blocks).chunk(3, -1)
        blocks = F.scaled_dot_product_attention(query, key, value)
        blocks = blocks.view(n, 4, 4, 2, 2, 8).permute(0, 1, 3, 2, 4, 5).reshape(n, 8, 8, 8)
        x = x + self.back(blocks)
        return x + self.mlp(x)


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.blocks, self.last = nn.Sequential(*(Windows() for _ in range(6))), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.blocks(self.stem(x).permute(0, 2, 3, 1)).mean((1, 2)))


def test_windows_of_attention_are_left_alone_at_once():
    network = Transformer().train()
    network.stem.requires_grad_(False)
    start = time.perf_counter()
    groups = channel_groups(network, IMAGES)
    assert time.perf_counter() - start < 5
    assert list(groups) == [f"blocks.{i}.mlp.1" for i in range(6)]
    assert network.training
    assert not network.stem.weight.requires_grad
    assert network.last.weight.requires_grad
