"""Hand-designed blocks: their counts in closed form, their shapes, and networks of them."""

import pytest
import torch
from torch import nn

from smallnets import measure
from smallnets.structure import (
    BLOCKS,
    Fire,
    ShuffleUnit,
    assembled,
    block_cost,
    channel_shuffle,
    compound_scaling,
    make_block,
    small_by_design,
)

M = 64  # positions of the output


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [(8, 8), (8, 24), (24, 8)])
@pytest.mark.parametrize("block", BLOCKS)
def test_counts_are_those_of_the_counter(block, channels, stride):
    if block == "skip" and (channels[0] != channels[1] or stride > 1):
        with pytest.raises(ValueError, match=r"^skip needs as many channels as it gives"):
            make_block(block, *channels, stride)
        return
    made = make_block(block, *channels, stride)
    cost = block_cost(block, *channels, M, stride)
    weights = [one for one in made.parameters() if one.dim() > 1]
    assert sum(one.numel() for one in weights) == cost.weights
    assert measure.macs(made, (channels[0], 8 * stride, 8 * stride)) == cost.macs
    assert made(torch.rand(2, channels[0], 7, 5)).shape == (
        2, channels[1], -(-7 // stride), -(-5 // stride)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("block", "options", "macs", "weights"),
    [
        ("dense", {"kernel": 5}, M * 8 * 8 * 25, 8 * 8 * 25),
        ("grouped", {"groups": 4}, M * 8 * 8 * 9 // 4, 8 * 8 * 9 // 4),
        ("separable", {}, M * 8 * (9 + 8), 8 * (9 + 8)),
        ("inverted", {"expansion": 3}, M * (8 * 24 + 24 * 9 + 24 * 8), 24 * (8 + 9 + 8)),
        ("fire", {"squeeze": 2}, M * (8 * 2 + 2 * 4 + 9 * 2 * 4), 2 * (8 + 4 + 9 * 4)),
        ("shuffle", {}, M * (2 * 4**2 + 9 * 4), 2 * 4**2 + 9 * 4),
        ("excited", {"ratio": 4}, M * 8 * 8 * 9 + 2 * 8**2 // 4, 8 * 8 * 9 + 2 * 8**2 // 4),
    ],
)
def test_counts_of_the_table(block, options, macs, weights):
    """The formulas of the literature, written out for 8 channels."""
    assert block_cost(block, 8, 8, M, **options) == (weights, macs)
    made = make_block(block, 8, 8, **options)
    assert measure.macs(made, (8, 8, 8)) == macs


def test_a_shuffle_deals_channels_to_all_groups():
    x = torch.arange(6.0).view(1, 6, 1, 1)
    assert channel_shuffle(x, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert channel_shuffle(x, 3).flatten().tolist() == [0, 2, 4, 1, 3, 5]
    torch.testing.assert_close(channel_shuffle(channel_shuffle(x, 2), 3), x)


def test_half_of_the_channels_pass_a_shuffle_unit():
    unit, x = ShuffleUnit(6, 6).eval(), torch.randn(2, 6, 4, 4)
    out = unit(x)
    torch.testing.assert_close(out[:, ::2], x[:, :3])
    assert not torch.allclose(out[:, 1::2], x[:, 3:])


def test_fire_concatenates():
    unit, x = Fire(6, 9).eval(), torch.randn(2, 6, 4, 4)
    few = unit.squeeze(x)
    torch.testing.assert_close(unit(x)[:, :5], unit.one(few))
    torch.testing.assert_close(unit(x)[:, 5:], unit.three(few))


def test_inverted_residuals_end_linear_and_add():
    block, x = make_block("inverted", 4, 4).eval(), torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(block(x), x + block.path(x))
    assert block.path(x).min() < 0
    acts = [one for one in block.modules() if isinstance(one, nn.ReLU6)]
    assert len(acts) == 2
    assert not make_block("inverted", 4, 4, 2).adds


@pytest.mark.parametrize("block", [name for name in BLOCKS if name != "skip"])
def test_networks_of_one_block(block):
    network = small_by_design(block, 8, 5, 1, blocks=2)
    x = torch.randn(3, 1, 9, 9)
    assert network(x).shape == (3, 5)
    assert network.stage_names == ("stage1", "stage2", "stage3")
    assert network[:-1](x).shape == (3, 32)
    network(x).square().sum().backward()
    assert all(one.grad is not None for one in network.parameters())
    if block in ("grouped", "separable", "fire", "shuffle"):
        assert measure.macs(network, (1, 16, 16)) < measure.macs(
            small_by_design("dense", 8, 5, 1, blocks=2), (1, 16, 16)
        )


def test_networks_of_several_blocks():
    network = assembled(["dense", "fire", "shuffle"], 8, 5)
    assert isinstance(network.stage2[0], Fire)
    assert isinstance(network.stage3[0], ShuffleUnit)
    wide = small_by_design("inverted", 8, 5, expansion=6)
    thin = small_by_design("inverted", 8, 5, expansion=1)
    assert measure.parameters(wide) > 3 * measure.parameters(thin)


def test_compound_scaling():
    once = compound_scaling(1)
    assert once == (1.2, 1.1, 1.15)
    assert once.macs == pytest.approx(1.2 * 1.1**2 * 1.15**2)
    assert once.macs == pytest.approx(2, rel=0.05)
    assert compound_scaling(3).macs == pytest.approx(once.macs**3)
    assert compound_scaling(0).of(2, 16, 32) == (2, 16, 32)
    assert compound_scaling(1).of(5, 16, 32) == (6, 16, 37)
    assert compound_scaling(2).of(1, 16, 32, multiple=1) == (2, 19, 42)
    assert compound_scaling(-1).macs < 1
