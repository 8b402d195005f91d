"""Numbers of the official engine and of Torch-Pruning, to the tolerances that they came with."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

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
from smallnets.prune.importance.gates import gated, sites_everywhere
from smallnets.prune.importance.groups import channel_groups
from smallnets.prune.importance.schedule import Ranking, Schedule, select
from smallnets.prune.importance.scores import gate_free_gradients, scores
from smallnets.prune.importance.surgery import masked, remove

ROOTS = (
    "layer2.0.downsample.0",
    "conv1",
    "layer1.0.conv1",
    "layer1.1.conv1",
    "layer2.0.conv1",
    "layer2.1.conv1",
)


def close(found, expected, rtol=1e-9):
    expected = np.asarray(expected)
    np.testing.assert_allclose(
        found.detach().numpy(), expected, rtol, max(1e-12, 1e-9 * abs(expected).max())
    )


@pytest.fixture(params=["eval", "train"])
def mode(request):
    return request.param


@pytest.fixture
def plain_in(plain, mode):
    return plain.train(mode == "train")


def plain_sites(plain):
    return sites_everywhere(plain)  # bn1, bn2, bn3 in order


def test_plain_logits(plain, values, batches):
    logits = torch.stack([plain(x) for x, _ in batches])
    close(logits, values["plain/eval/logits"])
    assert list(values["plain/gate_names"]) == ["gate1", "gate2", "gate3"]


def test_gate_gradients_first_order_and_per_example_scores(plain_in, mode, values, batches):
    split = gate_gradients(plain_in, plain_sites(plain_in), batches)
    slopes = per_batch(split)
    for place, name in enumerate(slopes):
        close(slopes[name], values[f"plain/{mode}/gate_grad/{place}"])
        close(criteria.taylor_fo(slopes[name]), values[f"plain/{mode}/taylor_gate_fo/{place}"])
        per_example = torch.stack([one[name] for one in split])
        close(criteria.taylor_fg(per_example), values[f"plain/{mode}/taylor_gate_fg/{place}"])


def test_square_of_the_mean_is_something_else(plain, values, batches):
    slopes = per_batch(gate_gradients(plain, plain_sites(plain), batches))
    expected = values["plain/eval/taylor_gate_fo/0"]
    assert not np.allclose(slopes["bn1"].mean(0).square(), expected, rtol=0.05, atol=0)


def test_weight_scores(plain_in, mode, values, batches):
    steps = parameter_gradients(plain_in, batches)
    for place in range(3):
        name = f"conv{place + 1}.weight"
        weight = plain_in.get_parameter(name)
        score = torch.stack([criteria.taylor_weight(weight, one[name]) for one in steps]).mean(0)
        close(score, values[f"plain/{mode}/taylor_weight/{place}"])
        other = torch.stack(
            [criteria.taylor_weight(weight, one[name], "sum then square") for one in steps]
        ).mean(0)
        assert not torch.allclose(score, other, rtol=0.1, atol=0)
        if mode == "train" and place:  # scale invariance: only epsilon is left
            assert other.max() < 1e-4 * score.max()


def test_second_order_scores(plain, values, batches):
    sites = plain_sites(plain)
    slopes = per_batch(gate_gradients(plain, sites, batches))
    bends = gate_curvatures(plain, sites, batches)
    for place, name in enumerate(sites):
        score = criteria.taylor_so(slopes[name], bends[name])
        close(score, values[f"plain/eval/taylor_gate_so/{place}"], 1e-7)
        close(criteria.obd(bends[name], signed=True), values[f"plain/eval/obd_gate/{place}"], 1e-7)
        wrong = criteria.taylor_so(slopes[name], -bends[name])  # the terms' relative sign
        assert not torch.allclose(score, wrong, rtol=1e-3, atol=0)


def test_scores_that_need_no_gradient(plain, values):
    for place in range(3):
        weight = plain.get_submodule(f"conv{place + 1}").weight
        close(criteria.magnitude(weight), values[f"plain/eval/weight_l2sq/{place}"])
        close(criteria.magnitude(weight, 1), values[f"plain/eval/weight_l1/{place}"])
        scale = plain.get_submodule(f"bn{place + 1}").weight
        close(criteria.bn_scale(scale), values[f"plain/eval/bn_scale_abs/{place}"])


def test_scale_scores_with_and_without_the_shift(plain, values, batches):
    steps = parameter_gradients(plain, batches)
    for place in range(3):
        norm, name = plain.get_submodule(f"bn{place + 1}"), f"bn{place + 1}"
        gamma = [one[f"{name}.weight"] for one in steps]
        beta = [one[f"{name}.bias"] for one in steps]
        alone = torch.stack([criteria.taylor_bn(norm.weight, g) for g in gamma]).mean(0)
        close(alone, values[f"plain/eval/bn_scale_taylor/{place}"])
        both = [
            criteria.taylor_bn(norm.weight, g, norm.bias, b)
            for g, b in zip(gamma, beta, strict=True)
        ]
        close(torch.stack(both).mean(0), values[f"plain/eval/taylor_gate_fo/{place}"])
        assert not torch.allclose(alone, torch.stack(both).mean(0), rtol=0.1, atol=0)


def test_oracle(plain, values, batches):
    base, without = losses_without(plain, plain_sites(plain), batches)
    close(base, values["plain/eval/base_loss"])
    for place, name in enumerate(without):
        close(without[name], values[f"plain/eval/ablated_loss/{place}"])
        absolute = criteria.oracle(base, without[name], "absolute")
        close(absolute, values[f"plain/eval/oracle_abs/{place}"])


def test_all_criteria_of_the_groups_are_those_of_the_gates(plain, values, batches):
    groups = channel_groups(plain, batches[0][0])
    names = {
        "taylor_gate_fo": "Taylor FO", "taylor_gate_so": "Taylor SO", "taylor_gate_fg": "Taylor FG",
        "taylor_weight": "Taylor weights", "weight_l2sq": "magnitude",
        "weight_l1": "magnitude L1", "bn_scale_abs": "BN scale", "bn_scale_taylor": "Taylor scale",
        "taylor_output_iclr17": "Taylor output",
    }  # fmt: skip
    found = scores(plain, groups, batches, tuple(names.values()))
    for key, name in names.items():
        for place in range(3):
            close(found[name][f"conv{place + 1}"], values[f"plain/eval/{key}/{place}"], 1e-7)
    free = gate_free_gradients(plain, groups, batches)
    for place in range(3):
        close(free[f"conv{place + 1}"], values[f"plain/eval/gate_grad/{place}"])


def test_residual_network(residual, residual_sites, values, batches):
    close(torch.stack([residual(x) for x, _ in batches]), values["res/eval/logits"])
    names = [name.replace(".gate", ".gate") for name in values["res/gate_names"]]
    sites = {name: residual_sites[name] for name in names}
    slopes = per_batch(gate_gradients(residual, sites, batches))
    bends = gate_curvatures(residual, sites, batches)
    base, without = losses_without(residual, sites, batches)
    close(base, values["res/eval/base_loss"])
    divisors = (3, 4, 6, 3, 3, 3, 3, 3, 3, 3)
    for place, name in enumerate(names):
        first = criteria.taylor_fo(slopes[name])
        close(slopes[name], values[f"res/eval/gate_grad/{place}"])
        close(first, values[f"res/eval/taylor_gate_fo/{place}"])
        quirk = values[f"res/eval/taylor_gate_fo_official_imagenet_multiplier/{place}"]
        close(first / divisors[place], quirk)
        second = criteria.taylor_so(slopes[name], bends[name])
        close(second, values[f"res/eval/taylor_gate_so/{place}"], 1e-7)
        close(criteria.obd(bends[name], signed=True), values[f"res/eval/obd_gate/{place}"], 1e-7)
        close(without[name], values[f"res/eval/ablated_loss/{place}"])
        absolute = criteria.oracle(base, without[name], "absolute")
        close(absolute, values[f"res/eval/oracle_abs/{place}"])


def test_lowest_third_of_the_residual_network(residual, residual_sites, values, batches):
    names = list(values["res/gate_names"])
    scores = {
        name: torch.from_numpy(values[f"res/eval/taylor_gate_fo/{place}"])
        for place, name in enumerate(names)
    }
    ones = {name: torch.ones_like(score) for name, score in scores.items()}
    expected = values["res/eval/third_removed/mask"]
    masks, _ = select(scores, ones, int((expected == 0).sum()), least=0)
    np.testing.assert_array_equal(torch.cat(list(masks.values())).numpy(), expected)
    with gated(residual, residual_sites, masks), torch.no_grad():
        logits = torch.stack([residual(x) for x, _ in batches])
    close(logits, values["res/eval/third_removed/logits"])


@pytest.mark.parametrize("case", [0, 1, 2])
def test_schedule(values, case):
    def at(key):
        return values[f"schedule/{case}/{key}"]

    every, remove_, prunings, limit, momentum, group_size = at("settings")
    sizes = {f"{place}": int(size) for place, size in enumerate(at("sizes"))}
    schedule = Schedule(
        int(every), int(remove_), int(prunings), int(limit), momentum, int(group_size), least=0
    )
    ranking, pruned = Ranking(sizes, schedule).double(), 0
    for step in range(len(at("gategrad0"))):
        slopes = {name: torch.from_numpy(at(f"gategrad{name}")[step]) for name in sizes}
        squares = {name: (ranking.masks[name] * slopes[name]).square() for name in sizes}
        if ranking.observe(squares):
            np.testing.assert_array_equal(
                ranking.mask.numpy(), at("mask_after_each_iteration")[pruned]
            )
            close(ranking.average, at("averaged_importance")[pruned])
            pruned += 1
    assert pruned == prunings == len(at("threshold"))
    assert ranking.done
    # with protected layers the same scores leave something everywhere
    safe = Ranking(sizes, Schedule(int(every), int(remove_), int(prunings), int(limit), momentum))
    for step in range(len(at("gategrad0"))):
        slopes = {name: torch.from_numpy(at(f"gategrad{name}")[step]) for name in sizes}
        safe.observe({name: (safe.masks[name] * slopes[name]).square() for name in sizes})
    assert all(mask.sum() >= 1 for mask in safe.masks.values())


def test_thresholds_of_the_schedule(values):
    """The threshold of each pruning follows from the average and the mask before it."""
    for case in (0, 1, 2):
        _, remove_, _, limit, _, group_size = values[f"schedule/{case}/settings"]
        sizes = values[f"schedule/{case}/sizes"].tolist()
        masks = values[f"schedule/{case}/mask_after_each_iteration"]
        before = np.ones_like(masks[0])
        for average, after, threshold in zip(
            values[f"schedule/{case}/averaged_importance"],
            masks,
            values[f"schedule/{case}/threshold"],
            strict=True,
        ):
            parts = [dict(enumerate(torch.from_numpy(x).split(sizes))) for x in (average, before)]
            goal = min(int((before == 0).sum() + remove_), int(limit))
            chosen, found = select(*parts, goal, group_size=int(group_size), least=0)
            assert found == pytest.approx(threshold, rel=1e-9)
            np.testing.assert_array_equal(torch.cat(list(chosen.values())).numpy(), after)
            before = after


def test_correlations(values):
    first, exact = (torch.from_numpy(values[f"corr/{key}"]) for key in ("fo", "oracle_sq"))
    np.testing.assert_allclose(
        correlations(first, exact), values["corr/pearson_spearman_kendall_all"], 1e-9
    )
    sizes = [len(values[f"res/eval/taylor_gate_fo/{place}"]) for place in range(10)]
    for a, b, row in zip(
        first.split(sizes), exact.split(sizes), values["corr/pearson_spearman_kendall_per_layer"],
        strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(correlations(a, b), row, 1e-9)
    ties = (torch.from_numpy(values[f"corr/ties_{which}"]) for which in "ab")
    np.testing.assert_allclose(correlations(*ties), values["corr/ties_pearson_spearman_kendall"])


def test_pooled_scores_are_those_of_the_correlation_table(values):
    firsts = [values[f"res/eval/taylor_gate_fo/{place}"] for place in range(10)]
    np.testing.assert_allclose(np.concatenate(firsts), values["corr/fo"], 1e-9)
    base = values["res/eval/base_loss"][:, None]
    for kind, key in (("squared", "oracle_sq"), ("absolute", "oracle_abs")):
        exact = [
            criteria.oracle(
                torch.from_numpy(base[:, 0]),
                torch.from_numpy(values[f"res/eval/ablated_loss/{place}"]),
                kind,
            )
            for place in range(10)
        ]
        np.testing.assert_allclose(torch.cat(exact), values[f"corr/{key}"], 1e-9)


@pytest.fixture
def coupled(residual, batches):
    groups = channel_groups(residual, batches[0][0])
    steps = parameter_gradients(residual, batches[:1], F.cross_entropy)
    return groups, steps[0]


def test_groups_across_skip_connections(coupled, values):
    groups, _ = coupled
    assert set(groups) == set(values["res/tp/group_roots"]) == set(ROOTS)
    for root, group in groups.items():
        found = {f"{member.module}:{member.side}" for member in group.members}
        assert found == set(values[f"res/tp/members/{root}"])


@pytest.mark.parametrize("root", ROOTS)
def test_coupled_scores(residual, coupled, values, root):
    groups, slopes = coupled
    settings = {f"taylor_{name}": {"reduction": name} for name in ("mean", "sum", "max", "prod")}
    settings |= {
        "taylor_first": {"reduction": "first"},
        "taylor_mean_normmean": {"normalise": True},
        "taylor_sum_multivar": {"weighing": "Taylor of sums", "reduction": "sum"},
        "magl2_mean": {"weighing": "magnitude"},
        "magl1_first": {"weighing": "magnitude L1", "reduction": "first"},
        "bnscale_mean": {"weighing": "BN scale"},
    }
    expected = {key.rpartition("/")[2] for key in values if key.startswith(f"res/tp/imp/{root}/")}
    assert expected == set(settings)
    for key, setting in settings.items():
        score = coupled_scores(residual, groups[root], slopes, **setting)
        np.testing.assert_allclose(score, values[f"res/tp/imp/{root}/{key}"], 1e-5, 1e-9)


def chosen(values, case):
    return {root: values[f"res/tp/prune/{case}/idx/{root}"] for root in ROOTS}


@pytest.mark.parametrize("case", ["taylor_global50", "taylor_global50_normmean", "taylor_local50"])
def test_pruning_as_torch_pruning_does(residual, coupled, values, batches, case):
    groups, slopes = coupled
    found = {
        root: coupled_scores(residual, group, slopes, normalise=case.endswith("normmean"))
        for root, group in groups.items()
    }
    gone = chosen(values, case)
    if case == "taylor_local50":
        masks = {}
        for root, score in found.items():
            one = {root: torch.ones_like(score)}
            masks |= select({root: score}, one, len(score) // 2)[0]
    else:
        count = sum(map(len, gone.values()))
        masks, _ = select(found, {r: torch.ones_like(s) for r, s in found.items()}, count)
    for root, mask in masks.items():
        assert (mask == 0).nonzero().flatten().tolist() == sorted(gone[root].tolist())
    images = batches[0][0]
    smaller = remove(residual, groups, masks, images)
    for name, module in smaller.named_modules():
        if isinstance(module, nn.Conv2d):
            width = values[f"res/tp/prune/{case}/width/{name}"]
            assert [module.in_channels, module.out_channels] == width.tolist()
    close(smaller(images), values[f"res/tp/prune/{case}/logits"])
    with masked(residual, groups, masks), torch.no_grad():
        close(residual(images), values[f"res/tp/prune/{case}/logits"])
    before_macs, before, after_macs, after = values[f"res/tp/prune/{case}/macs_params_before_after"]
    assert (parameters(residual), parameters(smaller)) == (before, after)
    shape = tuple(images.shape[1:])
    assert macs(residual.float(), shape) < before_macs  # theirs count norms and activations too
    assert macs(smaller.float(), shape) < after_macs
