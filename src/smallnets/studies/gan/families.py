"""One small example each of the families that the chapter does not study: GauGAN and MUNIT, from a
teacher to an exported network.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from smallnets import gan
from smallnets.data.scenes import coloured, scenes
from smallnets.data.translation import Translation, as_levels
from smallnets.gan.networks import (
    ConfigSpace,
    Cost,
    MUNITDiscriminator,
    MUNITGenerator,
    SPADEDiscriminator,
    SPADEGenerator,
    SuperMUNITGenerator,
    SuperSPADEGenerator,
    assemble,
    initialise,
)
from smallnets.studies.gan.domain import Domain
from smallnets.studies.gan.learners import Config, eyes, settled
from smallnets.studies.gan.own import compress_own
from smallnets.studies.gan.plan import Settings, width
from smallnets.studies.gan.together import Job, side_by_side
from smallnets.studies.seeds import teacher_seed
from smallnets.training import seeded

BUDGET = 0.25  # of the teacher's true multiply-accumulates
SEARCH = gan.Evolution(population=4, generations=2)
CALIBRATION = 32  # images from which BatchNorm's statistics are found
STYLES = 2  # random styles that are shown of MUNIT
OWN_SEEDS = (60, 61)  # numbers of their teachers' seeds


@dataclass(frozen=True, eq=False)
class Family:
    """A teacher, and the best of its supernet within the budget.

    Attributes:
        data: what was learned; the images on which the network was chosen are its test part.
        teacher, network: both in evaluation mode.
        config: the widths of the network.
        costs: of one image, of the teacher and of the network.
    """

    data: Translation
    teacher: nn.Module
    network: nn.Module
    config: Config
    costs: tuple[Cost, Cost]


def spade(domain: Domain, settings: Settings, cache_dir: Path, seed: int = 0) -> Family:
    """GauGAN: label maps to pictures, with feature matching, a perceptual loss on the network that
    reads label maps, and BatchNorm's statistics found anew for every configuration.

    Args:
        domain, settings, cache_dir, seed: see `learners.alone`; scenes only.
    """
    data = _scenes("semantic", domain, settings, 0)
    start, ngf = teacher_seed(seed, OWN_SEEDS[0]), settings.family_ngf
    reader = copy.deepcopy(eyes(domain, settings, cache_dir))
    perceptual = gan.PerceptualLoss(reader, ["first", "second", "third"]).eval()
    labels, out = data.a_channels, data.b_channels
    with seeded(start):
        teacher = SPADEGenerator(labels, out, ngf, upsampling="normal")
        judge = SPADEDiscriminator(labels + out, ngf, 3, 2)
        student = SuperSPADEGenerator(labels, out, ngf, upsampling="normal")
        for one in (teacher, judge, student):
            initialise(one, "xavier")
        maps = gan.feature_maps(student, teacher)
    rate = settings.families.lr
    training = replace(settings.families, lr=rate / 2, lr_discriminator=2 * rate, betas=(0.0, 0.9))
    game = gan.GauGANTeacher(teacher, judge, perceptual=perceptual)
    gan.train_teacher(game, data, training, seed=start, cache_dir=cache_dir)
    settled(teacher, judge)
    learning = gan.SPADECompression(
        student, copy.deepcopy(judge), teacher, maps, _space(student.full_config, settings),
        perceptual=perceptual,
    )  # fmt: skip
    return _compressed(learning, data, training, settings, seed, cache_dir)


def munit(domain: Domain, settings: Settings, cache_dir: Path, seed: int = 0) -> Family:
    """MUNIT: label maps in colours to pictures of more than one style.

    Args:
        domain, settings, cache_dir, seed: see `learners.alone`; scenes only.
    """
    data = _scenes("styles", domain, settings, 1)
    start, ngf = teacher_seed(seed, OWN_SEEDS[1]), settings.family_ngf

    def generator(kind: type[MUNITGenerator]) -> MUNITGenerator:
        made = kind(data.a_channels, ngf, style_dim=4, mlp_dim=8 * ngf, n_res=2)
        initialise(made, "kaiming")
        return made

    with seeded(start):
        of_a, of_b = generator(MUNITGenerator), generator(MUNITGenerator)
        judges = [MUNITDiscriminator(3, ngf, 2, 2) for _ in range(2)]
        for one in judges:
            initialise(one)
        student = generator(SuperMUNITGenerator)
    game = gan.MUNITTeacher(of_a, of_b, *judges)
    gan.train_teacher(game, data, settings.families, seed=start, cache_dir=cache_dir)
    settled(of_a, of_b, *judges)
    teacher = assemble(of_a, of_b)
    with seeded(start):
        maps = gan.feature_maps(student, teacher)
    learning = gan.MUNITCompression(
        student, copy.deepcopy(judges[1]), teacher, maps, _space(student.config, settings)
    )
    return _compressed(learning, data, settings.families, settings, seed, cache_dir)


def _scenes(kind: str, domain: Domain, settings: Settings, place: int) -> Translation:
    """Scenes with held-out training images in the place of test images."""
    if not domain.drawn:
        raise ValueError(f"domain must be of scenes, which come in all kinds; got {domain.name}")
    train, size = settings.family_train[place], settings.family_sizes[place]
    return scenes(kind, train=train, test=8, size=size).held_out(train // 10)


def _space(full: Config, settings: Settings) -> ConfigSpace:
    return ConfigSpace(
        tuple(
            tuple(sorted({width(share, one) for share in settings.shares}, reverse=True))
            for one in full
        )
    )


def _compressed(
    learning: gan.compression.Student,
    data: Translation,
    training: gan.GANTraining,
    settings: Settings,
    seed: int,
    cache_dir: Path,
) -> Family:
    """Supernet, search within the budget, and export."""
    teacher, student, space = learning.teacher, learning.student, learning.space
    assert isinstance(teacher, SPADEGenerator | MUNITGenerator)
    assert isinstance(student, SuperSPADEGenerator | SuperMUNITGenerator)
    assert space is not None
    calibration = (
        gan.calibration_batches(data, CALIBRATION) if isinstance(teacher, SPADEGenerator) else []
    )
    inputs = data.a(data.a_test)
    target = data.b(data.b_test) if data.paired else gan.translated(teacher, inputs)
    gan.train_supernet(learning, data, training, seed=seed, cache_dir=cache_dir)
    settled(student)
    score = gan.score_of(student, inputs, gan.Distance(target), calibration=calibration)
    whole = teacher.cost(data.size)
    found = gan.search_supernet(
        student, space, score, BUDGET * whole.exact, data.size,
        settings=SEARCH, seed=seed, cache_dir=cache_dir,
    )  # fmt: skip
    network = gan.export(student, found.best, calibration=calibration, cache_dir=cache_dir)
    return Family(data, teacher.eval(), network, found.best,
                  (whole, student.cost(found.best, data.size)))  # fmt: skip


FAMILIES: dict[str, Callable[[Domain, Settings, Path], Family]] = {"SPADE": spade, "MUNIT": munit}


def family_jobs(domain: Domain, settings: Settings, cache_dir: Path) -> list[Job]:
    """What trains and keeps both of them (not for a file) and the generator of `compress_own`; the
    longest first.
    """
    drawn = FAMILIES.values() if domain.drawn else ()
    jobs: list[Job] = [partial(one, domain, settings, cache_dir) for one in drawn]
    return [*jobs, partial(compress_own, domain, settings, cache_dir)]


def train_families(domain: Domain, settings: Settings, cache_dir: Path) -> None:
    """Run `family_jobs` side by side."""
    side_by_side(family_jobs(domain, settings, cache_dir), "families")


def family_pictures(
    domain: Domain, settings: Settings, cache_dir: Path, count: int = 3
) -> dict[str, dict[str, Tensor]]:
    """What teachers and compressed networks make of the first test inputs.

    Args:
        domain: for a file there are none.
        settings, cache_dir: see `learners.alone`.
        count: of inputs.

    Returns:
        Family -> row -> uint8 (count, 3, height, width): "input", then "teacher" and "compressed",
        for MUNIT each with "style 1", ..., the same random styles for both; "truth" for SPADE.
    """
    if not domain.drawn:
        return {}
    shown = {}
    for name, make in FAMILIES.items():
        made = make(domain, settings, cache_dir)
        inputs = made.data.a_test[:count]
        rows = {"input": _seen(made.data, count)}
        for who, one in (("teacher", made.teacher), ("compressed", made.network)):
            rows |= _made(who, one, made.data.a(inputs))
        shown[name] = rows | ({"truth": made.data.b_test[:count]} if made.data.paired else {})
    return shown


def _seen(data: Translation, count: int) -> Tensor:
    """Inputs as pictures."""
    if not data.one_hot:
        return data.a_test[:count]
    assert data.labels_test is not None
    return coloured(data.labels_test[:count])


def _made(who: str, one: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """A network's pictures; of several styles if it has styles."""
    if not isinstance(one, MUNITGenerator):
        return {who: as_levels(gan.translated(one, inputs))}
    draw = torch.Generator().manual_seed(0)
    styles = torch.randn(STYLES, one.style_dim, 1, 1, generator=draw)
    with torch.no_grad():
        return {
            f"{who}, style {number + 1}": as_levels(
                one(inputs, style=style.expand(len(inputs), -1, -1, -1))
            )
            for number, style in enumerate(styles)
        }
