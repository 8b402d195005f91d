"""Laws that scores obey, beyond the golden values."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from smallnets.models import cifar_resnet
from smallnets.prune.importance import criteria
from smallnets.prune.importance.coupled import coupled_scores
from smallnets.prune.importance.derivatives import (
    best_subset,
    gate_curvatures,
    gate_gradients,
    losses_without,
    parameter_gradients,
    per_batch,
)
from smallnets.prune.importance.gates import Site, gated, sites_everywhere
from smallnets.prune.importance.groups import channel_groups
from smallnets.prune.importance.scores import (
    CRITERIA,
    divide_by_sites,
    gate_free_gradients,
    per_unit,
    scores,
)

CRITERIA_OF_FILTERS = ("magnitude", "magnitude L1", "Taylor weights", "weights as a group")


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = cifar_resnet(8, 5, width=4).double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return network


@pytest.fixture
def batches():
    noise = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(6, 3, 8, 8, generator=noise, dtype=torch.float64),
            torch.randint(0, 5, (6,), generator=noise),
        )
        for _ in range(2)
    ]


def test_gates_are_not_needed_behind_norms(network, batches):
    groups = channel_groups(network, batches[0][0])
    sites = {name: group.sites for name, group in groups.items()}
    assert sorted(len(shared) for shared in sites.values()) == [1, 1, 1, 2, 2, 2]
    for mode in (False, True):
        network.train(mode)
        free = gate_free_gradients(network, groups, batches)
        slopes = per_batch(gate_gradients(network, sites, batches))
        for name in groups:
            assert torch.allclose(free[name], slopes[name], rtol=1e-9, atol=1e-12)


def test_a_gate_behind_a_linear_layer_is_the_contribution_of_its_weights(batches):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 7), nn.Tanh(), nn.Linear(7, 5)).double()
    slopes = per_batch(gate_gradients(network, {"g": (Site("1"),)}, batches))["g"]
    groups = channel_groups(network, batches[0][0])
    assert torch.allclose(gate_free_gradients(network, groups, batches)["1"], slopes)
    (one, _), layer = parameter_gradients(network, batches), network[1]
    alone = criteria.taylor_weight(layer.weight, one["1.weight"], "sum then square")
    assert not torch.allclose(alone, slopes[0].square(), rtol=1e-3)  # the bias counts
    both = (layer.weight * one["1.weight"]).sum(1) + layer.bias * one["1.bias"]
    assert torch.allclose(both.square(), slopes[0].square())


@pytest.fixture(params=[1, 2], ids=["one block", "two blocks"])
def transposed(request):
    """A network whose second layer is a transposed convolution of 8 channels to 12."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Tanh(), nn.ConvTranspose2d(8, 12, 2, 2, groups=request.param),
        nn.Tanh(), nn.Flatten(), nn.Linear(12 * 144, 5),
    ).double()  # fmt: skip


def test_filters_of_a_transposed_convolution_are_its_outputs(transposed, batches):
    images, layer = batches[0][0], transposed[2]
    groups = {"2": channel_groups(transposed, images)["2"]}
    slopes = per_batch(gate_gradients(transposed, {"2": groups["2"].sites}, batches))["2"]
    assert torch.allclose(gate_free_gradients(transposed, groups, batches)["2"], slopes)
    (step,) = parameter_gradients(transposed, batches[:1])
    blocks = range(layer.groups)
    inputs, outputs = 8 // layer.groups, 12 // layer.groups
    filters, gradients = (
        torch.stack([
            values[block * inputs : (block + 1) * inputs, place]
            for block in blocks for place in range(outputs)
        ])
        for values in (layer.weight.detach(), step["2.weight"])
    )  # fmt: skip
    found = scores(transposed, groups, batches[:1], CRITERIA_OF_FILTERS)
    (member,), size = groups["2"].producers, groups["2"].size
    assert (size, len(member.places)) == (12 // layer.groups, 12)
    by_hand = {
        "magnitude": filters.square().sum((1, 2, 3)),
        "magnitude L1": filters.abs().sum((1, 2, 3)),
        "Taylor weights": criteria.taylor_weight(filters, gradients),
    }
    for name, expected in by_hand.items():
        assert torch.allclose(found[name]["2"], per_unit(expected, member, size)), name
    together = per_unit((filters * gradients).sum((1, 2, 3)), member, size).square()
    assert torch.allclose(found["weights as a group"]["2"], together)


@pytest.mark.parametrize("name", ["oracle", "OBD", "Taylor SO"])
@pytest.mark.parametrize("layer", [nn.BatchNorm2d(4), nn.Dropout(0.5)])
def test_many_versions_at_once_need_a_network_that_stays_as_it_is(batches, name, layer):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), layer, nn.Flatten(), nn.Linear(144, 5)).double()
    groups = channel_groups(network.eval(), batches[0][0])
    assert scores(network, groups, batches, (name,))[name]["0"].shape == (4,)
    kind = type(layer).__name__
    match = rf"need a network in evaluation mode; layer '1', a {kind}, is in training mode"
    with pytest.raises(ValueError, match=match):
        scores(network.train(), groups, batches, (name,))


def test_first_order_is_exact_for_a_linear_loss_and_second_order_for_a_quadratic_one(batches):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5)).double()
    sites = {"g": (Site("0"),)}

    def linear(logits, labels):
        return logits.gather(1, labels[:, None]).mean()

    def quadratic(logits, labels):
        return (logits - F.one_hot(labels, 5)).square().mean()

    for loss, exact in ((linear, True), (quadratic, False)):
        slopes = per_batch(gate_gradients(network, sites, batches, loss))["g"]
        bends = gate_curvatures(network, sites, batches, loss)["g"]
        base, without = losses_without(network, sites, batches, loss)
        truth = criteria.oracle(base, without["g"])
        assert torch.allclose(criteria.taylor_fo(slopes), truth, rtol=1e-6) is exact
        assert torch.allclose(criteria.taylor_so(slopes, bends), truth, rtol=1e-6)


def test_curvatures_are_the_diagonal_of_the_hessian(network, batches):
    sites = {"g": sites_everywhere(network)["stage2.0.norm1"]}
    images, labels = batches[0]

    def loss(z):
        with gated(network, sites, {"g": z}):
            return F.cross_entropy(network(images), labels)

    hessian = torch.autograd.functional.hessian(loss, torch.ones(8, dtype=torch.float64))
    found = gate_curvatures(network, sites, batches, chunk=3)["g"][0]
    assert torch.allclose(found, hessian.diagonal(), rtol=1e-8, atol=1e-12)


def test_scores_ignore_the_order_of_examples_and_follow_that_of_channels(network, batches):
    groups = channel_groups(network, batches[0][0])
    names = ("Taylor FO", "Taylor FG", "oracle")
    plain = scores(network, groups, batches, names)
    turned = scores(network, groups, [(x.flip(0), y.flip(0)) for x, y in batches], names)
    block, order = network.stage1[0], torch.tensor([2, 0, 3, 1])
    for module in (block.conv1, block.norm1):
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.ndim:
                tensor.data = tensor.data[order]
    block.conv2.weight.data = block.conv2.weight.data[:, order]
    moved = scores(network, groups, batches, names)
    for name in names:
        for group in groups:
            assert torch.allclose(plain[name][group], turned[name][group], rtol=1e-7, atol=1e-15)
        expected = plain[name]["stage1.0.conv1"][order]
        assert torch.allclose(moved[name]["stage1.0.conv1"], expected, rtol=1e-7, atol=1e-15)


def test_per_example_scores(network, batches):
    groups = channel_groups(network, batches[0][0])
    single = [(x[:1], y[:1]) for x, y in batches]
    found = scores(network, groups, single, ("Taylor FO", "Taylor FG"))
    repeated = [(x[:1].repeat(4, 1, 1, 1), y[:1].repeat(4)) for x, y in batches]
    same = scores(network, groups, repeated, ("Taylor FO", "Taylor FG"))
    for name in groups:
        assert torch.allclose(found["Taylor FO"][name], found["Taylor FG"][name])
        assert torch.allclose(same["Taylor FO"][name] / 4, same["Taylor FG"][name])


@given(st.floats(0.1, 10))
def test_a_scaled_loss_scales_scores_by_its_square(factor):
    slopes = torch.arange(6.0, dtype=torch.float64).view(2, 3) - 2
    assert torch.allclose(
        criteria.taylor_fo(factor * slopes), factor**2 * criteria.taylor_fo(slopes)
    )


def test_a_dead_channel_scores_zero(network, batches):
    with torch.no_grad():
        network.stage2[0].norm1.weight[3] = network.stage2[0].norm1.bias[3] = 0
    groups = channel_groups(network, batches[0][0])
    names = ("oracle", "Taylor FO", "Taylor SO", "Taylor FG", "Taylor scale", "BN scale")
    for name, found in scores(network, groups, batches, names).items():
        dead, others = found["stage2.0.conv1"][3], found["stage2.0.conv1"]
        # The oracle's two losses are summed by different kernels: they may differ by a rounding.
        assert dead <= (1e-24 * others.max() if name == "oracle" else 0), name
        assert (others > 1e-6 * others.max()).sum() > 4, name


def test_weights_before_a_training_norm_contribute_nothing_as_a_group(network, batches):
    network.train()
    (one, _) = parameter_gradients(network, batches)
    products = network.stage1[0].conv1.weight * one["stage1.0.conv1.weight"]
    assert products.flatten(1).sum(1).abs().max() < 1e-3 * products.abs().max()


def test_the_greedy_oracle_is_not_the_combinatorial_one(network, batches):
    sites = sites_everywhere(network)
    best, ways, found = best_subset(network, sites, batches, "stage1.0.norm1", 2)
    assert ways.shape == (6, 2)
    assert found.min() == found[(ways == torch.tensor(best)).all(1)]
    base, without = losses_without(network, sites, batches)
    single = criteria.oracle(base, without["stage1.0.norm1"])
    alone = best_subset(network, sites, batches, "stage1.0.norm1", 1)[2]
    assert torch.allclose(alone, single)


def test_kinds_of_oracle():
    base, without = torch.zeros(2), torch.tensor([[1.0, -2.0], [-1.0, -2.0]])
    assert criteria.oracle(base, without).tolist() == [1, 4]
    assert criteria.oracle(base, without, "absolute").tolist() == [1, 2]
    assert criteria.oracle(base, without, "signed").tolist() == [0, -2]


def test_every_criterion_scores_every_group_once_and_alike(network, batches):
    groups = {
        name: group
        for name, group in channel_groups(network, batches[0][0]).items()
        if len(group.sites) == 1
    }
    found, again = (scores(network, groups, batches, CRITERIA) for _ in range(2))
    for name in CRITERIA:
        for group in groups.values():
            assert found[name][group.name].shape == (group.size,)
            assert torch.equal(found[name][group.name], again[name][group.name])
    assert not torch.equal(found["Taylor FO"]["stage1.0.conv1"], found["OBD"]["stage1.0.conv1"])


def test_shared_scores_can_be_divided(network, batches):
    groups = channel_groups(network, batches[0][0])
    found = scores(network, groups, batches)["Taylor FO"]
    for name, score in divide_by_sites(found, groups).items():
        assert torch.equal(score * len(groups[name].sites), found[name])


def frozen(network, batches):
    network.norm.weight.requires_grad_(False)
    return parameter_gradients(network, batches, names=["norm.weight"])


def endless(network, batches):
    network.classifier.weight.data.fill_(torch.inf)
    return gate_gradients(network, sites_everywhere(network), batches)


def unscaled(network, batches):
    group = channel_groups(network, batches[0][0])["stage1.0.conv1"]
    zeros = {name: torch.zeros_like(one) for name, one in network.named_parameters()}
    return coupled_scores(network, group, zeros, normalise=True)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda n, b: gate_gradients(n, sites_everywhere(n), []), "at least one batch; got none"),
        (frozen, "'norm.weight' must require a gradient; it is frozen"),
        (endless, "loss must be finite; got nan"),
        (unscaled, "scores of 'stage1.0.conv1' must have a mean above 0; got 0"),
        (lambda n, b: scores(n, channel_groups(n, b[0][0]), b, ("luck",)), "criterion must be one"),
        (
            lambda n, b: scores(n, channel_groups(n, b[0][0]), b, ("Taylor output",)),
            "needs groups with one place",
        ),
        (
            lambda n, b: best_subset(n, sites_everywhere(n), b, "stage1.0.norm1", 4),
            "count must be between 1 and 3; got 4",
        ),
        (lambda n, b: best_subset(n, {}, b, "stage1", 1), "gate must be one of"),
    ],
)
def test_bad_inputs_are_refused_in_one_line(network, batches, action, message):
    with pytest.raises(ValueError, match=message) as error:
        action(network, batches)
    assert "\n" not in str(error.value)


def test_a_parameter_without_influence_is_named(batches):
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 5)).double()
    network[1].register_parameter("spare", nn.Parameter(torch.ones(1)))
    with pytest.raises(ValueError, match=r"the loss must depend on '1\.spare'"):
        parameter_gradients(network, batches)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda w: criteria.oracle(w, w, "cubed"), "kind must be one of squared"),
        (lambda w: criteria.taylor_weight(w, w, "mean"), "mode must be one of square then sum"),
        (lambda w: criteria.magnitude(w, 0), "power must be at least 1; got 0"),
    ],
)
def test_unknown_variants_are_refused(action, message):
    with pytest.raises(ValueError, match=message):
        action(torch.ones(2, 2))
