"""Layer-wise search: the integer programme, candidates, scores, fine-tuning, and operations."""

from functools import cache, partial
from math import prod

import numpy as np
import pytest
import torch
from torch import nn

from smallnets import measure
from smallnets.measure import accuracy, negative_log_likelihood
from smallnets.search.lana import (
    SCORES,
    ImpossibleError,
    Pool,
    Programme,
    ReplaceableLayers,
    Shape,
    feature_loss,
    operation,
    overlap_of,
    predicted_loss,
    rank_agreement,
    relative_error,
    relax,
    score_pool,
    solve,
    solve_all,
    solve_diverse,
    solve_lagrangian,
    tuning_loss,
)

ENOUGH = 20_000  # choices that are all tried

# ---------------------------------------------------------------- the integer programme


class Problem:
    """Scores, costs and budgets of a name: several budgets one by one, or all kinds at once."""

    def __init__(self, values, name):
        present = [one for one in ("score", "lat", "params") if f"{name}_{one}" in values]
        tables = [values[f"{name}_{one}"].astype(np.float64) for one in present]
        if f"{name}_counts" in values:
            lengths = values[f"{name}_counts"].tolist()
            tables = [[row[:n] for row, n in zip(one, lengths, strict=True)] for one in tables]
        self.score, *costs = tables
        self.costs = dict(zip(("latency", "parameters"), costs, strict=False))
        if f"{name}_budgets" in values:
            self.budgets = [{"latency": one} for one in values[f"{name}_budgets"].tolist()]
        else:
            numbers = np.atleast_1d(values[f"{name}_budget"]).tolist()
            self.budgets = [dict(zip(self.costs, numbers, strict=True))]
        self.best = cache(lambda k: solve(self.programme(self.budgets[k])))

    def programme(self, budgets):
        """With budgets of some kinds."""
        return Programme(self.score, {kind: self.costs[kind] for kind in budgets}, budgets)

    @property
    def choices(self):
        """How many there are in all."""
        return prod(len(row) for row in self.score)


@pytest.fixture(scope="module")
def problem(values):
    """problem(name), the same one every time."""
    return cache(lambda name: Problem(values, name))


@pytest.fixture(scope="module")
def at_budgets(problem, agrees):
    """at_budgets(name, expected, function, atol): function(programme, optimum) at every budget."""

    def check(name, expected, function, atol=1e-9):
        one = problem(name)

        def found(k):
            return np.float64(function(one.programme(one.budgets[k]), one.best(k)))

        assert np.size(expected) == len(one.budgets)
        for k, number in enumerate(np.atleast_1d(expected)):
            agrees(partial(found, k), number, 0, atol)

    return check


@pytest.mark.cases(r"(?P<name>\w+)_opt_obj")
def test_objectives_of_optima(values, at_budgets, name):
    at_budgets(name, values[f"{name}_opt_obj"], lambda _, best: best.objective)


@pytest.mark.cases(r"(?P<name>\w+)_opt_lat")
def test_latencies_of_optima(values, at_budgets, name):
    at_budgets(name, values[f"{name}_opt_lat"], lambda _, best: best.costs["latency"])


@pytest.mark.cases(r"(?P<name>\w+)_opt_sel")
def test_choices_of_optima(values, problem, name):
    expected, one = values[f"{name}_opt_sel"], problem(name)
    for k, (budgets, choices) in enumerate(
        zip(one.budgets, expected.reshape(-1, len(one.score)), strict=True)
    ):
        if choices.min() < 0:
            with pytest.raises(ValueError, match=r"^[^\n]+$"):
                one.best(k)
            continue
        best = one.best(k)
        assert best.choices == tuple(choices)
        assert best.status == "optimal"
        assert best.bound == pytest.approx(best.objective, abs=1e-6)
        if one.choices <= ENOUGH:
            assert solve_all(one.programme(budgets))[0].choices == best.choices
        for kind in budgets if len(budgets) > 1 else ():
            alone = one.programme({kind: budgets[kind]})
            assert solve(alone).objective <= best.objective + 1e-9


@pytest.mark.cases(r"(?P<name>\w+)_lp_obj")
def test_bounds(values, at_budgets, name):
    at_budgets(name, values[f"{name}_lp_obj"], lambda programme, _: relax(programme)[0], 1e-8)


@pytest.mark.cases(r"(?P<name>\w+)_lp_obj")
def test_relaxations_split_one_layer_and_are_what_prices_find(values, problem, name):
    one = problem(name)
    for k, expected in enumerate(np.atleast_1d(values[f"{name}_lp_obj"])):
        if np.isnan(expected):
            continue
        programme = one.programme(one.budgets[k])
        bound, fractions = relax(programme)
        split = [row for row in fractions if ((row > 1e-7) & (row < 1 - 1e-7)).any()]
        assert len(split) <= 1
        assert all((row > 1e-7).sum() == 2 for row in split)
        priced = solve_lagrangian(programme)
        assert priced.bound == pytest.approx(bound, abs=1e-8)
        assert bound - 1e-9 <= one.best(k).objective <= priced.objective + 1e-9


@pytest.mark.cases(r"(?P<name>\w+)_gap_to_second")
def test_gaps_to_the_runners_up(values, at_budgets, name):
    def gap(programme, best):
        return solve(programme, exclude=[best.choices]).objective - best.objective

    at_budgets(name, values[f"{name}_gap_to_second"], gap)


@pytest.fixture(scope="module")
def diverse(values, problem):
    """diverse(name, count) -> the programme, the overlap and the solutions."""

    @cache
    def get(name, count):
        overlap, budget = (values[f"{name}_div_{key}"].item() for key in ("overlap", "budget"))
        programme = problem(name).programme({"latency": budget})
        return programme, overlap, solve_diverse(programme, count, overlap=overlap)

    return get


@pytest.mark.cases(r"(?P<name>\w+)_div_obj")
def test_objectives_of_diverse_solutions(values, diverse, name):
    """Where cuts run out there are fewer solutions, and the rest are not numbers."""
    expected = values[f"{name}_div_obj"]
    if np.isnan(expected).all():
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            diverse(name, len(expected))
        return
    _, overlap, found = diverse(name, len(expected))
    objectives = [one.objective for one in found]
    np.testing.assert_allclose(objectives, expected[: len(found)], atol=1e-9, rtol=0)
    assert np.isnan(expected[len(found) :]).all()
    assert (np.diff(objectives) >= -1e-9).all()
    for i, one in enumerate(found):
        assert all(overlap_of(one.choices, other.choices) <= overlap for other in found[:i])


@pytest.mark.cases(r"(?P<name>\w+)_div_sel")
def test_choices_of_diverse_solutions(values, diverse, name):
    """Later ones may tie in their choices, but not in their objectives."""
    expected = values[f"{name}_div_sel"]
    if (expected < 0).all():
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            diverse(name, len(expected))
        return
    programme, _, found = diverse(name, len(expected))
    for place, (one, choices) in enumerate(zip(found, expected, strict=False)):
        assert place or one.choices == tuple(choices)
        assert programme.objective(choices) == pytest.approx(one.objective, abs=1e-9)
        assert programme.within(choices)
    assert (expected[len(found) :] < 0).all()


# ---------------------------------------------------------------- candidates


@pytest.fixture(scope="module")
def features(values):
    """features(prefix) -> the layer's input, the teacher's output and the student's."""
    return lambda prefix: [values.tensor(f"{prefix}_{name}") for name in "xts"]


@pytest.mark.cases(r"(?P<fd>fd[^_]*)_mse")
def test_losses_of_features(values, features, agrees, fd):
    expected = values[f"{fd}_mse"]
    _, teacher, student = features(fd)
    agrees(lambda: feature_loss(student, teacher), expected, 0, 1e-10)


@pytest.mark.cases(r"(?P<fd>fd[^_]*)_mse_grad_s")
def test_gradients_of_features(values, features, agrees, fd):
    expected = values[f"{fd}_mse_grad_s"]
    _, teacher, student = features(fd)
    student.requires_grad_()
    agrees(
        lambda: torch.autograd.grad(feature_loss(student, teacher), student)[0], expected, 0, 1e-10
    )


@pytest.mark.cases(r"(?P<fd>fd[^_]*)_sse_per_sample")
def test_sums_of_features_by_example_and_their_mean(values, features, agrees, fd):
    expected = values[f"{fd}_sse_per_sample"]
    _, teacher, student = features(fd)
    agrees(lambda: feature_loss(student, teacher, "sum"), expected.mean(), 0, 1e-10)
    for s, t, one in zip(student, teacher, expected, strict=True):
        agrees(lambda s=s, t=t: feature_loss(s[None], t[None], "sum"), one, 1e-10, 1e-10)


@pytest.mark.cases(r"(?P<fd>fd[^_]*)_rel_mse")
def test_relative_errors_of_features(values, features, agrees, fd):
    expected = values[f"{fd}_rel_mse"]
    _, teacher, student = features(fd)
    agrees(lambda: relative_error(student, teacher), expected, 0, 1e-10)


def linear(weight, x):
    """A 1x1 convolution; a column more than x has channels is the bias."""
    ones = x.new_ones(len(x), weight.shape[1] - x.shape[1], *x.shape[2:])
    return torch.einsum("oc,nc...->no...", weight, torch.cat([x, ones], 1))


@pytest.mark.cases(r"(?P<fd>fd[^_]*)_ls_mse(?P<bias>|_bias)")
def test_losses_of_least_squares(values, features, agrees, fd, bias):
    expected = values[f"{fd}_ls_mse{bias}"]
    x, teacher, _ = features(fd)
    weight = values.tensor(f"{fd}_ls_weight{bias}")
    agrees(lambda: feature_loss(linear(weight, x), teacher), expected, 0, 1e-10)


@pytest.mark.cases(r"(?P<fd>fd[^_]*)_ls_weight(?P<bias>|_bias)")
def test_least_squares_are_the_optimum_of_a_linear_candidate(values, features, fd, bias):
    weight = values.leaf(f"{fd}_ls_weight{bias}")
    x, teacher, _ = features(fd)
    assert weight.shape[1] == x.shape[1] + bool(bias)
    (gradient,) = torch.autograd.grad(feature_loss(linear(weight, x), teacher), weight)
    assert gradient.abs().max() < 1e-10


@pytest.mark.sample
def test_the_two_reductions_differ(values, features):
    _, teacher, student = features("fd")
    assert feature_loss(student, teacher, "sum").item() != pytest.approx(values["fd_mse"].item())


# ---------------------------------------------------------------- scores


class Block(nn.Module):
    """z + tanh(z V1^T) V2^T, or z + z A^T."""

    def __init__(self, *weights):
        super().__init__()
        self.weights = nn.ParameterList(weights)

    def forward(self, z):
        if len(self.weights) == 1:
            return z + z @ self.weights[0].T
        return z + (z @ self.weights[0].T).tanh() @ self.weights[1].T


@pytest.fixture(scope="module")
def toy(values):
    """toy(prefix) -> a teacher of some layers, its pool, inputs and labels."""

    @cache
    def make(prefix):
        x, y, *weights, h = (
            values.tensor(f"{prefix}_{key}") for key in ("x", "y", "W1", "W2", "A", "V1", "V2", "H")
        )
        w1, w2, *candidates = weights
        head = nn.Linear(*h.shape[::-1], bias=False, dtype=torch.float64)
        head.weight = nn.Parameter(h)
        network = nn.Sequential(*map(Block, w1, w2), head).eval()
        layered = ReplaceableLayers(network, tuple(str(i) for i in range(len(w1))), x[:2])
        rows = [
            {"identity": nn.Identity(), "linear": Block(a), "small": Block(v1, v2)}
            for a, v1, v2 in zip(*candidates, strict=True)
        ]
        return layered, Pool(rows).eval(), x, y

    return make


KINDS = {"loss": "loss", "acc": "accuracy", "mse": "mse", "kl": "kl"}


@pytest.mark.cases(r"(?P<prefix>toy[^_]*)_score_(?P<kind>\w+)")
@pytest.mark.parametrize("batches", ["one", "some", "all"])
def test_scores_of_candidates(values, toy, agrees, prefix, kind, batches):
    expected = values[f"{prefix}_score_{kind}"]
    layered, pool, x, y = toy(prefix)
    size = {"one": len(x), "some": -(-2 * len(x) // 5), "all": 1}[batches]
    tables = score_pool(layered, pool, x, y, batch_size=size)
    assert tuple(tables) == SCORES
    agrees(lambda: np.stack(tables[KINDS[kind]]), expected, 0, 1e-10)
    assert all(row[0] == 0 for row in tables[KINDS[kind]])


@pytest.mark.cases(r"(?P<prefix>toy[^_]*)_teacher_(?P<kind>logits|loss|acc)")
def test_the_teacher(values, toy, agrees, prefix, kind):
    expected = values[f"{prefix}_teacher_{kind}"]
    layered, _, x, y = toy(prefix)
    logits = layered.network(x)
    found = {
        "logits": lambda: logits,
        "loss": lambda: np.float64(negative_log_likelihood(logits, y)),
        "acc": lambda: np.float64(accuracy(logits, y)),
    }[kind]
    agrees(found, expected, 0, 1e-12 if kind == "acc" else 1e-10)


@pytest.fixture(scope="module")
def combined(values, toy):
    """combined(prefix) -> predicted and measured losses of the stored combinations."""

    @cache
    def get(prefix):
        layered, pool, x, y = toy(prefix)
        combos = values[f"{prefix}_combos"].tolist()
        base = negative_log_likelihood(layered.network(x), y)
        score = score_pool(layered, pool, x, y)["loss"]
        with torch.no_grad():
            measured = [
                nn.functional.cross_entropy(pool.stitched(layered, one)(x), y).item()
                for one in combos
            ]
        return [predicted_loss(base, score, one) for one in combos], measured

    return get


@pytest.mark.cases(r"(?P<prefix>toy[^_]*)_(?P<kind>pred|true)_loss")
def test_losses_of_combinations(values, combined, agrees, prefix, kind):
    expected = values[f"{prefix}_{kind}_loss"]
    predicted, measured = combined(prefix)
    agrees(lambda: np.array(predicted if kind == "pred" else measured), expected, 0, 1e-10)


@pytest.mark.cases(r"(?P<prefix>toy[^_]*)_(?P<name>kendall|spearman|pearson)")
def test_ranks_of_predictions(values, combined, agrees, prefix, name):
    expected = values[f"{prefix}_{name}"]
    agrees(lambda: np.float64(rank_agreement(*combined(prefix))[name]), expected, 0, 1e-9)


@pytest.mark.sample
def test_the_toys_combinations_are_all_there_are(values, toy):
    _, pool, *_ = toy("toy")
    all_of_them = np.indices([len(names) for names in pool.names]).reshape(len(pool.names), -1).T
    np.testing.assert_array_equal(values["toy_combos"], all_of_them)


# ---------------------------------------------------------------- fine-tuning


@pytest.fixture(scope="module")
def logits(values):
    """logits(prefix) -> the student's, which take a gradient, the teacher's, and labels."""
    return lambda prefix: (
        values.leaf(f"{prefix}_s"), values.tensor(f"{prefix}_t"), values.tensor(f"{prefix}_y")
    )  # fmt: skip


@pytest.mark.cases(r"(?P<kd>kd[^_]*)_kl_(?P<kind>T2_batchmean|grad)")
def test_soft_losses(values, logits, agrees, kd, kind):
    expected = values[f"{kd}_kl_{kind}"]
    student, teacher, labels = logits(kd)
    for temperature, one in zip(values[f"{kd}_T"].tolist(), expected, strict=True):

        def found(temperature=temperature):
            loss = tuning_loss(student, teacher, labels, alpha=1.0, temperature=temperature)
            return torch.autograd.grad(loss, student)[0] if kind == "grad" else loss

        agrees(found, np.asarray(one), 0, 1e-10)


@pytest.mark.cases(r"(?P<kd>kd[^_]*)_ce(?P<kind>|_grad)")
def test_hard_losses(values, logits, agrees, kd, kind):
    expected = values[f"{kd}_ce{kind}"]
    student, teacher, labels = logits(kd)

    def found():
        loss = tuning_loss(student, teacher, labels, alpha=0.0, temperature=4.0)
        return torch.autograd.grad(loss, student)[0] if kind else loss

    agrees(found, expected, 0, 1e-10)


@pytest.mark.sample
def test_the_divergence_has_a_direction(values, logits):
    student, teacher, labels = logits("kd")
    for k, temperature in enumerate(values["kd_T"].tolist()):
        other = tuning_loss(teacher, student, labels, alpha=1.0, temperature=temperature)
        assert other.item() != pytest.approx(values["kd_kl_T2_batchmean"][k], rel=1e-3)


# ---------------------------------------------------------------- operations

OPERATIONS = (
    "skip", "conv3", "conv5", "dwsep3", "dwsep5", "basic", "bottleneck_r0.25_k3",
    "bottleneck_r0.5_k3", "ir_e1_k3", "ir_e3_k3", "ir_e6_k3", "ir_e3_k5", "ir_e6_k5_se0.25",
    "ir_e6_k3_se0.25", "fused_e1_k3", "fused_e3_k3", "fused_e6_k3", "mhsa4",
)  # fmt: skip


def counts(name, shape):
    """Parameters and multiply-accumulates of an operation."""
    module = operation(name, shape)
    given = (shape.in_channels, shape.height, shape.width)
    return measure.parameters(module), measure.macs(module, given)


@pytest.mark.cases(r"(?P<ops>ops[^_]*)_(?P<kind>params|macs)")
def test_sizes_of_operations(values, ops, kind):
    expected = values[f"{ops}_{kind}"]
    for cfg, row in zip(values[f"{ops}_cfg"].tolist(), expected.tolist(), strict=True):
        c_in, c_out, stride, side = cfg
        shape = Shape(c_in, c_out, stride, side, side)
        for name, number in zip(OPERATIONS, row, strict=True):
            if number < 0:
                with pytest.raises(ImpossibleError, match=r"^[^\n]+$"):
                    operation(name, shape)
            else:
                assert counts(name, shape)[kind == "macs"] == number, (name, shape)


@pytest.mark.cases(r"(?P<tv>tv[^_]*)_params_macs")
def test_inverted_residuals_are_the_size_of_torchvisions(values, tv):
    expected = values[f"{tv}_params_macs"]
    for cfg, row in zip(values[f"{tv}_cfg"].tolist(), expected, strict=True):
        e, k, stride, c_in, c_out, side = cfg
        shape = Shape(c_in, c_out, stride, side, side)
        ours = (*counts(f"ir_e{e}_k{k}_se0.25", shape), *counts(f"fused_e{e}_k{k}", shape))
        assert ours == tuple(row)
