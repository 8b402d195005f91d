"""Channels by a criterion, slimming, group lasso, gates: what leaves the answers as they are."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from smallnets.measure import macs, parameters
from smallnets.prune.importance import channel_groups, masked, scores, weight_scores
from smallnets.prune.structured import (
    L0,
    GatedChannels,
    Grouped,
    GroupLasso,
    HardConcrete,
    ScaleDecay,
    Slimming,
    StructureScale,
    channel_masks,
    dead_zone,
    expected_share,
    fit_lasso,
    group_lasso,
    group_norms,
    hard_concrete,
    hard_concrete_mean,
    hard_concrete_open,
    norm_scales,
    prox_group_lasso,
    prune_channels,
    scaled,
    slimmed,
    unit_norms,
    without_zero_units,
)
from smallnets.training import Batch, Classification, fit


def shaken(network):
    """Norms with values that a removal would get wrong if it forgot them."""
    noise = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=noise)
            module.bias.data.uniform_(-0.5, 0.5, generator=noise)
            module.running_mean.uniform_(-0.3, 0.3, generator=noise)
    return network


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("criterion", ["magnitude L1", "magnitude", "BN scale", "Taylor FO"])
def test_what_is_left_says_what_the_masked_network_says(
    network, example, batches, criterion, scope
):
    shaken(network).eval()
    before = copy.deepcopy(network.state_dict())
    smaller = prune_channels(network, example, 0.4, criterion, scope, batches=batches[:1])
    groups = channel_groups(network, example)
    found = (
        scores(network, groups, batches[:1], (criterion,))[criterion]
        if criterion == "Taylor FO"
        else weight_scores(network, groups, criterion)
    )
    if scope == "global":
        found = {name: score / len(groups[name].sites) for name, score in found.items()}
    with masked(network, groups, channel_masks(found, 0.4, scope)), torch.no_grad():
        expected = network(example)
    torch.testing.assert_close(smaller(example), expected)
    assert parameters(smaller) < parameters(network)
    assert macs(smaller, (3, 8, 8)) < macs(network, (3, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    if scope == "layer":
        assert (smaller.stem.out_channels, smaller.conv1.out_channels) == (4, 3)


def test_ignored_layers_keep_their_channels(network, example):
    smaller = prune_channels(network, example, 0.4, ignored=["stem"])
    assert (smaller.stem.out_channels, smaller.conv1.out_channels) == (6, 3)


def test_slimming_adds_the_sizes_of_the_scales(network, example, batches):
    grouped = Grouped.of(network, example)
    assert norm_scales(grouped).keys() == {"norm", "norm1", "norm2"}
    batch = Batch(*batches[0])
    plain = Classification()(grouped, batch)["loss"]
    terms = Slimming(0.01)(grouped, batch)
    total = sum(scale.abs().sum() for scale in norm_scales(grouped).values())
    torch.testing.assert_close(terms["loss"], plain + 0.01 * total)


def test_slimming_shrinks_and_one_threshold_takes_the_smallest(network, example, batches, settings):
    grouped = Grouped.of(network, example)
    before = {name: scale.detach().abs().sum() for name, scale in norm_scales(grouped).items()}
    history = fit(grouped, batches, settings, seed=0, objective=Slimming(0.05))
    assert history[-1]["scales"] < sum(before.values())
    smaller = slimmed(grouped, 0.5, example)
    found = weight_scores(grouped.network, grouped.groups, "BN scale")
    masks = channel_masks(found, 0.5, "global")
    with masked(grouped.network, grouped.groups, masks), torch.no_grad():
        torch.testing.assert_close(smaller(example), grouped.network(example))
    assert smaller.stem.out_channels + smaller.conv1.out_channels == 11 - round(11 * 0.5)


@given(st.integers(0, 99), st.sampled_from([0, 1]), st.floats(0, 3))
def test_the_proximal_step_is_the_minimum_that_it_is_said_to_be(seed, dim, threshold):
    """argmin over v of |v - w|^2 / 2 + t sum ||v_g||: no small move makes it less."""
    noise = torch.Generator().manual_seed(seed)
    w = torch.randn(4, 3, 2, 2, generator=noise, dtype=torch.float64)
    v = prox_group_lasso(w, threshold, dim)

    def goal(v):
        return (v - w).square().sum() / 2 + threshold * group_lasso(v, dim)

    for _ in range(20):
        move = torch.randn(w.shape, generator=noise, dtype=torch.float64)
        assert goal(v) <= goal(v + 1e-3 * move)
    zero = group_norms(w, dim) <= threshold
    assert torch.equal(group_norms(v, dim) == 0, zero)


def test_the_limits_of_the_proximal_step():
    w = torch.randn(4, 3)
    assert torch.equal(prox_group_lasso(w, 0.0), w)
    assert (prox_group_lasso(w, 1e6) == 0).all()
    w[1] = 0
    assert torch.equal(prox_group_lasso(w, 0.0), w)
    w.requires_grad_()
    (slope,) = torch.autograd.grad(group_lasso(w), w)
    assert slope.isfinite().all()
    assert (slope[1] == 0).all()


def test_norms_of_units_hold_all_that_writes_them(network, example):
    shaken(network)
    groups = channel_groups(network, example)
    norms = unit_norms(network, groups["conv1"])
    by_hand = (
        network.conv1.weight.square().sum((1, 2, 3))
        + network.conv1.bias.square()
        + network.norm1.weight.square()
        + network.norm1.bias.square()
    )
    torch.testing.assert_close(norms, by_hand.sqrt())
    (stream,) = (group for name, group in groups.items() if name != "conv1")
    assert len(unit_norms(network, stream)) == 6


@pytest.mark.parametrize("by_size", [True, False])
def test_group_lasso_makes_zeros_whose_removal_changes_nothing(
    network, example, batches, settings, by_size
):
    grouped = Grouped.of(network, example)
    lasso = GroupLasso(0.3 if by_size else 2.0, by_size=by_size)
    history = fit_lasso(grouped, batches, settings, seed=0, lasso=lasso)
    norms = {name: unit_norms(network, group) for name, group in grouped.groups.items()}
    zero = sum(int((norm == 0).sum()) for norm in norms.values())
    assert 0 < zero < 11
    assert history[-1]["zero"] > 0
    smaller = without_zero_units(grouped, example)
    torch.testing.assert_close(smaller(example), network(example))
    assert parameters(smaller) < parameters(network)


def test_without_the_proximal_step_nothing_is_zero(network, example, batches, settings):
    grouped, other = (Grouped.of(copy.deepcopy(network), example) for _ in range(2))
    lasso = GroupLasso(0.3, proximal=False)
    history = fit_lasso(grouped, batches, settings, seed=0, lasso=lasso)
    assert history == fit(other, batches, settings, seed=0, objective=lasso)
    network = grouped.network
    norms = [unit_norms(network, group) for group in grouped.groups.values()]
    assert all((norm > 0).all() for norm in norms)


def test_a_proximal_step_follows_every_step_of_its_own_optimiser_only(
    network, example, batches, settings
):
    grouped, other = Grouped.of(network, example), nn.Linear(2, 2)
    rates = []

    class Counted(GroupLasso):
        def after_step(self, grouped, rate):
            rates.append(rate)
            torch.optim.SGD(other.parameters(), lr=1.0).step()  # no step of this network
            super().after_step(grouped, rate)

    constant = replace(settings, schedule="constant", lr=0.05)
    fit_lasso(grouped, batches, constant, seed=0, lasso=Counted(0.01))
    assert rates == [0.05] * 12
    torch.optim.SGD(grouped.parameters(), lr=1.0).step()
    assert len(rates) == 12  # nothing is left behind


def test_a_transposed_convolution_is_pruned_by_its_outputs(example):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.ConvTranspose2d(3, 5, 2, stride=2), nn.ReLU(), nn.Conv2d(5, 2, 3), nn.Flatten()
    )
    groups = channel_groups(network, example)
    norms = unit_norms(network, groups["0"])
    weight, bias = network[0].weight, network[0].bias
    torch.testing.assert_close(norms, (weight.square().sum((0, 2, 3)) + bias.square()).sqrt())
    gates = GatedChannels.of(network, example, StructureScale)
    with torch.no_grad():
        gates.gates[0].alpha.copy_(torch.tensor([0.0, 2.0, -1.0, 0.05, 0.5]))
    smaller = gates.plain(example)
    torch.testing.assert_close(smaller(example), gates(example))
    assert smaller[0].out_channels == 3
    assert prune_channels(network, example, 0.4, "random")[0].out_channels == 3
    kept = weight.square().sum((0, 2, 3)).topk(3).indices.sort().values
    assert torch.equal(
        prune_channels(network, example, 0.4, "magnitude")[0].weight, weight[:, kept]
    )


def test_scaled_weights_by_hand():
    w, scale = torch.randn(4, 3, 2), torch.tensor([1.0, 0.0, 2.0])
    assert torch.equal(scaled(w, scale, 1), torch.einsum("oik,i->oik", w, scale))


@pytest.mark.parametrize("kind", [HardConcrete, StructureScale])
def test_what_gates_leave_says_the_same(network, example, kind):
    shaken(network)
    gates = GatedChannels.of(network, example, kind)
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in gates.gates.parameters():
            scale = 4 if kind is HardConcrete else 0.3
            parameter.copy_(scale * torch.randn(parameter.shape, generator=noise))
    gates.train()
    smaller = gates.plain(example)
    assert all(gate.training for gate in gates.gates)
    masks = gates.masks()
    assert any((mask == 0).any() for mask in masks.values())
    torch.testing.assert_close(smaller.eval()(example), gates.eval()(example))
    for name, mask in masks.items():
        assert smaller.get_submodule(name).out_channels == int(mask.sum())
    assert not any(isinstance(module, kind) for module in smaller.modules())


def test_depthwise_layers_go_with_their_groups(example):
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.Conv2d(6, 6, 3, groups=6, bias=False), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.Conv2d(6, 2, 1), nn.Flatten()),
    )
    grouped = Grouped.of(shaken(network).eval(), example)
    (group,) = grouped.groups.values()
    for layer in network[:5]:
        for parameter in layer.parameters():
            parameter.data[2:4] = 0
    assert torch.equal(unit_norms(network, group) == 0, torch.tensor([0, 0, 1, 1, 0, 0]) > 0)
    smaller = without_zero_units(grouped, example)
    assert smaller[3].weight.shape == (4, 1, 3, 3)
    torch.testing.assert_close(smaller(example), network(example))
    gates = GatedChannels.of(network, example, StructureScale).eval()
    with torch.no_grad():
        gates.gates[0].alpha.copy_(torch.tensor([1.5, -0.5, 1.0, 1.0, 0.0, 0.7]))
    torch.testing.assert_close(gates.plain(example)(example), gates(example))


@pytest.mark.parametrize("kind", [HardConcrete, StructureScale])
def test_a_group_whose_gates_are_all_closed_keeps_a_unit_that_says_nothing(network, example, kind):
    gates = GatedChannels.of(network, example, kind).eval()
    with torch.no_grad():
        for parameter in gates.gates.parameters():
            parameter.fill_(-20 if kind is HardConcrete else 0.01)
    smaller = gates.plain(example)
    assert (smaller.stem.out_channels, smaller.conv1.out_channels) == (1, 1)
    torch.testing.assert_close(smaller(example), gates(example))


def test_hard_concrete_gates_open_as_often_as_they_should():
    log_alpha = torch.linspace(-4, 4, 9, dtype=torch.float64)
    u = torch.rand(100_000, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn = hard_concrete(log_alpha, u)
    assert drawn.min() == 0
    assert drawn.max() == 1
    open_ = hard_concrete_open(log_alpha)
    error = (open_ * (1 - open_) / len(u)).sqrt()
    assert (((drawn > 0).double().mean(0) - open_).abs() < 5 * error).all()
    assert (hard_concrete_mean(log_alpha).diff() >= 0).all()
    gate = HardConcrete(7, open_share=0.8)
    assert gate.expected_l0().item() == pytest.approx(5.6, abs=1e-5)


def test_hard_concrete_gates_are_drawn_in_training_only():
    gate = HardConcrete(50, open_share=0.5)
    assert not torch.equal(gate.train()(), gate())
    assert torch.equal(gate.eval()(), gate())
    assert torch.equal(gate(), hard_concrete_mean(gate.log_alpha))


def test_l0_closes_gates(network, example, batches, settings):
    gates = GatedChannels.of(network, example, HardConcrete)
    weights = {"conv2": 27 + 45, "conv1": 54}  # of the filters that write one unit
    opens = {n: g.expected_l0() for n, g in zip(gates.groups, gates.gates, strict=True)}
    by_hand = sum(weights[name] * opens[name] for name in opens) / (72 * 6 + 54 * 5)
    torch.testing.assert_close(expected_share(gates), by_hand)
    fast = replace(settings, lr=0.3)
    history = fit(gates, batches, fast, seed=0, objective=L0(strength=20.0))
    assert history[-1]["open"] < 0.9
    smaller = gates.plain(example)
    torch.testing.assert_close(smaller(example), gates(example))


def test_the_dead_zone_lets_the_gradient_pass():
    alpha = torch.tensor([0.05, -0.05, 0.1, -0.2, 0.0], requires_grad=True)
    value = dead_zone(alpha, 0.1)
    assert torch.equal(value.detach(), torch.tensor([0.0, 0.0, 0.1, -0.2, 0.0]))
    (slope,) = torch.autograd.grad(value.sum(), alpha)
    assert slope.tolist() == [1] * 5
    assert torch.equal(dead_zone(alpha, 0.0), alpha)


@pytest.mark.parametrize("kind", ["L1", "L2"])
def test_decay_closes_structures(network, example, batches, settings, kind):
    gates = GatedChannels.of(network, example, StructureScale, eps=0.3)
    fast = replace(settings, lr=0.3)
    history = fit(gates, batches, fast, seed=0, objective=ScaleDecay(0.5, kind))
    assert history[0]["open"] > history[-1]["open"]
    smaller = gates.plain(example)
    torch.testing.assert_close(smaller(example), gates(example))


def test_a_kept_training_is_found_again(network, example, batches, settings, tmp_path):
    other = copy.deepcopy(network)
    lasso = GroupLasso(0.1)
    grouped, again = Grouped.of(network, example), Grouped.of(other, example)
    first = fit_lasso(grouped, batches, settings, seed=0, lasso=lasso, cache_dir=tmp_path)
    assert fit_lasso(again, batches, settings, seed=0, lasso=lasso, cache_dir=tmp_path) == first
    for name, value in network.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


W = torch.randn(3, 2)


def plain_norms(network):
    network.norm1 = nn.BatchNorm2d(5, affine=False)
    return network


REFUSED = {
    "amount": (lambda n, x: prune_channels(n, x, 1.2), "amount must be between 0 and 1; got 1.2"),
    "all": (lambda n, x: prune_channels(n, x, 1.0), "amount must be at most .* got 1.0"),
    "criterion": (lambda n, x: prune_channels(n, x, 0.5, "norm"), "criterion must be one of"),
    "scope": (lambda n, x: prune_channels(n, x, 0.5, scope="net"), "scope must be one of"),
    "no batches": (
        lambda n, x: prune_channels(n, x, 0.5, "Taylor FO"),
        r"criterion 'Taylor FO' needs batches \(inputs, labels\); got none",
    ),
    "ignored": (lambda n, x: prune_channels(n, x, 0.5, ignored=["body"]), "ignored module must be"),
    "no channels": (lambda n, x: prune_channels(nn.Flatten(), x, 0.5), "none was found in Flatten"),
    "no groups": (lambda n, x: Grouped(n, {}), "groups must be at least one; got none"),
    "not grouped": (lambda n, x: Slimming()(n, None), "of the class Grouped; got Residual"),
    "strength": (lambda n, x: Slimming(-1.0), "strength must be at least 0; got -1.0"),
    "nan": (lambda n, x: L0(float("nan")), "strength must be at least 0; got nan"),
    "slim without norms": (
        lambda n, x: norm_scales(
            Grouped.of(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)), x)
        ),
        "slimming needs groups with BatchNorm; '0' has none",
    ),
    "slim without scales": (
        lambda n, x: norm_scales(Grouped.of(plain_norms(n), x)),
        "norm 'norm1' must have a scale; it has affine=False",
    ),
    "one dimension": (
        lambda n, x: group_lasso(torch.ones(3)), r"at least 2 dimensions; got shape \(3,\)"
    ),
    "dim": (lambda n, x: group_lasso(W, 2), "dim must be between 0 and 1; got 2"),
    "threshold": (lambda n, x: prox_group_lasso(W, -1.0), "threshold must be at least 0"),
    "infinite": (lambda n, x: prox_group_lasso(W, float("inf")), "threshold must be finite"),
    "lasso": (lambda n, x: GroupLasso(True), "strength must be a number; got True"),
    "lasso's loop": (
        lambda n, x: GroupLasso()(Grouped.of(n, x), None), "must be trained by fit_lasso"
    ),
    "scales": (lambda n, x: scaled(W, torch.ones(2)), r"scale must have shape \(3,\).*got \(2,\)"),
    "gates": (
        lambda n, x: GatedChannels(n, channel_groups(n, x), [HardConcrete(6)]), "got 1 for 2 groups"
    ),
    "no gates": (lambda n, x: GatedChannels(n, {}, []), "got 0 for 0 groups"),
    "units": (lambda n, x: HardConcrete(0), "units must be at least 1; got 0"),
    "share": (lambda n, x: HardConcrete(3, 1.0), "open_share must be between 0.01 and 0.99"),
    "eps": (lambda n, x: StructureScale(3, 1.0), "eps must be below 1"),
    "negative eps": (lambda n, x: dead_zone(torch.ones(2), -0.1), "eps must be at least 0"),
    "decay": (lambda n, x: ScaleDecay(kind="L3"), "kind must be one of L1, L2; got 'L3'"),
    "l0 of scales": (
        lambda n, x: expected_share(GatedChannels.of(n, x, StructureScale)),
        "must be HardConcrete; got StructureScale",
    ),
    "decay of l0": (
        lambda n, x: ScaleDecay()(GatedChannels.of(n, x, HardConcrete), None),
        "needs gates of StructureScale; got HardConcrete",
    ),
    "fold": (
        lambda n, x: GatedChannels.of(plain_norms(n), x, StructureScale).plain(x),
        "the weight of layer 'norm1' must be a plain parameter",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_inputs(network, example, case):
    function, message = REFUSED[case]
    with pytest.raises(ValueError, match=rf"^[^\n]*{message}[^\n]*$"):
        function(network, example)
