"""Sizes and schedules of the study at four scales."""

from dataclasses import dataclass, field, replace
from typing import Any

from smallnets import checks
from smallnets.data import Augmentation, Dataset
from smallnets.distill.single_image import (
    PUBLISHED,
    Imitation,
    PatchSettings,
    TrainingView,
)
from smallnets.studies.study import SizedOptions, SizedSettings, enough_images, open_study
from smallnets.training import TrainSettings


@dataclass(frozen=True, kw_only=True)
class Settings(SizedSettings):
    """Sizes of the chapter's experiments. Teacher and student have one architecture.

    Attributes:
        teaching: of teachers, on the labels of real images.
        training: of students; an epoch is `steps` steps.
        steps: of a student's epoch.
        imitation: what students are asked for.
        patches: how they are cut; size and channels follow the data.
        sources: names of the pictures to be compared, see `source_names`.
        dense, sparse: those of them that are full of things, and those that are nearly empty.
        page: the picture of print.
        candidates: pictures whose patches the teacher is asked about before any training.
        asked: patches of each that it is asked about.
        narrow, wide: networks of further students.
        pools: patches that students are shown again and again, from few to many.
        few, many: real images that one photograph is compared with.
        length: of the longer training, as a multiple of the students' epochs.
        thorough: whether students are trained that only claims need.
        further: whether one seed of every other student is trained, too.
        counts: further numbers of real images.
        temperatures, mixings, losses: of further students.
        others: networks of further students, of other depths.
        foreign: data set whose images are shown to a further student; None leaves it out.
        frames: of a clip.
        clips: real clips that the teacher of movements learns from, made of still images.
        clip_width: of the networks for clips.
        clip_teaching, clip_training: of teacher and student.
        clip_steps: of a student's epoch.
        recordings: of spoken words, to train on and to test on.
        seconds: of the one long clip.
        speech_network: of teachers and students.
        speech_teaching, speech_training: of both.
        speech_steps: of a student's epoch.
    """

    teaching: TrainSettings
    training: TrainSettings
    steps: int
    imitation: Imitation
    patches: PatchSettings = field(default_factory=PatchSettings)
    sources: tuple[str, ...] = ("astronaut", "chelsea", "noise")
    dense: tuple[str, ...] = ("astronaut", "china")
    sparse: tuple[str, ...] = ("chelsea", "hubble")
    page: str = "page"
    candidates: tuple[str, ...] = (
        "astronaut", "china", "coffee", "chelsea", "hubble", "noise", "blank",
    )  # fmt: skip
    asked: int = 2000
    narrow: str = "convnet-8"
    wide: str = "convnet-32"
    pools: tuple[int, ...] = (100, 1000)
    few: int = 10
    many: int = 1000
    length: float = 2.0
    thorough: bool = False
    further: bool = False
    counts: tuple[int, ...] = (100,)
    temperatures: tuple[float, ...] = (1.0, 2.0, 20.0)
    mixings: tuple[str, ...] = ("none", "cutmix_reverse", "mixup")
    losses: tuple[str, ...] = ("l2", "l1", "top_k")
    others: tuple[str, ...] = ("resnet-8-8", "wrn-10-1")
    foreign: str | None = "glyphs10"
    frames: int = 6
    clips: int = 1000
    clip_width: int = 8
    clip_teaching: TrainSettings = field(default_factory=TrainSettings)
    clip_training: TrainSettings = field(default_factory=TrainSettings)
    clip_steps: int = 20
    recordings: tuple[int, int] = (600, 300)
    seconds: float = 60.0
    speech_network: str = "convnet-16"
    speech_teaching: TrainSettings = field(default_factory=TrainSettings)
    speech_training: TrainSettings = field(default_factory=TrainSettings)
    speech_steps: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("pools", "counts", "recordings"):
            checks.each(name, getattr(self, name), checks.whole, 1)
        for name in ("steps", "clip_steps", "speech_steps", "asked", "few", "clips", "clip_width"):
            checks.whole(name, getattr(self, name), 1)
        checks.whole("many", self.many, self.few)
        checks.whole("frames", self.frames, 2)
        checks.each("temperatures", self.temperatures, checks.above, 0)
        checks.at_least("length", self.length, 1)
        checks.above("seconds", self.seconds, 0)


def _teaching(epochs: int, batch_size: int = 64, lr: float = 0.1) -> TrainSettings:
    """On labels. For networks as small as these, bfloat16 is no faster."""
    return TrainSettings(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        warmup_epochs=epochs / 8,
        augmentation=Augmentation(crop=2),
        precision="32-true",
    )


def _imitating(epochs: int, batch_size: int = 128, lr: float = 2e-2) -> TrainSettings:
    """On patches; the published constant rate of 1e-3 needs many more steps.

    No weight decay, as published: beside gradients at temperature 8 it would count for much.
    """
    return TrainSettings(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        weight_decay=0.0,
        optimizer="adam",
        precision="32-true",
    )


# CutMix's Beta(1, 1) instead of the published Beta(0.25, 0.25), which leaves most batches of short
# trainings unmixed; and a quarter of the padding, as images have a quarter of the pixels.
_ASKED = Imitation(mixing="cutmix", alpha=1.0, view=TrainingView(padding=2))

_SMALL = Settings(
    network="convnet-16",
    resolution=16,
    train=6000,
    test=2000,
    seeds=1,
    teaching=_teaching(30),
    training=_imitating(10),
    steps=50,
    imitation=_ASKED,
    clip_teaching=_teaching(8, 50),
    clip_training=_imitating(8, 32),
    speech_teaching=_teaching(15, 50),
    speech_training=_imitating(8, 64),
)

PRESETS = {
    "smoke": replace(
        _SMALL,
        train=320,
        test=100,
        network="convnet-4",
        narrow="convnet-3",
        wide="convnet-6",
        teaching=_teaching(2, 32),
        training=_imitating(2, 16),
        steps=3,
        sources=("astronaut", "noise"),
        asked=64,
        pools=(20, 40),
        many=40,
        clips=40,
        clip_width=4,
        clip_teaching=_teaching(2, 16),
        clip_training=_imitating(2, 8),
        clip_steps=2,
        recordings=(40, 20),
        seconds=8.0,
        speech_network="convnet-4",
        speech_teaching=_teaching(2, 16),
        speech_training=_imitating(2, 8),
        speech_steps=2,
    ),
    "small": _SMALL,
    "evidence": replace(
        _SMALL,
        seeds=8,
        thorough=True,
        further=True,
        sources=("astronaut", "china", "coffee", "chelsea", "hubble", "noise", "blank"),
        pools=(100, 1000, 10_000),
        teaching=_teaching(60),
        training=_imitating(60),
        steps=40,
        clip_teaching=_teaching(20, 50),
        clip_training=_imitating(50, 32),
        clip_steps=20,
        speech_teaching=_teaching(40, 50),
        speech_training=_imitating(50, 64),
        speech_steps=30,
        seconds=300.0,
    ),
    # CIFAR at its published size: Wide ResNets, a pool of 50,000, Adam with a constant rate.
    "paper": replace(
        _SMALL,
        network="wrn-16-4",
        resolution=32,
        train=None,
        test=None,
        seeds=1,
        thorough=True,
        further=True,
        sources=("astronaut", "china", "coffee", "chelsea", "hubble", "noise", "blank"),
        narrow="wrn-16-2",
        wide="wrn-16-8",
        others=("wrn-40-4",),
        pools=(1000, 50_000),
        teaching=TrainSettings(
            epochs=200, batch_size=128, lr=0.1, augmentation=Augmentation(crop=4)
        ),
        training=TrainSettings(
            epochs=1000, batch_size=512, lr=1e-3, weight_decay=0.0, schedule="constant",
            optimizer="adam", precision="32-true",  # soft answers are told by their third digits
        ),
        steps=97,
        imitation=PUBLISHED["small"],
        clip_width=32,
        clip_teaching=_teaching(40, 50),
        clip_training=_imitating(40, 64),
        clip_steps=200,
        speech_network="resnet-8-32",
        speech_teaching=_teaching(60, 50),
        speech_training=_imitating(40, 64),
        speech_steps=400,
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options(SizedOptions):
    """What a reader may ask for.

    Attributes:
        epochs: of a student's training; all others change in proportion.
    """


def prepare(name: str, scale: str, options: Options = Options()) -> tuple[Dataset, Settings]:
    """The data set and the settings of a run: a preset, with what was asked for in its place.

    Raises:
        ValueError: unknown names, numbers out of range, or too few images for the scale.
    """
    dataset, settings = open_study(name, scale, PRESETS, options)
    enough_images(dataset, 100)
    if options.epochs is not None:
        share = checks.whole("epochs", options.epochs, 1) / settings.training.epochs
        longer: dict[str, Any] = {
            field: training.with_epochs(max(1, round(training.epochs * share)))
            for field, training in vars(settings).items()
            if isinstance(training, TrainSettings)
        }
        settings = replace(settings, **longer)
    images = len(dataset.y_train)
    batch: dict[str, Any] = {
        field: replace(training, batch_size=min(training.batch_size, images // 2))
        for field, training in vars(settings).items()
        if field.endswith("teaching")
    }
    return dataset, replace(
        settings,
        **batch,
        patches=replace(settings.patches, size=min(dataset.size), channels=dataset.channels),
        many=min(settings.many, images),
        foreign=None if name == settings.foreign else settings.foreign,
    )
