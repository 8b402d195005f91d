"""The networks of the study: teachers, decomposed ones, supernets, students.

Whatever is trained is kept, so a network that is asked for twice is trained once. Within a process
it is even the same object: copy what you want to change.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from smallnets import gan
from smallnets.data.translation import Translation, as_levels
from smallnets.gan.networks import (
    MOBILE,
    ConfigSpace,
    PatchDiscriminator,
    ResNetGenerator,
    SuperResNetGenerator,
    initialise,
    prune_by_l1,
)
from smallnets.studies.gan.domain import Domain
from smallnets.studies.gan.plan import Settings, space_of, width
from smallnets.studies.seeds import teacher_seed
from smallnets.surgery import batch_norms
from smallnets.training import seeded
from smallnets.training.checkpoint import History

Config = tuple[int, ...]
DECOMPOSED = {
    "blocks": MOBILE,
    "up": ("up",),
    "everything": ("down", "blocks", "up"),
}  # name -> parts with separable convolutions
STUDENTS = {
    "student": (False, False),
    "student + features": (True, False),
    "student + D": (False, True),
    "student + both": (True, True),
}  # name -> whether features are distilled, and whether the discriminator is inherited
LOOSE = {
    "GAN only": (False, False),
    "pseudo pairs": (True, False),
    "pseudo pairs + features": (True, True),
}  # name -> whether the teacher's images are the target, and whether features are distilled
NARROWED = 0.75  # of ngf: the student that the full pipeline distils, 48 of 64 as published
REMEMBERED = 12  # networks of each kind that a process holds
CYCLE, FIRST_SUPERNET, FIRST_SEARCH = 1, 1, 100  # numbers of a seed's further networks, draws


class Trained(NamedTuple):
    """A generator, its discriminator, and the log of their training."""

    network: ResNetGenerator
    judge: nn.Module
    history: History


class Super(NamedTuple):
    """A trained supernet, the game that it was trained by, its space, and its training's log."""

    network: SuperResNetGenerator
    game: gan.Compression
    space: ConfigSpace
    history: History


class Lesson(NamedTuple):
    """What is learned from, and how good images of what was held out are."""

    data: Translation  # its test part: training images that were held out
    inputs: Tensor  # (n, channels, height, width) of these
    error: Callable[[Tensor], float] | None  # of images of these inputs; None without pairs


@dataclass(frozen=True, eq=False)
class LabelError:
    """The share of label maps that is not found again in images: 1 - mIoU; less is better."""

    iou: gan.MeanIoU

    def __call__(self, images: Tensor) -> float:
        return 1 - self.iou(images) / 100


@dataclass(frozen=True, eq=False)
class Watched:
    """The error of a generator's images of held-out inputs, after every epoch."""

    network: nn.Module
    inputs: Tensor
    error: Callable[[Tensor], float]

    def __call__(self) -> dict[str, float]:
        return {"held out": self.error(gan.translated(self.network, self.inputs))}


@lru_cache(REMEMBERED)
def pairs_of(domain: Domain, settings: Settings, cache_dir: Path) -> Translation:
    """Pairs to learn from. Two sets that are none become pairs as the paper makes them: the targets
    are the images of the unpaired teacher, that of the first seed for all.
    """
    if domain.pairs is not None:
        return domain.pairs
    data, teacher = domain.loose, cycle_teacher(domain, settings, 0, cache_dir).network
    made = [as_levels(gan.translated(teacher, data.a(a))) for a in (data.a_train, data.a_test)]
    return Translation(
        f"{data.name}, pseudo pairs", data.a_train, made[0], data.a_test, made[1], paired=True,
        flips=data.flips,
    )  # fmt: skip


@lru_cache(REMEMBERED)
def lesson(domain: Domain, settings: Settings, cache_dir: Path, loose: bool = False) -> Lesson:
    """The training part in two, and the error by which configurations are chosen.

    Args:
        domain, settings, cache_dir: see `alone`.
        loose: of the sets without pairs.
    """
    data = domain.loose if loose else pairs_of(domain, settings, cache_dir)
    parts = data.held_out(settings.held_out)
    error = None
    if parts.aligned:
        error = error_of(parts, eyes(domain, settings, cache_dir, loose))
    return Lesson(parts, parts.a(parts.a_test), error)


def error_of(data: Translation, reader: gan.LabelReader) -> Callable[[Tensor], float]:
    """How bad images of the test inputs are: `LabelError` where there are label maps, else the
    distance from the truth.
    """
    if data.labels_test is None:
        return gan.Distance(data.b(data.b_test))
    return LabelError(gan.MeanIoU(reader.labels, data.labels_test, len(data.class_names)))


def settled(*networks: nn.Module) -> None:
    """Leave nothing of their training behind: they are named as if they had been read from disk."""
    for network in networks:
        network.eval().zero_grad(set_to_none=True)


class Criterion(NamedTuple):
    """What an error is: for axes and tables."""

    name: str
    factor: float  # in which unit it is shown
    unit: str


def criterion(domain: Domain) -> Criterion:
    """What `error_of` gives for the pairs of a domain."""
    if domain.pairs is not None and domain.pairs.labels_test is not None:
        return Criterion("label map not found again", 100.0, "%")
    return Criterion("distance", 127.5, "grey levels")


@lru_cache(REMEMBERED)
def eyes(
    domain: Domain, settings: Settings, cache_dir: Path, loose: bool = False
) -> gan.LabelReader:
    """A network that looks at pictures of domain B: one that has learned to read the label maps of
    those that are learned from; where there are none, an untrained one, whose features still tell
    colours and textures apart.

    Args:
        domain, settings, cache_dir, loose: see `lesson`.
    """
    data = domain.loose if loose else pairs_of(domain, settings, cache_dir)
    if data.labels_train is not None:
        known = data.held_out(settings.held_out)
        reader, _ = gan.train_reader(
            known, settings.reading, width=settings.reader_width, cache_dir=cache_dir
        )
        settled(reader)
        return reader
    with seeded(0), torch.no_grad():
        reader = gan.LabelReader(2, data.b_channels, settings.reader_width)
        for norm in batch_norms(reader):
            norm.momentum = None  # a plain mean over what follows
        for part in data.b(data.b_train[:256]).split(32):
            reader(part)
    return reader.eval()


def discriminator(channels: int, size: tuple[int, int], ndf: int) -> nn.Module:
    """A PatchGAN with as many layers as the images have room for."""
    layers = next((n for n in (3, 2) if min(size) >= 8 * 2**n), 1)
    return initialise(PatchDiscriminator(channels, ndf, layers))


@lru_cache(REMEMBERED)
def alone(
    domain: Domain,
    settings: Settings,
    seed: int,
    cache_dir: Path,
    *,
    parts: tuple[str, ...] = (),
    config: Config | None = None,
    label: str = "teacher",
) -> Trained:
    """A generator that learns from pairs by itself, with a discriminator of its own.

    Args:
        domain, settings, seed, cache_dir: as everywhere in this study: what is translated, how
            much of it, which repetition, and the folder for finished trainings.
        parts: of the generator with separable convolutions, see `ResNetGenerator`.
        config: its eight widths; None is ngf everywhere.
        label: of the kept file.
    """
    here = lesson(domain, settings, cache_dir)
    data = here.data
    start = teacher_seed(seed)
    with seeded(start):
        network = initialise(
            ResNetGenerator(
                data.a_channels, data.b_channels, settings.ngf, settings.n_blocks,
                separable=parts, config=config, kernel_size=settings.kernel_size,
            )
        )  # fmt: skip
        judge = discriminator(data.a_channels + data.b_channels, data.size, settings.ngf)
    assert isinstance(network, ResNetGenerator)
    history = gan.play(
        gan.Pix2PixTeacher(network, judge), data, settings.training, seed=start,
        monitor=watching(network, here), cache_dir=cache_dir, label=label,
    )  # fmt: skip
    settled(network, judge)
    return Trained(network, judge, history)


def watching(network: nn.Module, here: Lesson) -> Watched:
    """A monitor of the held-out part."""
    assert here.error is not None
    return Watched(network, here.inputs, here.error)


def decomposed(
    domain: Domain, settings: Settings, seed: int, name: str, cache_dir: Path
) -> Trained:
    """The teacher's network with separable convolutions in some parts, trained as it is."""
    return alone(domain, settings, seed, cache_dir, parts=DECOMPOSED[name], label="mobile")


def scratch(
    domain: Domain, settings: Settings, seed: int, config: Config, cache_dir: Path
) -> Trained:
    """A mobile generator of these widths, which learns by itself: what compression has to beat."""
    return alone(domain, settings, seed, cache_dir, parts=MOBILE, config=config, label="scratch")


@lru_cache(REMEMBERED)
def train_supernet(
    domain: Domain, settings: Settings, seed: int, cache_dir: Path, number: int = 0
) -> Super:
    """A supernet of the seed's teacher, from nothing, with the teacher's discriminator.

    Args:
        domain, settings, seed, cache_dir: see `alone`.
        number: 0 is the repetition's own; others differ from it in their random numbers alone.
    """
    teacher = alone(domain, settings, seed, cache_dir)
    here = lesson(domain, settings, cache_dir)
    data = here.data
    start = seed if number == 0 else teacher_seed(seed, FIRST_SUPERNET + number)
    with seeded(start):
        network = initialise(
            SuperResNetGenerator(
                data.a_channels, data.b_channels, settings.ngf, settings.n_blocks,
                kernel_size=settings.kernel_size,
            )
        )  # fmt: skip
    assert isinstance(network, SuperResNetGenerator)
    return supernet_of(network, teacher, here, settings, space_of(settings), start, cache_dir)


def supernet_of(
    network: SuperResNetGenerator,
    teacher: Trained,
    here: Lesson,
    settings: Settings,
    space: ConfigSpace,
    start: int,
    cache_dir: Path,
) -> Super:
    """Train a supernet in place, watched at its largest and its smallest configuration."""
    with seeded(start):
        maps = gan.feature_maps(network, teacher.network)
    game = gan.Compression(
        network, copy.deepcopy(teacher.judge), teacher.network, maps, space, ask=settings.ask
    )
    history = gan.train_supernet(
        game, here.data, settings.supernet, seed=start, score=held_score(network, here),
        cache_dir=cache_dir,
    )  # fmt: skip
    settled(network, game.discriminator, maps)
    game.answers.image, game.answers.taps = None, []  # of all training images: large
    return Super(network, game, space, history)


def held_score(network: nn.Module, here: Lesson) -> Callable[[Config], float]:
    """The error of a configuration's images, on held-out inputs."""
    assert here.error is not None
    return gan.score_of(network, here.inputs, here.error)


def tune(
    domain: Domain, settings: Settings, seed: int, config: Config, cache_dir: Path
) -> SuperResNetGenerator:
    """A copy of the seed's supernet of which one configuration has learned further."""
    made = copy.deepcopy(train_supernet(domain, settings, seed, cache_dir))
    data = lesson(domain, settings, cache_dir).data
    gan.fine_tune(made.game, config, data, settings.tuning, seed=seed, cache_dir=cache_dir)
    settled(made.network)
    return made.network


def student(
    domain: Domain,
    settings: Settings,
    seed: int,
    config: Config,
    cache_dir: Path,
    *,
    features: bool = True,
    inherited: bool = True,
) -> Trained:
    """A mobile generator of these widths that learns from pairs and from the teacher.

    Args:
        domain, settings, seed, cache_dir: see `alone`.
        config: its eight widths.
        features: whether the teacher's features are distilled.
        inherited: whether it begins with the teacher's discriminator, rather than with a new one.
    """
    teacher = alone(domain, settings, seed, cache_dir)
    here = lesson(domain, settings, cache_dir)
    data = here.data
    with seeded(seed):
        network = _mobile(data, settings, config)
        maps = gan.feature_maps(network, teacher.network) if features else None
        judge = discriminator(data.a_channels + data.b_channels, data.size, settings.ngf)
    if inherited:
        judge = copy.deepcopy(teacher.judge)
    ask = settings.ask if features else replace(settings.ask, distill=0.0)
    game = gan.Compression(network, judge, teacher.network, maps, ask=ask)
    history = gan.play(
        game, data, settings.training, seed=seed, monitor=watching(network, here),
        cache_dir=cache_dir, label="student",
    )  # fmt: skip
    settled(network, judge)
    return Trained(network, judge, history)


def _mobile(data: Translation, settings: Settings, config: Config) -> ResNetGenerator:
    network = initialise(
        ResNetGenerator(
            data.a_channels, data.b_channels, n_blocks=settings.n_blocks, separable=MOBILE,
            config=config, kernel_size=settings.kernel_size,
        )
    )  # fmt: skip
    assert isinstance(network, ResNetGenerator)
    return network


def full_pipeline(domain: Domain, settings: Settings, seed: int, cache_dir: Path) -> Super:
    """The supernet of the CVPR version: a mobile teacher, of which a narrower student is pruned and
    distilled; with its channels sorted the student is where the supernet starts.
    """
    teacher = decomposed(domain, settings, seed, "blocks", cache_dir)
    here = lesson(domain, settings, cache_dir)
    data = here.data
    narrow = prune_by_l1(teacher.network, width(NARROWED, settings.ngf))
    judge = copy.deepcopy(teacher.judge)
    with seeded(seed):
        maps = gan.feature_maps(narrow, teacher.network)
    game = gan.Compression(narrow, judge, teacher.network, maps, ask=settings.ask)
    history = gan.play(
        game, data, settings.training, seed=seed, cache_dir=cache_dir, label="distilled"
    )
    settled(narrow, judge)
    network = gan.sorted_supernet(narrow, cache_dir=cache_dir)
    shares = tuple(share for share in settings.shares if share <= NARROWED)
    teacher = Trained(teacher.network, judge, history)
    space = space_of(settings, shares or settings.shares[-1:])
    return supernet_of(network, teacher, here, settings, space, seed, cache_dir)


@lru_cache(REMEMBERED)
def cycle_teacher(domain: Domain, settings: Settings, seed: int, cache_dir: Path) -> Trained:
    """A CycleGAN of the seed, without pairs; the generator A -> B and its discriminator stay. There
    are identity terms where both sets have as many channels.

    Args:
        domain, settings, seed, cache_dir: see `alone`.
    """
    data = lesson(domain, settings, cache_dir, loose=True).data
    start, ngf = teacher_seed(seed, CYCLE), settings.loose_ngf

    def generator(into: int, out: int) -> nn.Module:
        made = ResNetGenerator(into, out, ngf, settings.n_blocks, kernel_size=settings.kernel_size)
        return initialise(made)

    a, b = data.a_channels, data.b_channels
    with seeded(start):
        forth, back = generator(a, b), generator(b, a)
        judge_a, judge_b = (discriminator(channels, data.size, ngf) for channels in (a, b))
    assert isinstance(forth, ResNetGenerator)
    game = gan.CycleGANTeacher(forth, back, judge_a, judge_b, identity=0.5 if a == b else 0.0)
    history = gan.play(game, data, settings.loose, seed=start, cache_dir=cache_dir, label="cycle")
    settled(forth, judge_b)
    return Trained(forth, judge_b, history)


def loose_student(
    domain: Domain, settings: Settings, seed: int, name: str, cache_dir: Path
) -> Trained:
    """A narrow mobile generator of the unpaired teacher, with one discriminator, inherited.

    Args:
        domain, settings, seed, cache_dir: see `alone`.
        name: one of `LOOSE`.
    """
    pseudo, features = LOOSE[name]
    teacher = cycle_teacher(domain, settings, seed, cache_dir)
    data = lesson(domain, settings, cache_dir, loose=True).data
    config = (width(settings.student_share, settings.loose_ngf),) * 8
    with seeded(seed):
        network = _mobile(data, settings, config)
        maps = gan.feature_maps(network, teacher.network) if features else None
    ask = settings.ask_loose
    ask = replace(ask, recon=ask.recon if pseudo else 0.0, distill=ask.distill if features else 0.0)
    judge = copy.deepcopy(teacher.judge)
    game = gan.Compression(network, judge, teacher.network, maps, ask=ask, paired=False)
    history = gan.play(
        game, data, settings.student, seed=seed, cache_dir=cache_dir, label="unpaired"
    )
    settled(network, judge)
    return Trained(network, judge, history)
