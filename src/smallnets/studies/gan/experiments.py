"""What one seed of the study measures: measure -> network -> number or list of numbers.

"error" is how bad images are, and by it things are chosen: the share of the label maps that is not
found again in them, 1 - mIoU in the eyes of `learners.eyes`; of a file without label maps it is the
distance. "distance" is the mean absolute difference of images from their targets, pixels being from
-1 to 1, which a texture that nobody could know makes large; "fid" is the Frechet distance in the
same eyes, for few images: it ranks networks within one run, and compares with nothing else. All are
of test images; "held error" alone is of the held-out training images on which things are chosen.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from smallnets import gan
from smallnets.data.translation import Translation, as_levels
from smallnets.gan.networks import count
from smallnets.studies.gan.domain import Domain
from smallnets.studies.gan.families import family_jobs
from smallnets.studies.gan.learners import (
    DECOMPOSED,
    LOOSE,
    Lesson,
    alone,
    cycle_teacher,
    error_of,
    eyes,
    full_pipeline,
    lesson,
    pairs_of,
    train_supernet,
)
from smallnets.studies.gan.named import (
    FURTHER,
    best,
    core_names,
    learned_alone,
    loose_names,
    network,
)
from smallnets.studies.gan.plan import Settings
from smallnets.studies.gan.searching import most_evaluations, search, so_far
from smallnets.studies.gan.together import Job, side_by_side
from smallnets.studies.questions import thinned

Measured = dict[str, Any]


def train_side_by_side(domain: Domain, settings: Settings, seed: int, cache_dir: Path) -> None:
    """Train and keep one seed's networks, as many at a time as there are cores: first the teachers,
    then what needs them and what `families.train_families` trains, short jobs last.

    What a supernet computes before its first step takes memory: one job of the families comes
    before all supernets, so that two of them do not begin at the same time on two cores, and what
    follows is trained by new processes.
    """
    here = domain, settings, seed, cache_dir
    side_by_side([partial(cycle_teacher, *here), partial(alone, *here)], "teachers")
    pairs_of(domain, settings, cache_dir)
    many = [partial(train_supernet, *here, one) for one in range(settings.supernets)]
    names = (*DECOMPOSED, *learned_alone(settings), *LOOSE)
    singles = [partial(network, domain, settings, seed, name, cache_dir) for name in names]
    look = partial(eyes, domain, settings, cache_dir, loose=True)
    early, *later = family_jobs(domain, settings, cache_dir)
    side_by_side([early, *many], "supernets")
    side_by_side([*later, *singles, look], "networks")
    found, *more = (partial(_both_searches, *here, *one) for one in _searches(settings))
    tuned = partial(network, domain, settings, seed, "found, tuned", cache_dir)
    listed = partial(search, *here, "brute_force")
    side_by_side([partial(_in_turn, found, tuned), listed, *more], "searches")


def _in_turn(*jobs: Job) -> None:
    for job in jobs:
        job()


def _searches(settings: Settings) -> list[tuple[int, int]]:
    """Repetition and number of the supernet, of all searches of a seed."""
    own = [(repetition, 0) for repetition in range(settings.searches)]
    return own + [(0, number) for number in range(1, settings.supernets)]


def _both_searches(
    domain: Domain, settings: Settings, seed: int, cache_dir: Path, repetition: int, number: int
) -> None:
    for method in ("evolution", "random"):
        search(domain, settings, seed, cache_dir, method, repetition, number)


def train_the_others(domain: Domain, settings: Settings, seed: int, cache_dir: Path) -> None:
    """Train and keep one seed's networks of `FURTHER`, and the further supernets of its teacher."""
    names = [one for one in FURTHER if one != "full pipeline"]
    jobs: list[Job] = [partial(full_pipeline, domain, settings, seed, cache_dir)]
    jobs += [
        partial(train_supernet, domain, settings, seed, cache_dir, number)
        for number in range(1, settings.supernets)
    ]
    jobs += [partial(network, domain, settings, seed, one, cache_dir) for one in names]
    side_by_side(jobs, "ablations")


def measure(domain: Domain, settings: Settings, seed: int, cache_dir: Path) -> Measured:
    """Everything that is measured of every seed.

    Args:
        domain, settings, seed, cache_dir: see `learners.alone`.

    Returns:
        The measures of `judging` and `costs`, for `core_names`, `loose_names`, "average", the mean
        over random configurations within the budget, and "truth", real pictures; "held error"; and
        "training", "search", "search, so far", "evaluations" and "config", see `trainings` and
        `searched`.
    """
    here = domain, settings, seed, cache_dir
    data = pairs_of(domain, settings, cache_dir)
    judge = judging(data, eyes(domain, settings, cache_dir))
    held = holding(lesson(domain, settings, cache_dir))
    found = {}
    for name in core_names(settings):
        one = network(domain, settings, seed, name, cache_dir)
        found[name] = judge(one) | costs(one, data) | held(one)
    found["average"] = average(*here, judge)
    found["truth"] = judging_images(data, eyes(domain, settings, cache_dir))(data.b(data.b_test))
    loosely = loose_judging(*here)
    for name in loose_names():
        one = network(domain, settings, seed, name, cache_dir)
        found[name] = loosely(one) | costs(one, domain.loose)
    return _by_measure(found) | {"training": trainings(*here)} | searched(*here)


def measure_further(domain: Domain, settings: Settings, seed: int, cache_dir: Path) -> Measured:
    """The same measures, but for trainings and searches, of the networks of `FURTHER`."""
    data = pairs_of(domain, settings, cache_dir)
    judge = judging(data, eyes(domain, settings, cache_dir))
    held = holding(lesson(domain, settings, cache_dir))
    found = {}
    for name in FURTHER:
        one = network(domain, settings, seed, name, cache_dir)
        found[name] = judge(one) | costs(one, data) | held(one)
    return _by_measure(found)


def _by_measure(found: Mapping[str, Mapping[str, Any]]) -> Measured:
    """Network -> measure -> number, turned over; not every network has every measure."""
    measures = dict.fromkeys(name for one in found.values() for name in one)
    return {
        name: {who: one[name] for who, one in found.items() if name in one} for name in measures
    }


Judge = Callable[[nn.Module], dict[str, float]]


def judging(data: Translation, reader: gan.LabelReader) -> Judge:
    """What is said of a network by its images of test inputs: "fid", and "error" and "distance"
    where there is a truth.
    """
    inputs = data.a(data.a_test)
    judge = judging_images(data, reader)
    return lambda one: judge(gan.translated(one, inputs))


def judging_images(
    data: Translation, reader: gan.LabelReader
) -> Callable[[Tensor], dict[str, float]]:
    """The same of images themselves."""
    truth = data.b(data.b_test)
    fid, error = gan.fid_from(reader, reader.features, truth), error_of(data, reader)

    def judge(images: Tensor) -> dict[str, float]:
        said = {"fid": fid(images)}
        if data.aligned:
            said |= {"error": error(images), "distance": gan.Distance(truth)(images)}
        return said

    return judge


def loose_judging(domain: Domain, settings: Settings, seed: int, cache_dir: Path) -> Judge:
    """The same without pairs. Where no test input has a truth, "error" and "distance" are from the
    images of the seed's unpaired teacher.
    """
    data = domain.loose
    judge = judging(data, eyes(domain, settings, cache_dir, loose=True))
    if data.aligned:
        return judge
    inputs = data.a(data.a_test)
    teacher = cycle_teacher(domain, settings, seed, cache_dir).network
    wanted = gan.Distance(gan.translated(teacher, inputs))

    def compare(one: nn.Module) -> dict[str, float]:
        far = wanted(gan.translated(one, inputs))
        return judge(one) | {"error": far, "distance": far}

    return compare


def holding(here: Lesson) -> Judge:
    """The error on the images that were held out."""
    assert here.error is not None
    error = here.error
    return lambda one: {"held error": error(gan.translated(one, here.inputs))}


def costs(one: nn.Module, data: Translation) -> dict[str, float]:
    """Of one image: true and published multiply-accumulates, and parameters."""
    found = count(one, (data.a_channels, *data.size))
    return {
        "exact": float(found.exact),
        "published": float(found.published),
        "parameters": float(found.parameters),
    }


def average(
    domain: Domain, settings: Settings, seed: int, cache_dir: Path, judge: Judge
) -> dict[str, float]:
    """What is said of random configurations within the budget, as a mean."""
    made = train_supernet(domain, settings, seed, cache_dir)
    drawn = list(search(domain, settings, seed, cache_dir, "random").scores)[: settings.average]
    said = [judge(made.network.export(one).eval()) for one in drawn]
    return {name: float(np.mean([one[name] for one in said])) for name in said[0]}


def trainings(domain: Domain, settings: Settings, seed: int, cache_dir: Path) -> Measured:
    """Errors on held-out images along trainings, at most twelve points each: of the teacher, and of
    the supernet's largest and smallest configuration.
    """
    teacher = alone(domain, settings, seed, cache_dir).history
    supernet = train_supernet(domain, settings, seed, cache_dir).history
    return {
        "teacher": thinned(teacher, "held out"),
        "supernet, largest": thinned(supernet, "largest"),
        "supernet, smallest": thinned(supernet, "smallest"),
    }


def searched(domain: Domain, settings: Settings, seed: int, cache_dir: Path) -> Measured:
    """What searches found, by the error on held-out images.

    Returns:
        "search": method -> the best of every repetition, "brute force" of its one run, and "any",
        the mean over the random configurations of every repetition; "search, so far": method ->
        the best after each evaluation, in the first repetition; "evaluations": method -> how many
        in every repetition; "config": "found" -> its eight widths.
    """
    here = domain, settings, seed, cache_dir
    runs = {
        method: [search(*here, method, one) for one in range(settings.searches)]
        for method in ("evolution", "random")
    }
    listed = search(*here, "brute_force")
    most = most_evaluations(settings)
    scores = {method: [one.score for one in found] for method, found in runs.items()}
    counts = {method: [float(len(one.scores)) for one in found] for method, found in runs.items()}
    return {
        "search": scores | {
            "brute force": listed.score,
            "any": [float(np.mean(list(one.scores.values()))) for one in runs["random"]],
        },
        "search, so far": {method: so_far(found[0], most) for method, found in runs.items()},
        "evaluations": counts | {"brute force": float(len(listed.scores))},
        "config": {"found": [float(width) for width in best(*here)]},
    }  # fmt: skip


def measure_spread(domain: Domain, settings: Settings, seed: int, cache_dir: Path) -> Measured:
    """Supernets of one teacher that differ in their random numbers alone.

    Returns:
        "spread, held": "supernet 0", ... -> what evolution found in it, on held-out images;
        "spread, error": the same on test images; "spread, exact": its multiply-accumulates;
        "spread, config": its widths; "spread, largest" and "spread, smallest": the error of these
        configurations on test images.
    """
    data = pairs_of(domain, settings, cache_dir)
    inputs, error = data.a(data.a_test), error_of(data, eyes(domain, settings, cache_dir))
    found: dict[str, Measured] = {}
    for number in range(settings.supernets):
        made = train_supernet(domain, settings, seed, cache_dir, number)
        result = search(domain, settings, seed, cache_dir, number=number)
        ends = {"error": result.best, "largest": made.space.largest(),
                "smallest": made.space.smallest()}  # fmt: skip
        found[f"supernet {number}"] = {
            name: error(gan.translated(made.network, inputs, config))
            for name, config in ends.items()
        } | {
            "held": result.score,
            "exact": result.cost,
            "config": [float(width) for width in result.best],
        }
    return {f"spread, {name}": values for name, values in _by_measure(found).items()}


def all_pictures(
    data: Translation, networks: Mapping[str, nn.Module], numbers: Sequence[int]
) -> dict[str, Tensor]:
    """Test inputs, what networks make of them, and the truth where there is one: uint8."""
    places = torch.as_tensor(list(numbers))
    inputs = data.a_test[places]
    shown = {"input": inputs}
    for name, one in networks.items():
        shown[name] = as_levels(gan.translated(one, data.a(inputs)))
    return shown | ({"truth": data.b_test[places]} if data.aligned else {})


def pictures(
    domain: Domain,
    settings: Settings,
    seed: int,
    names: Sequence[str],
    cache_dir: Path,
    count: int = 6,
) -> dict[str, Tensor]:
    """The first test inputs, what networks make of them, and the truth where there is one.

    Args:
        domain, settings, seed, cache_dir: see `learners.alone`.
        names: of networks: all of them with pairs, or all of them without.
        count: how many inputs; fewer if there are no more.

    Returns:
        "input", names, "truth" -> uint8 (count, channels, height, width).
    """
    loosely = [name for name in names if name in loose_names()]
    if loosely and len(loosely) < len(names):
        raise ValueError(f"names must be all with pairs or all without; got {', '.join(names)}")
    data = domain.loose if loosely else pairs_of(domain, settings, cache_dir)
    made = {name: network(domain, settings, seed, name, cache_dir) for name in names}
    return all_pictures(data, made, range(min(count, len(data.a_test))))
