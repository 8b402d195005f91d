"""The published trainings, by task: section 5 of the chapter, from the official scripts.

`full` is the pipeline of CVPR 2020, with a mobile teacher, a narrower supernet and brute force;
`fast` that of the journal, with the original generator as teacher, a supernet of full width from
nothing, and evolution.
"""

from dataclasses import dataclass

from smallnets.gan.objectives import (
    PUBLISHED,
    MUNITObjective,
    Objective,
    SPADEObjective,
)
from smallnets.gan.playing import GANTraining
from smallnets.gan.search import Evolution


@dataclass(frozen=True)
class Recipe:
    """How a task was trained.

    Attributes:
        objective: of the student.
        ndf: width of the discriminator.
        ngf: width of the supernet.
        space: name among `smallnets.gan.networks.PUBLISHED_SPACES`.
        supernet: its training.
        teacher, distilling: of the mobile teacher and of the pruned student before the supernet;
            None in the fast pipeline.
        fine_tuning: None where it was left out.
        budget: of published multiply-accumulates; None where brute force took all.
        search: of the fast pipeline.
        ratio: of the first generation's bias to small widths; 1 is none.
    """

    objective: Objective | SPADEObjective | MUNITObjective
    ndf: int
    ngf: int
    space: str
    supernet: GANTraining
    teacher: GANTraining | None = None
    distilling: GANTraining | None = None
    fine_tuning: GANTraining | None = None
    budget: float | None = None
    search: Evolution | None = None
    ratio: float = 1.0


def _epochs(constant: int, decay: int, batch: int = 1) -> GANTraining:
    return GANTraining(epochs=constant, decay_epochs=decay, batch_size=batch, load=286, crop=256)


def _spade(constant: int, decay: int, batch: int) -> GANTraining:
    """Two rates (TTUR): half of 2e-4 for the generator and twice of it for the discriminator."""
    return GANTraining(
        epochs=constant, decay_epochs=decay, batch_size=batch, lr=1e-4, lr_discriminator=4e-4,
        betas=(0.0, 0.9),
    )  # fmt: skip


RECIPES = {
    "horse2zebra full": Recipe(
        PUBLISHED["horse2zebra"], 64, 32, "resnet:channels-32", _epochs(200, 200),
        _epochs(100, 100), _epochs(100, 100),
    ),
    "horse2zebra fast": Recipe(
        PUBLISHED["horse2zebra"], 64, 64, "resnet:channels-64-cycleGAN", _epochs(200, 200),
        budget=3e9, search=Evolution(mutation=0.4), ratio=2.0,
    ),
    "edges2shoes full": Recipe(
        PUBLISHED["edges2shoes"], 128, 48, "resnet:channels-48", _epochs(10, 30, 4),
        _epochs(5, 15, 4), _epochs(5, 15, 4), _epochs(5, 15, 4),
    ),
    "edges2shoes fast": Recipe(
        PUBLISHED["edges2shoes"], 128, 64, "resnet:channels-64-pix2pix", _epochs(10, 30, 4),
        fine_tuning=_epochs(5, 15, 4), budget=4.9e9, search=Evolution(mutation=0.3),
    ),
    "cityscapes full": Recipe(
        PUBLISHED["cityscapes"], 128, 48, "resnet:channels-48", _epochs(200, 300),
        _epochs(100, 150), _epochs(100, 150), _epochs(100, 150),
    ),
    "cityscapes fast": Recipe(
        PUBLISHED["cityscapes"], 128, 64, "resnet:channels-64-pix2pix", _epochs(200, 300),
        budget=5.7e9, search=Evolution(),
    ),
    "map2sat full": Recipe(
        PUBLISHED["map2sat"], 128, 48, "resnet:channels-48", _epochs(200, 400),
        _epochs(100, 200), _epochs(100, 200), _epochs(100, 200),
    ),
    "map2sat fast": Recipe(
        PUBLISHED["map2sat"], 128, 64, "resnet:channels-64-pix2pix", _epochs(200, 400),
        fine_tuning=_epochs(100, 200), budget=4.6e9, search=Evolution(),
    ),
    "gaugan cityscapes full": Recipe(
        SPADEObjective(), 64, 48, "spade:channels-48", _spade(100, 100, 16),
        _spade(100, 100, 16), _spade(100, 100, 16), budget=35e9,
    ),
    "gaugan cityscapes fast": Recipe(
        SPADEObjective(), 64, 64, "spade:channels-64", _spade(200, 200, 16), budget=32e9,
        search=Evolution(),
    ),
    "gaugan coco fast": Recipe(
        SPADEObjective(), 64, 64, "spade:channels-64-coco", _spade(100, 0, 32),
        fine_tuning=_spade(100, 0, 32), budget=36e9, search=Evolution(),
    ),
}  # fmt: skip


def munit_recipe(images: int) -> Recipe:
    """MUNIT's, which counts two million steps and not epochs.

    Args:
        images: of domain A.
    """
    training = GANTraining(
        epochs=max(1, 2_000_000 // images), decay_epochs=0, lr=1e-4, weight_decay=1e-4,
        policy="halving", halve_every=200_000,
    )  # fmt: skip
    return Recipe(
        MUNITObjective(), 64, 64, "munit:channels-64", training, budget=2.7e9, search=Evolution()
    )
