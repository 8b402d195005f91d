"""The one shape of all studies: settings with presets, a data set to open, a grid to run.

    data, settings = open_study("glyphs10", "small", PRESETS, Options(seeds=3))
    grid = run_grid(experiment, cells, dataset=data, settings=settings)

Experiments choose nothing by test images: settings are chosen on `Dataset.held_out`, and scores,
judgements and calibration take their images from `Dataset.for_choosing`. Only functions that report
look at test images, and a test names them.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from smallnets import checks
from smallnets.data import Dataset, load
from smallnets.data.resolution import at_resolution
from smallnets.training import TrainSettings, run_parallel

Measures = dict[str, dict[str, float]]
Condition = TypeVar("Condition", bound=Hashable)
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """What the settings of every study have.

    Attributes:
        train, test: images to use of each part; None is all.
        seeds: repetitions of the main comparison. Fields called "..._seeds" are repetitions of
            others.

    Raises:
        ValueError: fewer than one repetition.
    """

    train: int | None
    test: int | None
    seeds: int

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        for name in _repetitions(self):
            checks.whole(name, getattr(self, name), 1)


@dataclass(frozen=True, kw_only=True)
class SizedSettings(StudySettings):
    """Settings of studies of one network, at a resolution of their own.

    Attributes:
        network: its name, see `smallnets.studies.networks.build_network`.
        resolution: side of the images that it sees.
    """

    network: str
    resolution: int


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a reader may ask of every study. None leaves what the preset has.

    Attributes:
        seeds: repetitions; no experiment has more.
        device: "auto", "cpu" or "cuda", of all trainings.
        precision: "auto", "32-true" or "bf16-mixed". Trainings that need an arithmetic of their own
            have it where this is "auto".
        train, test: images of each part.
        epochs: of the main training; the plan says which, and what becomes of the others.
        flips: whether mirrored images keep their label; None asks the data set.
    """

    seeds: int | None = None
    device: str = "auto"
    precision: str = "auto"
    train: int | None = None
    test: int | None = None
    epochs: int | None = None
    flips: bool | None = None


@dataclass(frozen=True, kw_only=True)
class SizedOptions(Options):
    """Also the network and the resolution of `SizedSettings`.

    Attributes:
        network: its name.
        resolution: at most that of the data set.
    """

    network: str | None = None
    resolution: int | None = None


Settings = TypeVar("Settings", bound=StudySettings)


def open_study(
    name: str,
    scale: str,
    presets: Mapping[str, Settings],
    options: Options,
    *,
    size: int | None = None,
    multiple: int = 1,
) -> tuple[Dataset, Settings]:
    """Load the data set and return it with a preset's settings, made to fit it and the options.

    Every `TrainSettings` among the settings gets device and precision, and a view that suits the
    images: no flips where they change the label, crops of at most a quarter of a side. A field
    `held_out` is at most a fifth of the training images. Epochs are left to the plans.

    Args:
        name: of the data set, for `smallnets.data.load`.
        scale: name of a preset.
        presets: scale -> settings.
        options: what a reader asked for.
        size: pixels a side for data sets whose pictures come in many sizes.
        multiple: the resolution of a sized study is one of this number.

    Raises:
        ValueError: an unknown data set or scale, or a number out of range.
    """
    checks.one_of("scale", scale, presets)
    settings = with_seeds(presets[scale], options.seeds)
    dataset = load(
        name,
        train=settings.train if options.train is None else options.train,
        test=settings.test if options.test is None else options.test,
        size=size,
        flips=options.flips,
    )
    changes: dict[str, Any] = {}
    if isinstance(settings, SizedSettings):
        if not isinstance(options, SizedOptions):
            raise ValueError(f"options must have a resolution; got {type(options).__name__}")
        side = min(settings.resolution, *dataset.size) // multiple * multiple
        side = side if options.resolution is None else options.resolution
        dataset = at_resolution(dataset, side)
        if side % multiple:
            raise ValueError(f"resolution must be a multiple of {multiple}; got {side}")
        changes |= {"network": options.network or settings.network, "resolution": side}
    images = len(dataset.y_train)
    if "held_out" in vars(settings):
        changes["held_out"] = min(vars(settings)["held_out"], images // 5)
    changes |= {
        field: _here(training, dataset, options)
        for field, training in vars(settings).items()
        if isinstance(training, TrainSettings)
    }
    return dataset, replace(settings, train=images, test=len(dataset.y_test), **changes)


def _here(training: TrainSettings, dataset: Dataset, options: Options) -> TrainSettings:
    view = training.view
    crop = min(view.crop, *(side // 4 for side in dataset.size))
    own = options.precision == "auto"
    return replace(
        training,
        device=options.device,
        precision=training.precision if own else options.precision,
        augmentation=replace(view, crop=crop, flip=dataset.flips),
    )


def with_seeds(settings: Settings, seeds: int | None) -> Settings:
    """Settings with `seeds` repetitions, and no more of other experiments; None changes nothing.

    Raises:
        ValueError: fewer than one.
    """
    if seeds is None:
        return settings
    checks.whole("seeds", seeds, 1)
    return replace(
        settings,
        **{
            name: seeds if name == "seeds" else min(seeds, getattr(settings, name))
            for name in _repetitions(settings)
        },
    )


def _repetitions(settings: StudySettings) -> list[str]:
    return [f.name for f in fields(settings) if f.name == "seeds" or f.name.endswith("_seeds")]


def enough_images(dataset: Dataset, needed: int, purpose: str = "") -> None:
    """Raise ValueError if there are fewer training images than an experiment needs."""
    checks.at_least(f"number of training images{purpose}", len(dataset.y_train), needed)


def run_grid(
    experiment: Callable[..., Result],
    cells: Mapping[tuple[Condition, int], Mapping[str, Any]],
    *,
    description: str,
    **common: Any,
) -> dict[Condition, list[Result]]:
    """Run one experiment under many conditions and seeds, side by side.

    Args:
        experiment: called once a cell with its arguments, those in `common`, and its seed.
        cells: (condition, seed) -> arguments, in the order in which they are started; the longest
            first leaves no worker alone at the end. `every` makes them.
        description: of the progress bar.
        common: arguments of every call.

    Returns:
        Condition -> one result a seed.

    Raises:
        ValueError: the seeds of a condition do not count from 0.
    """
    seeds: dict[Condition, list[int]] = {}
    for condition, seed in cells:
        seeds.setdefault(condition, []).append(seed)
    for condition, given in seeds.items():
        if given != list(range(len(given))):
            raise ValueError(f"seeds of {condition!r} must count from 0; got {given}")
    jobs = [{**common, **arguments, "seed": seed} for (_, seed), arguments in cells.items()]
    results = run_parallel(experiment, jobs, description=description)
    grid: dict[Condition, list[Result]] = {}
    for (condition, _), result in zip(cells, results, strict=True):
        grid.setdefault(condition, []).append(result)
    return grid


def every(
    conditions: Mapping[Condition, Mapping[str, Any]], seeds: int | Mapping[Condition, int]
) -> dict[tuple[Condition, int], Mapping[str, Any]]:
    """Cells of a grid: every condition with every seed, of which each may have another number."""
    return {
        (condition, seed): arguments
        for condition, arguments in conditions.items()
        for seed in range(seeds if isinstance(seeds, int) else seeds[condition])
    }


def by_seed(grid: Mapping[Condition, Sequence[Result]]) -> list[dict[Condition, Result]]:
    """A grid turned over: one dictionary a seed, condition -> result."""
    seeds = max((len(results) for results in grid.values()), default=0)
    return [
        {condition: results[seed] for condition, results in grid.items() if seed < len(results)}
        for seed in range(seeds)
    ]


def by_measure(found: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Network -> measure -> number, turned over: measure -> network -> number."""
    names = next(iter(found.values()))
    return {name: {network: one[name] for network, one in found.items()} for name in names}


def best_setting(results: Sequence[Measures], kind: str, measure: str = "accuracy") -> float:
    """The number of "KIND NUMBER" with the best mean over seeds, such as 0.1 for "lr" of "lr 0.1".

    Args:
        results: one dictionary a seed, of held-out images.
        kind: what was searched.
        measure: of which the largest mean is best.

    Raises:
        ValueError: nothing of that kind was searched.
    """
    names = [name for name in results[0] if name.startswith(f"{kind} ")]
    checks.one_of("kind", kind, dict.fromkeys(n.split()[0] for n in results[0] if " " in n))
    means = {name: sum(seed[name][measure] for seed in results) for name in names}
    return float(max(means, key=lambda name: means[name]).split()[1])
