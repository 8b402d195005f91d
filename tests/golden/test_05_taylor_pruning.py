"""Pruning by importance: numbers of the official engine and of Torch-Pruning."""

import copy
import re
from collections import OrderedDict
from collections.abc import Sequence
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch_pruning
from torch import Tensor, nn

from smallnets.measure import macs, parameters
from smallnets.measure.ranking import correlations
from smallnets.prune.importance import criteria
from smallnets.prune.importance.coupled import coupled_scores
from smallnets.prune.importance.derivatives import (
    gate_curvatures,
    gate_gradients,
    losses_without,
    parameter_gradients,
    per_batch,
)
from smallnets.prune.importance.gates import Site, gated, sites_everywhere
from smallnets.prune.importance.groups import channel_groups
from smallnets.prune.importance.schedule import Ranking, Schedule, select
from smallnets.prune.importance.scores import gate_free_gradients, scores
from smallnets.prune.importance.surgery import masked, remove

SECOND_ORDER = ("taylor_gate_so", "obd_gate")  # with a looser tolerance
BLOCKS = (3, 4, 6, 3)  # of the stages of ResNet-50, by which the official code divides


@pytest.fixture(scope="module")
def close(agrees):
    """close(function, expected, rtol): beside the largest of a layer some scores are nearly 0."""

    def check(function, expected, rtol=1e-9):
        agrees(function, expected, rtol, max(1e-12, 1e-9 * np.abs(expected).max(initial=0)))

    return check


# ---------------------------------------------------------------- the two networks


def convolution(state: dict[str, Tensor], name: str, stride: int = 1) -> nn.Conv2d:
    """A convolution of the size of its stored weight, padded by half its kernel."""
    c_out, c_in, *kernel = state[f"{name}.weight"].shape
    padding = [side // 2 for side in kernel]
    return nn.Conv2d(c_in, c_out, kernel, stride, padding, bias=f"{name}.bias" in state)


def norm(state: dict[str, Tensor], name: str) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(len(state[f"{name}.weight"]))


def classifier(state: dict[str, Tensor]) -> nn.Linear:
    return nn.Linear(*state["fc.weight"].shape[::-1])


def indices(state: dict[str, Tensor], pattern: str) -> list[int]:
    """The numbers in the names that a pattern with one group matches, in order."""
    found = (re.match(pattern, name) for name in state)
    return sorted({int(match[1]) for match in found if match})


def loaded(network: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    missing, unexpected = network.double().load_state_dict(state, strict=False)
    assert not unexpected
    assert all("num_batches" in name for name in missing)
    return network


def plain_network(state: dict[str, Tensor]) -> nn.Module:
    """Convolution, BatchNorm, ReLU again and again, with max-pooling after the first."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for number in indices(state, r"conv(\d+)\.weight"):
        parts[f"conv{number}"] = convolution(state, f"conv{number}")
        parts[f"bn{number}"] = norm(state, f"bn{number}")
        parts[f"relu{number}"] = nn.ReLU()
        if number == 1:
            parts["pool"] = nn.MaxPool2d(2)
    parts |= {"mean": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": classifier(state)}
    return loaded(nn.Sequential(parts), state)


class Block(nn.Module):
    def __init__(self, state: dict[str, Tensor], name: str, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution(state, f"{name}.conv1", stride)
        self.bn1 = norm(state, f"{name}.bn1")
        self.conv2 = convolution(state, f"{name}.conv2")
        self.bn2 = norm(state, f"{name}.bn2")
        self.downsample = None
        if f"{name}.downsample.0.weight" in state:
            self.downsample = nn.Sequential(
                convolution(state, f"{name}.downsample.0", stride),
                norm(state, f"{name}.downsample.1"),
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(out)) + shortcut).relu()


class Residual(nn.Module):
    """Basic blocks; from the second stage on, one that has a downsample halves the size."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        self.conv1, self.bn1 = convolution(state, "conv1"), norm(state, "bn1")
        self.stages = indices(state, r"layer(\d+)\.")
        for stage in self.stages:
            blocks = []
            for number in indices(state, rf"layer{stage}\.(\d+)\."):
                name = f"layer{stage}.{number}"
                halves = stage > 1 and f"{name}.downsample.0.weight" in state
                blocks.append(Block(state, name, 2 if halves else 1))
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.fc = classifier(state)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        for stage in self.stages:
            x = self.get_submodule(f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))


def residual_sites(network: Residual, names: Sequence[str]) -> dict[str, tuple[Site, ...]]:
    """The official gates: one shared by the blocks of a stage, two within each block."""
    sites = {}
    for name in names:
        if name.startswith("gate_skip"):
            stage = f"layer{name.removeprefix('gate_skip')}"
            blocks = range(len(network.get_submodule(stage)))
            sites[name] = tuple(Site(f"{stage}.{block}") for block in blocks)
        else:
            sites[name] = (Site(name.replace("gate", "bn")),)
    return sites


class Gated:
    """A network with its gates, and what the library finds about them, each computed once."""

    def __init__(self, network, sites, batches):
        self.network, self.sites, self.batches = network, sites, batches
        self.names = list(sites)

    @cached_property
    def split(self):
        return gate_gradients(self.network, self.sites, self.batches)

    @cached_property
    def slopes(self):
        return per_batch(self.split)

    @cached_property
    def bends(self):
        return gate_curvatures(self.network, self.sites, self.batches)

    @cached_property
    def losses(self):
        return losses_without(self.network, self.sites, self.batches)

    @cached_property
    def steps(self):
        return parameter_gradients(self.network, self.batches)

    @property
    def logits(self):
        return torch.stack([self.network(x) for x, _ in self.batches])

    def weights(self, score, gate, part):
        """A score of one minibatch's gradients of the convolution or norm at a gate, averaged."""
        name = gate.replace("gate", part)
        module = self.network.get_submodule(name)
        return torch.stack([score(module, name, one) for one in self.steps]).mean(0)

    def score(self, kind, gate):
        """A score of the channels of a gate, by the official code's name of it."""
        return {
            "gate_grad": lambda: self.slopes[gate],
            "taylor_gate_fo": lambda: criteria.taylor_fo(self.slopes[gate]),
            "taylor_gate_fg": lambda: criteria.taylor_fg(
                torch.stack([one[gate] for one in self.split])
            ),
            "taylor_gate_so": lambda: criteria.taylor_so(self.slopes[gate], self.bends[gate]),
            "obd_gate": lambda: criteria.obd(self.bends[gate], signed=True),
            "ablated_loss": lambda: self.losses[1][gate],
            "oracle_abs": lambda: criteria.oracle(
                self.losses[0], self.losses[1][gate], "absolute"
            ),
            "taylor_gate_fo_official_imagenet_multiplier": lambda: (
                criteria.taylor_fo(self.slopes[gate])
                / dict(zip(self.names, BLOCKS, strict=False)).get(gate, 3)
            ),
            "taylor_weight": lambda: self.weights(
                lambda m, name, one: criteria.taylor_weight(m.weight, one[f"{name}.weight"]),
                gate, "conv",
            ),
            "weight_l2sq": lambda: criteria.magnitude(self.part(gate, "conv").weight),
            "weight_l1": lambda: criteria.magnitude(self.part(gate, "conv").weight, 1),
            "bn_scale_abs": lambda: criteria.bn_scale(self.part(gate, "bn").weight),
            "bn_scale_taylor": lambda: self.weights(
                lambda m, name, one: criteria.taylor_bn(m.weight, one[f"{name}.weight"]),
                gate, "bn",
            ),
            "taylor_output_iclr17": lambda: self.outputs(gate),
        }[kind]()  # fmt: skip

    def part(self, gate, part):
        return self.network.get_submodule(gate.replace("gate", part))

    def outputs(self, gate):
        """The predecessor's score of the gated map, from the map and its gradient by hand."""
        found = []
        for images, labels in self.batches:
            maps = []
            handle = self.part(gate, "bn").register_forward_hook(lambda *a, m=maps: m.append(a[2]))
            loss = nn.functional.cross_entropy(self.network(images), labels)
            handle.remove()
            found.append(criteria.taylor_output(maps[0], torch.autograd.grad(loss, maps[0])[0]))
        return torch.stack(found).mean(0)


@pytest.fixture(scope="module")
def batches(values):
    return list(zip(values.tensor("x"), values.tensor("y"), strict=True))


@pytest.fixture(scope="module")
def plain_state(values):
    return values.under("plain/state/")


@pytest.fixture(scope="module")
def residual_state(values):
    return values.under("res/state/")


@pytest.fixture(scope="module")
def networks(values, batches, plain_state, residual_state):
    """networks(net, mode) -> that network with its gates; kept from test to test."""
    made = {}

    def get(net, mode):
        if (net, mode) not in made:
            if net == "plain":
                network = plain_network(plain_state)
                places = (sites[0] for sites in sites_everywhere(network).values())
                sites = {site.module.replace("bn", "gate"): (site,) for site in places}
            else:
                network = Residual(residual_state)
                loaded(network, residual_state)
                sites = residual_sites(network, values["res/gate_names"].tolist())
            made[net, mode] = Gated(network.train(mode == "train"), sites, batches)
        return made[net, mode]

    return get


# ---------------------------------------------------------------- scores of gates


@pytest.mark.cases(r"(?P<net>plain|res)/(?P<mode>eval|train)/logits")
def test_logits(values, networks, close, net, mode):
    close(lambda: networks(net, mode).logits, values[f"{net}/{mode}/logits"])


@pytest.mark.cases(r"(?P<net>plain|res)/(?P<mode>eval|train)/base_loss")
def test_losses(values, networks, close, net, mode):
    close(lambda: networks(net, mode).losses[0], values[f"{net}/{mode}/base_loss"])


@pytest.mark.cases(r"(?P<net>plain|res)/(?P<mode>eval|train)/(?P<score>\w+)/(?P<place>\d+)")
def test_scores_of_gates(values, networks, close, net, mode, score, place):
    expected = values[f"{net}/{mode}/{score}/{place}"]
    one = networks(net, mode)
    gate = one.names[int(place)]
    close(lambda: one.score(score, gate), expected, 1e-7 if score in SECOND_ORDER else 1e-9)


@pytest.mark.cases(r"plain/gate(?P<names>_names)")
def test_gates_of_the_plain_network_lie_behind_its_norms(values, networks, names):
    assert values[f"plain/gate{names}"].tolist() == networks("plain", "eval").names


GROUP_SCORES = {
    "taylor_gate_fo": "Taylor FO", "taylor_gate_so": "Taylor SO", "taylor_gate_fg": "Taylor FG",
    "taylor_weight": "Taylor weights", "weight_l2sq": "magnitude", "weight_l1": "magnitude L1",
    "bn_scale_abs": "BN scale", "bn_scale_taylor": "Taylor scale",
    "taylor_output_iclr17": "Taylor output",
}  # fmt: skip


@pytest.fixture(scope="module")
def group_scores(networks, batches):
    one = networks("plain", "eval").network
    return scores(one, channel_groups(one, batches[0][0]), batches, tuple(GROUP_SCORES.values()))


@pytest.mark.cases(rf"plain/eval/(?P<score>{'|'.join(GROUP_SCORES)})/(?P<place>\d+)")
def test_scores_of_groups_are_those_of_gates(values, networks, group_scores, close, score, place):
    expected = values[f"plain/eval/{score}/{place}"]
    gate = networks("plain", "eval").names[int(place)]
    found = group_scores[GROUP_SCORES[score]]
    if expected.shape[-1] == 1:  # nothing can go
        assert gate.replace("gate", "conv") not in found
        return
    close(lambda: found[gate.replace("gate", "conv")], expected, 1e-7)


@pytest.mark.cases(r"plain/eval/gate_grad/(?P<place>\d+)")
def test_gradients_of_gates_need_no_gates(values, networks, batches, close, place):
    expected = values[f"plain/eval/gate_grad/{place}"]
    one = networks("plain", "eval")
    groups = channel_groups(one.network, batches[0][0])
    name = one.names[int(place)].replace("gate", "conv")
    if expected.shape[-1] == 1:  # nothing can go
        assert name not in groups
        return
    close(lambda: gate_free_gradients(one.network, groups, batches)[name], expected)


@pytest.mark.cases(r"plain/(?P<mode>eval|train)/taylor_gate_fo/(?P<place>\d+)")
def test_scale_and_shift_together_score_as_the_gate_does(values, networks, close, mode, place):
    expected = values[f"plain/{mode}/taylor_gate_fo/{place}"]
    one = networks("plain", mode)
    gate = one.names[int(place)]

    def score(module, name, step):
        weight, bias = (step[f"{name}.{part}"] for part in ("weight", "bias"))
        return criteria.taylor_bn(module.weight, weight, module.bias, bias)

    close(lambda: one.weights(score, gate, "bn"), expected)


@pytest.mark.sample
@pytest.mark.cases(r"plain/(?P<mode>eval|train)/taylor_weight/(?P<place>\d+)")
def test_contributions_of_filters_are_not_sums_over_weights(values, networks, mode, place):
    expected = torch.tensor(values[f"plain/{mode}/taylor_weight/{place}"])
    other = networks("plain", mode).weights(
        lambda m, name, one: criteria.taylor_weight(
            m.weight, one[f"{name}.weight"], "sum then square"
        ),
        f"gate{int(place) + 1}",
        "conv",
    )
    assert not torch.allclose(expected, other, rtol=0.1, atol=0)
    if mode == "train" and place != "0":  # scale invariance: only epsilon is left
        assert other.max() < 1e-4 * expected.max()


@pytest.mark.sample
@pytest.mark.parametrize("gate", ["gate1", "gate2", "gate3"])
def test_other_readings_of_the_formulas_differ(networks, gate):
    one = networks("plain", "eval")
    first, second = (one.score(f"taylor_gate_{kind}", gate) for kind in ("fo", "so"))
    slopes, bends = one.slopes[gate], one.bends[gate]
    assert not torch.allclose(slopes.mean(0).square(), first, rtol=0.05, atol=0)
    assert not torch.allclose(criteria.taylor_so(slopes, -bends), second, rtol=1e-3, atol=0)
    assert not torch.allclose(one.score("bn_scale_taylor", gate), first, rtol=0.1, atol=0)


# ---------------------------------------------------------------- masks and the schedule


@pytest.mark.cases(r"res/(?P<mode>eval|train)/(?P<case>\w+_removed)/mask")
def test_lowest_scores_of_the_residual_network_go(values, networks, mode, case):
    expected = values[f"res/{mode}/{case}/mask"]
    one = networks("res", mode)
    first = {name: one.score("taylor_gate_fo", name) for name in one.names}
    ones = {name: torch.ones_like(score) for name, score in first.items()}
    masks, _ = select(first, ones, int((expected == 0).sum()), least=0)
    np.testing.assert_array_equal(torch.cat(list(masks.values())).numpy(), expected)


@pytest.mark.cases(r"res/(?P<mode>eval|train)/(?P<case>\w+_removed)/logits")
def test_closed_gates_change_the_logits(values, networks, close, mode, case):
    expected = values[f"res/{mode}/{case}/logits"]
    one = networks("res", mode)
    sizes = [one.slopes[name].shape[1] for name in one.names]
    parts = values.tensor(f"res/{mode}/{case}/mask").double().split(sizes)
    with gated(one.network, one.sites, dict(zip(one.names, parts, strict=True))), torch.no_grad():
        close(lambda: one.logits, expected)


class Pruning(NamedTuple):
    """One pruning of a schedule: masks before it, and what the ranking was after it."""

    before: dict[str, Tensor]
    goal: int
    mask: Tensor
    average: dict[str, Tensor]


def scheduled(values, case, least=0):
    """The schedule driven by a case's stored gradients: the ranking, and its prunings."""
    every, gone, prunings, limit, momentum, group = values[f"schedule/{case}/settings"].tolist()
    counts = map(int, (every, gone, prunings, limit))
    plan = Schedule(*counts, momentum, int(group), least=least)
    sizes = {str(i): int(n) for i, n in enumerate(values[f"schedule/{case}/sizes"])}
    slopes = [values.tensor(f"schedule/{case}/gategrad{name}") for name in sizes]
    ranking, found = Ranking(sizes, plan).double(), []
    for step in zip(*slopes, strict=True):
        before = {name: mask.clone() for name, mask in ranking.masks.items()}
        goal = min(ranking.gone + plan.remove, plan.limit)
        squares = [(mask * one).square() for mask, one in zip(before.values(), step, strict=True)]
        if ranking.observe(dict(zip(sizes, squares, strict=True))):
            average = {name: one.clone() for name, one in ranking.importance.items()}
            found.append(Pruning(before, goal, ranking.mask.clone(), average))
    return ranking, found


@pytest.mark.cases(r"schedule/(?P<case>\w+)/mask_after_each_iteration")
def test_masks_of_the_schedule(values, case):
    expected = values[f"schedule/{case}/mask_after_each_iteration"]
    ranking, found = scheduled(values, case)
    np.testing.assert_array_equal(torch.stack([one.mask for one in found]), expected)
    assert ranking.done == (len(found) == ranking.schedule.prunings)


@pytest.mark.cases(r"schedule/(?P<case>\w+)/averaged_importance")
def test_averages_of_the_schedule(values, close, case):
    expected = values[f"schedule/{case}/averaged_importance"]

    def averages():
        rows = [one.average.values() for one in scheduled(values, case)[1]]
        return torch.stack([torch.cat(list(row)) for row in rows])

    close(averages, expected)


@pytest.mark.cases(r"schedule/(?P<case>\w+)/threshold")
def test_thresholds_of_the_schedule(values, agrees, case):
    """The threshold of each pruning follows from the average and the masks before it."""
    expected = values[f"schedule/{case}/threshold"]

    def thresholds():
        ranking, found = scheduled(values, case)
        size = ranking.schedule.group_size
        rows = [
            select(one.average, one.before, one.goal, group_size=size, least=0) for one in found
        ]
        return torch.tensor([threshold for _, threshold in rows], dtype=torch.float64)

    agrees(thresholds, expected)


@pytest.mark.cases(r"schedule/(?P<case>\w+)/settings")
def test_protected_layers_keep_a_unit(values, case):
    ranking, found = scheduled(values, case, least=1)
    assert found
    assert all(mask.sum() >= 1 for mask in ranking.masks.values())


# ---------------------------------------------------------------- correlations


def correlated(a, b, expected):
    """Three coefficients as expected; where they are not numbers, the library says that, too."""
    a, b = torch.tensor(a), torch.tensor(b)
    if not np.isnan(expected).any():
        np.testing.assert_allclose(correlations(a, b), expected, 1e-9)
    elif len(a) < 2 or not (a.isfinite().all() and b.isfinite().all()):
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            correlations(a, b)
    else:
        with pytest.warns(UserWarning, match="undefined"):
            assert np.isnan(correlations(a, b)).all()


def over_gates(values, key):
    """The arrays of a score of all gates of the residual network, in order."""
    return [values[f"res/eval/{key}/{i}"] for i in range(len(values["res/gate_names"]))]


@pytest.mark.cases(r"corr/(?P<key>pearson_spearman_kendall_all)")
def test_correlations_over_all_gates(values, key):
    expected = values[f"corr/{key}"]
    correlated(values["corr/fo"], values["corr/oracle_sq"], expected)


@pytest.mark.cases(r"corr/(?P<key>pearson_spearman_kendall_per_layer)")
def test_correlations_within_gates(values, key):
    expected = values[f"corr/{key}"]
    ends = np.cumsum([len(one) for one in over_gates(values, "taylor_gate_fo")])[:-1]
    parts = (np.split(values[f"corr/{one}"], ends) for one in ("fo", "oracle_sq"))
    for a, b, row in zip(*parts, expected, strict=True):
        correlated(a, b, row)


@pytest.mark.cases(r"corr/(?P<ties>ties\w*)_a")
def test_correlations_with_ties(values, ties):
    a, b = values[f"corr/{ties}_a"], values[f"corr/{ties}_b"]
    correlated(a, b, values[f"corr/{ties}_pearson_spearman_kendall"])


@pytest.mark.cases(r"corr/(?P<key>fo)")
def test_pooled_scores_are_those_of_the_gates(values, key):
    expected = values[f"corr/{key}"]
    np.testing.assert_allclose(np.concatenate(over_gates(values, "taylor_gate_fo")), expected, 1e-9)


@pytest.mark.cases(r"corr/oracle_(?P<kind>\w+)")
def test_pooled_oracles_are_those_of_the_losses(values, kind):
    expected, base = values[f"corr/oracle_{kind}"], values.tensor("res/eval/base_loss")
    kinds = {"sq": "squared", "abs": "absolute", "signed": "signed"}
    exact = [
        criteria.oracle(base, torch.tensor(one), kinds[kind])
        for one in over_gates(values, "ablated_loss")
    ]
    np.testing.assert_allclose(torch.cat(exact), expected, 1e-9)


# ---------------------------------------------------------------- Torch-Pruning


class Coupled(NamedTuple):
    """The residual network in evaluation mode, its groups and its gradients of one batch."""

    network: nn.Module
    groups: dict
    slopes: dict[str, Tensor]
    images: Tensor

    def scores(self, **settings):
        return {
            root: coupled_scores(self.network, group, self.slopes, **settings)
            for root, group in self.groups.items()
        }


@pytest.fixture(scope="module")
def coupled(networks, batches):
    network = networks("res", "eval").network
    groups = channel_groups(network, batches[0][0])
    return Coupled(network, groups, parameter_gradients(network, batches[:1])[0], batches[0][0])


@pytest.mark.cases(r"res/tp/group_(?P<key>roots)")
def test_groups_have_the_roots_of_torch_pruning(values, coupled, key):
    assert set(coupled.groups) == set(values[f"res/tp/group_{key}"].tolist())


@pytest.mark.cases(r"res/tp/members/(?P<root>.+)")
def test_groups_reach_across_skip_connections(values, coupled, root):
    expected = values[f"res/tp/members/{root}"].tolist()
    found = {f"{member.module}:{member.side}" for member in coupled.groups[root].members}
    assert found == set(expected)


WEIGHINGS = {
    "taylor": "Taylor", "magl2": "magnitude", "magl1": "magnitude L1", "bnscale": "BN scale",
}  # fmt: skip


@pytest.mark.cases(r"res/tp/imp/(?P<root>.+)/(?P<setting>\w+)")
def test_coupled_scores(values, coupled, agrees, root, setting):
    expected = values[f"res/tp/imp/{root}/{setting}"]
    weighing, reduction, *more = setting.split("_")
    how = {"weighing": WEIGHINGS[weighing], "reduction": reduction}
    if more == ["multivar"]:
        how["weighing"] = f"{how['weighing']} of sums"
    elif more:
        assert more == ["normmean"]
        how["normalise"] = True
    group = coupled.groups[root]
    agrees(
        lambda: coupled_scores(coupled.network, group, coupled.slopes, **how), expected, 1e-5, 1e-9
    )


@pytest.fixture(scope="module")
def cut(coupled):
    """cut(case) -> masks and smaller network, such as "taylor_global50_normmean" asks for."""

    @cache
    def get(case):
        pattern = r"taylor_(global|local)(\d+)(_normmean)?"
        where, percent, normalised = re.fullmatch(pattern, case).groups()
        found = coupled.scores(normalise=bool(normalised))
        ones = {root: torch.ones_like(score) for root, score in found.items()}

        def lowest(roots):
            total = sum(len(found[root]) for root in roots)
            count = total - int(total * (1 - int(percent) / 100))
            chosen = ({root: each[root] for root in roots} for each in (found, ones))
            return select(*chosen, count)[0]

        masks = {}
        for roots in [list(found)] if where == "global" else [[root] for root in found]:
            masks |= lowest(roots)
        smaller = remove(coupled.network, coupled.groups, masks, coupled.images)
        return masks, smaller

    return get


@pytest.mark.cases(r"res/tp/prune/(?P<case>\w+)/idx/(?P<root>.+)")
def test_channels_go_as_in_torch_pruning(values, cut, case, root):
    expected = values[f"res/tp/prune/{case}/idx/{root}"]
    masks, _ = cut(case)
    assert (masks[root] == 0).nonzero().flatten().tolist() == sorted(expected.tolist())


@pytest.mark.cases(r"res/tp/prune/(?P<case>\w+)/width/(?P<name>.+)")
def test_convolutions_have_the_widths_of_torch_pruning(values, cut, case, name):
    expected = values[f"res/tp/prune/{case}/width/{name}"]
    module = cut(case)[1].get_submodule(name)
    assert [module.in_channels, module.out_channels] == expected.tolist()


@pytest.mark.cases(r"res/tp/prune/(?P<case>\w+)/logits")
def test_pruned_networks_give_the_logits_of_torch_pruning(values, coupled, cut, close, case):
    expected = values[f"res/tp/prune/{case}/logits"]
    masks, smaller = cut(case)
    close(lambda: smaller(coupled.images), expected)
    with masked(coupled.network, coupled.groups, masks), torch.no_grad():
        close(lambda: coupled.network(coupled.images), expected)


@pytest.mark.cases(r"res/tp/prune/(?P<case>\w+)/macs_params_before_after")
def test_pruned_networks_have_the_size_of_torch_prunings(values, coupled, cut, case):
    expected = values[f"res/tp/prune/{case}/macs_params_before_after"].reshape(2, 2)
    shape = tuple(coupled.images.shape[1:])
    for network, (work, size) in zip((coupled.network, cut(case)[1]), expected, strict=True):
        assert parameters(network) == size
        single = copy.deepcopy(network).float()
        assert macs(single, shape) < work  # theirs count norms and activations too


@pytest.mark.sample
@pytest.mark.cases(r"res/tp/prune/(?P<case>\w+)/macs_params_before_after")
def test_operations_are_those_of_torch_prunings_own_counter(values, coupled, cut, case):
    expected = values[f"res/tp/prune/{case}/macs_params_before_after"].reshape(2, 2)
    for network, counted in zip((coupled.network, cut(case)[1]), expected, strict=True):
        single, image = copy.deepcopy(network).float(), coupled.images[:1].float()
        found = torch_pruning.utils.count_ops_and_params(single, image)
        assert list(found) == counted.tolist()
