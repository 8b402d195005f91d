"""Sizes of the experiments, by scale, and what a reader asked for in their place."""

from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path

from smallnets import checks
from smallnets.data import Augmentation, Dataset
from smallnets.data.sets import RESIZED
from smallnets.search.lana.latency import LatencyTable
from smallnets.search.lana.operations import FULL_POOL, parsed
from smallnets.studies.study import Options as StudyOptions
from smallnets.studies.study import StudySettings, enough_images, open_study
from smallnets.training import TrainSettings

LATENCIES = ("auto", "stored", "measured")
TUNED = (
    "teacher, longer", "three quarters", "half", "third", "as the sibling", "half, labels only",
    "half, random", "third, small pool", "third, skip only",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Settings(StudySettings):
    """Sizes of the chapter's experiments.

    Attributes:
        teacher: name of the network that is made faster, see `smallnets.studies.lana.networks`.
        sibling: a smaller network of its family; its latency is a budget, besides three quarters,
            a half and a third of the teacher's.
        pool: operations of every layer, besides the teacher's.
        small_pool: a part of it.
        judged: training images on which candidates and students are judged.
        solutions: diverse solutions of a programme that are judged.
        overlap: share of the layers in which two of them may agree.
        sampled: random networks of the study of additivity, and of every budget's comparison.
        teaching: training of teacher and sibling (the latter also gets the epochs of `tuning`).
        distilling: training of the candidates.
        tuning: training of the chosen network.
        tuned: what is fine-tuned, of `TUNED`.
        time_limit: seconds for each diverse solution but the first; None is no limit, and then what
            is found does not depend on the clock.
        at_once: layers whose candidates are trained together.
        recalibrate: whether everything is scored and judged with BatchNorm statistics of its own on
            the judging images, or with those that stand-ins bring along.
        alpha, temperature: of `tuning_loss`.
        batch: images of a latency measurement.
        rounds: of a latency measurement.
        resized: pixels a side for sets of pictures in many sizes.
        published: file with the teacher's weights, a state dictionary that `torch.save` wrote.
    """

    teacher: str
    sibling: str
    pool: tuple[str, ...]
    small_pool: tuple[str, ...]
    judged: int
    solutions: int
    sampled: int
    teaching: TrainSettings
    distilling: TrainSettings
    tuning: TrainSettings
    tuned: tuple[str, ...] = TUNED
    time_limit: float | None = None
    overlap: float = 0.7
    at_once: int = 1
    recalibrate: bool = True
    alpha: float = 0.5
    temperature: float = 1.0
    batch: int = 16
    rounds: int = 15
    resized: int | None = None
    published: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.tuned:
            checks.one_of("tuned", name, TUNED)


_POOL = (
    "skip", "conv3", "dwsep3", "basic_r0.5", "bottleneck_r0.25_k3", "ir_e1_k3", "ir_e2_k3_se0.25",
    "fused_e1_k3", "lowrank_r0.25_k3",
)  # fmt: skip
_VIEW = Augmentation(crop=2)
_SMALL_POOL = ("skip", "ir_e1_k3", "bottleneck_r0.25_k3")


def _adam(epochs: int, lr: float, batch_size: int = 64) -> TrainSettings:
    """For candidates: no weight decay, which would shrink those whose loss is small."""
    return TrainSettings(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        optimizer="adam",
        weight_decay=0.0,
        augmentation=_VIEW,
    )


def _sgd(epochs: int, lr: float, batch_size: int = 64, warmup: float = 0.1) -> TrainSettings:
    return TrainSettings(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        warmup_epochs=warmup * epochs,
        augmentation=_VIEW,
    )


PRESETS = {
    "smoke": Settings(
        teacher="resnet-14",
        sibling="resnet-8",
        pool=("skip", "ir_e1_k3", "bottleneck_r0.25_k3"),
        small_pool=("skip",),
        train=128,
        test=100,
        judged=32,
        seeds=2,
        solutions=2,
        sampled=4,
        teaching=_sgd(1, 0.1, 32),
        distilling=_adam(1, 3e-3, 32),
        tuning=_sgd(1, 0.02, 32),
        rounds=3,
    ),
    # One seed, since this scale decides nothing; a teacher at its plateau instead.
    "small": Settings(
        teacher="resnet-14",
        sibling="resnet-8",
        pool=_POOL,
        small_pool=_SMALL_POOL,
        train=2240,
        test=2000,
        judged=256,
        seeds=1,
        solutions=8,
        sampled=16,
        teaching=_sgd(22, 0.3),
        distilling=_adam(2, 2e-2),
        tuning=_sgd(6, 0.2),
        tuned=("teacher, longer", "half", "as the sibling", "half, random"),
        rounds=7,
    ),
    # An hour on two cores.
    "evidence": Settings(
        teacher="resnet-20",
        sibling="resnet-8",
        pool=_POOL,
        small_pool=_SMALL_POOL,
        train=4000,
        test=4000,
        judged=512,
        seeds=8,
        solutions=16,
        sampled=32,
        teaching=_sgd(30, 0.3),
        distilling=_adam(2, 2e-2),
        tuning=_sgd(10, 0.2),
    ),
    # The paper's abstract has 197 operations a layer, and the families. All other numbers are ours.
    # A teacher is best read from a file.
    "paper": Settings(
        teacher="efficientnet_b4",
        sibling="efficientnet_b1",
        pool=FULL_POOL[1:],
        small_pool=_SMALL_POOL,
        train=None,
        test=None,
        judged=6000,
        seeds=1,
        solutions=100,
        sampled=100,
        teaching=_sgd(350, 0.5, 256, warmup=0.015),
        distilling=TrainSettings(
            epochs=1,
            batch_size=128,
            lr=0.02,
            weight_decay=0.0,
            schedule="cosine",
            augmentation=_VIEW,
        ),
        tuning=_sgd(100, 0.1, 256, warmup=0.05),
        time_limit=2.0,
        batch=128,
        rounds=100,
        resized=224,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """What a reader may ask for: also how many solutions are judged, and a teacher of one's own.

    Attributes:
        epochs: of the teacher; the other trainings keep their share of it.
        solutions: diverse solutions that are judged.
        overlap: share of the layers in which two of them may agree, in [0, 1].
        published: file with the teacher's weights.
    """

    solutions: int | None = None
    overlap: float | None = None
    published: str | None = None


def prepare(name: str, scale: str, options: Options = Options()) -> tuple[Dataset, Settings]:
    """The data set and the settings of a run: a preset, with what was asked for in its place.

    Raises:
        ValueError: unknown names, numbers out of range, or too few images for the scale.
        FileNotFoundError: `options.published` is not there.
    """
    if options.published is not None and not Path(options.published).is_file():
        raise FileNotFoundError(f"published must be a file of weights; got {options.published!r}")
    resized = PRESETS[scale].resized if scale in PRESETS and name in RESIZED else None
    dataset, settings = open_study(name, scale, PRESETS, options, size=resized)
    if options.solutions is not None:
        settings = replace(settings, solutions=checks.whole("solutions", options.solutions, 1))
    if options.overlap is not None:
        settings = replace(settings, overlap=checks.between("overlap", options.overlap, 0, 1))
    for operation in (*settings.pool, *settings.small_pool):
        parsed(operation)
    trainings = [settings.teaching, settings.distilling, settings.tuning]
    enough_images(dataset, max(one.batch_size for one in trainings))
    if options.epochs is not None:
        share = checks.whole("epochs", options.epochs, 1) / settings.teaching.epochs
        trainings = [one.with_epochs(max(1, round(share * one.epochs))) for one in trainings]
    teaching, distilling, tuning = trainings
    return dataset, replace(
        settings,
        judged=min(settings.judged, len(dataset.y_train)),
        teaching=teaching,
        distilling=distilling,
        tuning=tuning,
        published=options.published,
    )


def stored_table() -> LatencyTable:
    """The latencies that the book's verdicts rest on: measured once, on one core of a server, so
    that they are the same in every run.
    """
    with as_file(files(__package__) / "latencies.json") as path:
        return LatencyTable.load(path)
