"""The paper's experiments, one seed a call so that seeds can run side by side.

What is expensive is kept: a teacher, its candidates and a tuned student are trained once and then
read, so every function starts from the names of things.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from smallnets import checks, measure
from smallnets.data import Dataset, TrainingImages
from smallnets.measure import Timing
from smallnets.models import read_weights
from smallnets.search.lana.baselines import Choices, evolve, random_choices, random_search
from smallnets.search.lana.candidates import distil_candidates
from smallnets.search.lana.latency import LatencyTable, measure_table
from smallnets.search.lana.layers import ReplaceableLayers
from smallnets.search.lana.other_solvers import solve_greedy
from smallnets.search.lana.pool import Pool, Table, build_pool, restricted, sizes
from smallnets.search.lana.programme import Programme, Selection
from smallnets.search.lana.scores import SCORES, predicted_loss, rank_agreement, score_pool
from smallnets.search.lana.solve import solve, solve_diverse
from smallnets.search.lana.tuning import evaluate_network, fine_tune
from smallnets.studies.lana.networks import build_arguments, layered_network, replaceable
from smallnets.studies.lana.plan import LATENCIES, Settings, stored_table
from smallnets.studies.networks import build_network
from smallnets.studies.seeds import teacher_seed
from smallnets.studies.study import by_seed, every, run_grid
from smallnets.studies.watching import curve, train_watched
from smallnets.surgery import recalibrate
from smallnets.training import for_seeds, run_parallel, seeded
from smallnets.training.checkpoint import History

SHARES = {"three quarters": 0.75, "half": 0.5, "third": 1 / 3}  # of the teacher's latency
COMPARED = ("half", "third")  # budgets at which other methods choose, too
AS_SIBLING, SCRATCH = "as the sibling", "sibling, from scratch"
GAP = 1e-2  # of later diverse solutions, which get harder


def train_member(
    name: str, dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> nn.Module:
    """The teacher, or its sibling, which is trained from scratch for as long as teacher and tuning
    together.
    """
    return _member(name, dataset, settings, seed, cache_dir)[0]


def learning_curve(
    name: str, dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> dict[str, list[float]]:
    """How `train_member` went, see `smallnets.studies.watching.curve`. A teacher from a file has no
    epochs.
    """
    return curve(_member(name, dataset, settings, seed, cache_dir)[1])


def _member(
    name: str, dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None
) -> tuple[nn.Module, History]:
    teaching, own = settings.teaching, teacher_seed(seed)
    network = build_network(name, dataset, own, **build_arguments(name))
    if name == settings.teacher and settings.published is not None:
        return read_weights(network, settings.published), []
    if name != settings.teacher:
        teaching = teaching.with_epochs(teaching.epochs + settings.tuning.epochs)
    return network, train_watched(
        network, dataset, teaching, own, cache_dir, label=f"network-{name}"
    )


def train_pool(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    part: int | None = None,
    cache_dir: Path | None = None,
) -> tuple[ReplaceableLayers, Pool]:
    """The teacher by its layers, and its candidates after phase 1.

    The candidates of `settings.at_once` layers hang off one pass of the teacher.

    Args:
        dataset, settings: as everywhere.
        seed: of the candidates' start and training.
        part: train the candidates of these layers only, counted in groups of `settings.at_once`.
        cache_dir: folder for finished trainings.
    """
    teacher = train_member(settings.teacher, dataset, settings, seed, cache_dir)
    layered = layered_network(teacher, dataset)
    with seeded(seed):
        pool = build_pool(layered, settings.pool)
    for number in range(parts(dataset, settings)) if part is None else (part,):
        some = pool.part(pair for pair in pool.pairs if pair[0] // settings.at_once == number)
        if any(True for _ in some.parameters()):
            distil_candidates(
                layered, some, dataset, settings.distilling, seed=seed, cache_dir=cache_dir
            )
    return layered, pool.eval()


def parts(dataset: Dataset, settings: Settings) -> int:
    """In how many trainings of `train_pool` the candidates are taught."""
    layered = replaceable(settings.teacher, dataset)
    return -(-len(layered.names) // settings.at_once)


def train_pools(dataset: Dataset, settings: Settings, cache_dir: Path) -> None:
    """Phase 1 of all seeds, side by side."""
    common = {"dataset": dataset, "settings": settings, "cache_dir": cache_dir}
    count = parts(dataset, settings)
    jobs = [
        {**job, "part": part}
        for part in range(count)
        for job in for_seeds(settings.seeds, **common)
    ]
    run_parallel(_trained_part, jobs, description="candidates")


def _trained_part(**job: Any) -> None:
    train_pool(**job)


def score_candidates(
    layered: ReplaceableLayers, pool: Pool, dataset: Dataset, settings: Settings
) -> dict[str, Table]:
    """All four scores on the images to judge on."""
    images = judging_set(dataset, settings)
    return score_pool(layered, pool, *images, recalibrate=settings.recalibrate)


def judging_set(dataset: Dataset, settings: Settings) -> TrainingImages:
    """The first training images, normalised, and their labels: test images choose nothing."""
    return dataset.for_choosing(settings.judged)


def choose_table(dataset: Dataset, settings: Settings, latency: str = "auto") -> LatencyTable:
    """The latencies that a run goes by.

    Args:
        dataset, settings: what the networks are.
        latency: "stored" is the book's own table, "measured" measures here and now, "auto" takes
            the stored one where it has all that is needed.

    Raises:
        ValueError: another word, or the stored table lacks something.
    """
    checks.one_of("latency", latency, LATENCIES)
    if latency != "measured":
        stored = stored_table()
        layered = replaceable(settings.teacher, dataset)
        fits = stored.batch == settings.batch
        fits = fits and stored.covers(layered, build_pool(layered, settings.pool))
        if fits:
            return stored
        if latency == "stored":
            raise ValueError(
                "latency must be auto or measured: the stored table is of other layers; "
                "got 'stored'"
            )
    return check_latency(dataset, settings, {})[0]


def check_latency(
    dataset: Dataset, settings: Settings, choices: Mapping[str, Choices]
) -> tuple[LatencyTable, dict[str, tuple[float, Timing]]]:
    """Whole networks against the sums that predict them, measured in the same turns.

    Args:
        dataset, settings: what the networks are; weights do not matter here.
        choices: name -> one choice a layer.

    Returns:
        The table of this measurement, and name -> (predicted milliseconds, measured quartiles).
    """
    layered = replaceable(settings.teacher, dataset)
    with seeded(0):
        pool = build_pool(layered, settings.pool)
    networks = {name: pool.stitched(layered, one).eval() for name, one in choices.items()}
    table, timed = measure_table(
        layered, pool, batch=settings.batch, rounds=settings.rounds, networks=networks
    )
    rows, fixed = table.rows(layered, pool), table.fixed(layered)
    return table, {
        name: (fixed + sum(float(row[c]) for row, c in zip(rows, one, strict=True)), timed[name])
        for name, one in choices.items()
    }


def budgets(
    dataset: Dataset, settings: Settings, table: LatencyTable
) -> tuple[dict[str, float], float, float]:
    """Milliseconds that the layers may take: name -> budget, then the fixed part and the teacher.

    Most budgets are shares of the teacher's latency; "as the sibling" is that of the sibling. All
    are for the whole network; the fixed part is subtracted here.
    """

    def whole(name: str) -> float:
        layered = replaceable(name, dataset)
        rows = table.rows(layered, Pool([{} for _ in layered.names]))
        return table.fixed(layered) + sum(float(row[0]) for row in rows)

    fixed, total = table.fixed(replaceable(settings.teacher, dataset)), whole(settings.teacher)
    allowed = {name: share * total for name, share in SHARES.items()}
    allowed[AS_SIBLING] = whole(settings.sibling)
    return {name: allowed[name] - fixed for name in allowed}, fixed, total


def search(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    table: LatencyTable,
    cache_dir: Path | None = None,
) -> dict[str, Any]:
    """Everything between candidates and tuning, for one seed.

    Returns:
        "names", "score" (four tables), "latency" and "macs" (tables), "teacher" (judged), "added"
        (predictions and measurements of random networks), "found" (budget -> method -> choices and
        judgements), "race" (evaluation by evaluation), "space" (log10 of its size), and "fixed" and
        "total" (milliseconds of what stays, and of the whole teacher).
    """
    layered, pool = train_pool(dataset, settings, seed, cache_dir=cache_dir)
    score = score_candidates(layered, pool, dataset, settings)
    latency = table.rows(layered, pool)
    size = sizes(layered, pool)
    limits, fixed, total = budgets(dataset, settings, table)
    evaluate = Evaluator(layered, pool, dataset, settings)
    generator = np.random.default_rng(seed)
    found = {
        name: compare(
            settings,
            pool,
            score,
            latency,
            size["macs"],
            limit,
            evaluate,
            generator,
            rivals=name in COMPARED,
        )
        for name, limit in limits.items()
    }
    for method, one in found["half"].items():
        if method != "diverse":
            one |= evaluate.as_stitched(one["choices"])
    half = Programme(score["loss"], {"latency": latency}, {"latency": limits["half"]})
    return {
        "names": pool.names,
        "score": score,
        "latency": latency,
        "macs": size["macs"],
        "parameters": size["parameters"],
        "teacher": evaluate((0,) * len(pool.names)),
        "added": check_additivity(pool, score, evaluate, settings.sampled, generator),
        "found": found,
        "race": race(half, found["half"]["diverse"]["loss"], len(pool.pairs), evaluate, generator),
        "space": pool.space,
        "fixed": fixed,
        "total": total,
    }


class Evaluator:
    """Measures of stitched students on the images to judge on; each student is judged once."""

    def __init__(
        self, layered: ReplaceableLayers, pool: Pool, dataset: Dataset, settings: Settings
    ) -> None:
        self.layered, self.pool, self.dataset = layered, pool, dataset
        self.x, self.y = judging_set(dataset, settings)
        self.tested = 2 * settings.judged
        self.recalibrate = settings.recalibrate
        self.seen: dict[Choices, dict[str, float]] = {}

    def __call__(self, choices: Sequence[int]) -> dict[str, float]:
        """ "loss" and "accuracy" before any tuning."""
        key = tuple(choices)
        if key not in self.seen:
            network = self.pool.stitched(self.layered, key)
            self.seen[key] = evaluate_network(network, self.x, self.y, recalibrate=self.recalibrate)
        return self.seen[key]

    def in_full(self, choices: Sequence[int]) -> dict[str, float]:
        """Also on "test" images, which choose nothing, with BatchNorm statistics of the images to
        judge on where the settings say so.
        """
        network = self.pool.stitched(self.layered, choices)
        if self.recalibrate:
            network = recalibrate(copy.deepcopy(network), self.x.split(250))
        test = evaluate_on_test(network, self.dataset, self.tested)
        return {**self(choices), **{f"test {key}": value for key, value in test.items()}}

    def as_stitched(self, choices: Sequence[int]) -> dict[str, float]:
        """On the same test images, with the statistics that stand-ins bring along."""
        network = self.pool.stitched(self.layered, choices)
        plain = evaluate_on_test(network, self.dataset, self.tested)
        return {f"test {key} as stitched": value for key, value in plain.items()}


def compare(
    settings: Settings,
    pool: Pool,
    score: dict[str, Table],
    latency: Table,
    macs: Table,
    limit: float,
    evaluate: Evaluator,
    generator: np.random.Generator,
    rivals: bool = True,
) -> dict[str, dict[str, Any]]:
    """One budget: what each method chooses, and how good that is before tuning.

    Without `rivals` it is the programme by the loss score alone.
    """
    cost, budget = {"latency": latency}, {"latency": limit}
    main = Programme(score["loss"], cost, budget)
    diverse = [one.choices for one in _diverse(main, settings)]
    chosen: dict[str, Choices] = {
        "best of K": min(diverse, key=lambda one: evaluate(one)["loss"]),
        "first": diverse[0],
    }
    if rivals:
        drawn = random_choices(main, settings.sampled, generator)
        part = limit / sum(float(row[0]) for row in latency)
        counted = {"macs": part * sum(float(row[0]) for row in macs)}
        chosen |= {
            f"{kind} score": solve(Programme(score[kind], cost, budget)).choices
            for kind in SCORES[1:]
        }
        chosen |= {
            "greedy": solve_greedy(main).choices,
            "small pool": _within(main, pool, settings.small_pool),
            "skip only": _within(main, pool, ("skip",)),
            "random": min(drawn[: settings.solutions], key=lambda one: evaluate(one)["loss"]),
            "by MACs": solve(Programme(score["loss"], {"macs": macs}, counted)).choices,
        }
        middle = sorted(drawn, key=lambda one: evaluate(one)["loss"])[len(drawn) // 2]
        chosen["random, median"] = middle
    return {
        name: {
            "choices": choices,
            "predicted": main.objective(choices),
            "latency": main.cost("latency", choices),
            **evaluate.in_full(choices),
        }
        for name, choices in chosen.items()
    } | {"diverse": {"choices": diverse, "loss": [evaluate(one)["loss"] for one in diverse]}}


def _diverse(programme: Programme, settings: Settings) -> list[Selection]:
    overlap = round(settings.overlap * programme.layers)
    return solve_diverse(
        programme, settings.solutions, overlap=overlap, rel_gap=GAP, time_limit=settings.time_limit
    )


def _within(programme: Programme, pool: Pool, names: Sequence[str]) -> Choices:
    """The best choice from a smaller pool; the cheapest where even that is above the budget."""
    banned = restricted(pool.names, names)
    cheapest = sum(
        min(float(row[j]) for j in range(len(row)) if (i, j) not in banned)
        for i, row in enumerate(programme.costs["latency"])
    )
    budget = {"latency": max(programme.budgets["latency"], cheapest)}
    return solve(Programme(programme.score, programme.costs, budget, forbidden=banned)).choices


def check_additivity(
    pool: Pool,
    score: dict[str, Table],
    evaluate: Evaluator,
    count: int,
    generator: np.random.Generator,
) -> dict[str, list[float]]:
    """Random networks with any number of replaced layers: predicted and measured.

    Returns:
        "replaced" (how many layers), "loss" (measured), "accuracy lost" (measured), and the
        predictions "by KIND" of all four scores.
    """
    layers = len(pool.names)
    base = evaluate((0,) * layers)
    kinds: dict[str, list[float]] = {f"by {kind}": [] for kind in SCORES}
    result: dict[str, list[float]] = {"replaced": [], "loss": [], "accuracy lost": [], **kinds}
    for number in range(2 * count):
        replaced = generator.permutation(layers)[: 1 + number % layers]
        choices = np.zeros(layers, dtype=int)
        for layer in replaced:
            choices[layer] = generator.integers(1, len(pool.names[layer]))
        measured = evaluate(choices.tolist())
        result["replaced"].append(float(len(replaced)))
        result["loss"].append(measured["loss"])
        result["accuracy lost"].append(base["accuracy"] - measured["accuracy"])
        for kind in SCORES:
            start = base["loss"] if kind == "loss" else 0.0
            result[f"by {kind}"].append(predicted_loss(start, score[kind], choices.tolist()))
    return result


def race(
    programme: Programme,
    solved: Sequence[float],
    scorings: int,
    evaluate: Evaluator,
    generator: np.random.Generator,
) -> dict[str, list[float]]:
    """The lowest loss after every evaluation of a network, by three ways to search.

    A score is counted as an evaluation, though only a part of a network runs for it: the programme
    has nothing to show before all scores are there.

    Args:
        programme: whose budgets the rivals keep.
        solved: losses of its solutions, in their order.
        scorings: evaluations that its scores took.
        evaluate: measures networks.
        generator: of the rivals.
    """
    total = scorings + len(solved)

    def loss(choices: Choices) -> float:
        return evaluate(choices)["loss"]

    return {
        "programme": [float("nan")] * scorings + [*solved],
        "evolution": [v for _, v in evolve(programme, loss, total, generator)],
        "random": [v for _, v in random_search(programme, loss, total, generator)],
    }


def tune(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    choices: Choices,
    alpha: float | None = None,
    cache_dir: Path | None = None,
) -> dict[str, float]:
    """Test accuracy of a student after fine-tuning, and its sizes."""
    layered, pool = train_pool(dataset, settings, seed, cache_dir=cache_dir)
    student = pool.stitched(layered, choices)
    fine_tune(
        student, layered.network, dataset, settings.tuning, seed=seed, cache_dir=cache_dir,
        alpha=settings.alpha if alpha is None else alpha, temperature=settings.temperature,
    )  # fmt: skip
    return evaluate_and_size(student, dataset)


def evaluate_on_test(
    network: nn.Module, dataset: Dataset, count: int | None = None
) -> dict[str, float]:
    """ "loss" and "accuracy" on the first `count` test images, None is all: to report, not to
    choose.
    """
    images, labels = dataset.x_test[:count], dataset.y_test[:count]
    return evaluate_network(network, dataset.normalise(images), labels)


def evaluate_and_size(network: nn.Module, dataset: Dataset) -> dict[str, float]:
    """Test accuracy and loss, parameters and multiply-accumulates."""
    found = evaluate_on_test(network, dataset)
    shape = (dataset.channels, *dataset.size)
    return {
        **found,
        "parameters": measure.parameters(network),
        "macs": measure.macs(network, shape),
    }


def tuning_plans(
    results: Sequence[Mapping[str, Any]], settings: Settings
) -> list[dict[str, tuple[Choices, float | None]]]:
    """What of the search is fine-tuned: for every seed, name -> choices and alpha of the tuning.

    Of these, what the settings name: the teacher itself, since longer training alone may help; the
    programme's choice at every budget; at half of the latency the same without a teacher, and what
    chance has chosen; at a third of it what smaller pools allow.
    """
    plans = []
    for result in results:
        found = result["found"]
        plan: dict[str, tuple[Choices, float | None]] = {
            "teacher, longer": ((0,) * len(result["names"]), None),
            **{name: (methods["best of K"]["choices"], None) for name, methods in found.items()},
            "half, labels only": (found["half"]["best of K"]["choices"], 0.0),
            "half, random": (found["half"]["random"]["choices"], None),
            "third, small pool": (found["third"]["small pool"]["choices"], None),
            "third, skip only": (found["third"]["skip only"]["choices"], None),
        }
        plans.append({name: plan[name] for name in settings.tuned})
    return plans


def share(result: Mapping[str, Any], choices: Sequence[int]) -> float:
    """Latency of a network as a share of the teacher's, by the table that the search went by."""
    layers = sum(float(row[c]) for row, c in zip(result["latency"], choices, strict=True))
    return (result["fixed"] + layers) / result["total"]


def tune_all(
    plans: Sequence[Mapping[str, tuple[Choices, float | None]]],
    dataset: Dataset,
    settings: Settings,
    cache_dir: Path | None = None,
) -> list[dict[str, dict[str, float]]]:
    """Fine-tune what every seed's plan names, side by side.

    Args:
        plans: one a seed, name -> choices and alpha (None: the settings').
        dataset, settings: as everywhere.
        cache_dir: folder for finished trainings.

    Returns:
        One dictionary a seed: name -> measures of `tune`.
    """
    cells = {
        (name, seed): {"choices": choices, "alpha": alpha}
        for seed, plan in enumerate(plans)
        for name, (choices, alpha) in plan.items()
    }
    grid = run_grid(
        tune,
        cells,
        description="fine-tuning",
        dataset=dataset,
        settings=settings,
        cache_dir=cache_dir,
    )
    return by_seed(grid)


def train_and_evaluate(
    dataset: Dataset, settings: Settings, seed: int, name: str, cache_dir: Path | None = None
) -> dict[str, float]:
    """Measures of the trained teacher or of its sibling."""
    return evaluate_and_size(train_member(name, dataset, settings, seed, cache_dir), dataset)


def train_family(
    dataset: Dataset, settings: Settings, cache_dir: Path | None = None
) -> list[dict[str, dict[str, float]]]:
    """Measures of "teacher" and "sibling, from scratch", one dictionary a seed."""
    members = {"teacher": {"name": settings.teacher}, SCRATCH: {"name": settings.sibling}}
    grid = run_grid(
        train_and_evaluate,
        every(members, settings.seeds),
        description="teacher and sibling",
        dataset=dataset,
        settings=settings,
        cache_dir=cache_dir,
    )
    return by_seed(grid)


def before_tuning(
    results: Sequence[Mapping[str, Any]], limits: Mapping[str, float]
) -> dict[str, Any]:
    """What figures and claims take from the search: name -> one value a seed.

    Args:
        results: of `search`, one a seed.
        limits: of `budgets`.

    Returns:
        "budget", that every budget is a share of the teacher's latency; "kendall" of every kind of
        score; for budget -> method "accuracy before" and "loss before" tuning on test images, and
        "share before" of the latency; "lowest loss" that each search ends with.
    """

    def of(value: Callable[[Mapping[str, Any], Mapping[str, Any]], float]) -> dict[str, Any]:
        return {
            budget: {
                method: [value(r, r["found"][budget][method]) for r in results]
                for method in results[0]["found"][budget]
                if method != "diverse"
            }
            for budget in limits
        }

    def tau(result: Mapping[str, Any], kind: str) -> float:
        added = result["added"]
        return rank_agreement(added[f"by {kind}"], added["loss"])["kendall"]

    return {
        "budget": {
            name: [(r["fixed"] + limit) / r["total"] for r in results]
            for name, limit in limits.items()
        },
        "kendall": {kind: [tau(r, kind) for r in results] for kind in SCORES},
        "accuracy before": of(lambda _, one: one["test accuracy"]),
        "loss before": of(lambda _, one: one["test loss"]),
        "share before": of(lambda r, one: share(r, one["choices"])),
        "lowest loss": {
            way: [float(np.nanmin(r["race"][way])) for r in results] for way in results[0]["race"]
        },
    }


def after_tuning(
    family: Sequence[Mapping[str, Mapping[str, float]]],
    results: Sequence[Mapping[str, Any]],
    tuned: Sequence[Mapping[str, Mapping[str, float]]],
    settings: Settings,
    limits: Mapping[str, float],
) -> dict[str, dict[str, list[float]]]:
    """ "accuracy" on test images and "share" of the teacher's latency of all trained networks, one
    value a seed.

    Args:
        family: of `train_family`.
        results: of `search`.
        tuned: of `tune_all`.
        settings: as everywhere.
        limits: of `budgets`.
    """
    plans = tuning_plans(results, settings)
    after = [{**first, **then} for first, then in zip(family, tuned, strict=True)]
    chosen = {
        "teacher": [(0,) * len(r["names"]) for r in results],
        **{name: [plan[name][0] for plan in plans] for name in settings.tuned},
    }
    return {
        "accuracy": {name: [seed[name]["accuracy"] for seed in after] for name in after[0]},
        "share": {
            SCRATCH: [(r["fixed"] + limits[AS_SIBLING]) / r["total"] for r in results],
            **{
                name: [share(r, one) for r, one in zip(results, choices, strict=True)]
                for name, choices in chosen.items()
            },
        },
    }
