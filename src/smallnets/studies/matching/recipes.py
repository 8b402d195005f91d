"""The published recipes: how long, how fast and how warm, for each data set.

From the configurations that the authors released. Common to all: Adam with its gradient clipped at
norm 1, cosine after a linear warm-up, mixup with alpha = 1, inception crops, no labels; the student
is a BiT ResNet-50, the teacher a BiT ResNet-152x2.
"""

from dataclasses import dataclass

from smallnets import checks
from smallnets.training import TrainSettings

PATIENCE = ("fast", "medium", "long")


@dataclass(frozen=True)
class Recipe:
    """One row of the published table.

    Attributes:
        epochs: passes over the transfer images.
        temperature: of the loss.
        lr: peak learning rate.
        weight_decay: share by which kernels shrink a step, at the peak of the schedule.
        batch_size: images a step.
        warmup: steps.
        resolution: of the student's input.
        stored: side at which images are held, of which crops are taken.
        held_out: share of the training images set aside for choosing settings.
    """

    epochs: int
    temperature: float
    lr: float
    weight_decay: float
    batch_size: int = 512
    warmup: int = 1500
    resolution: int = 128
    stored: int = 160
    held_out: float = 0.1

    def training(self, images: int, **changes: object) -> TrainSettings:
        """Settings for so many training images; a warm-up longer than half of the run is cut to it.

        Args:
            images: in the training part.
            changes: fields of `TrainSettings` to set otherwise.
        """
        batch = min(self.batch_size, images)
        warmup = min(self.warmup * batch / images, self.epochs / 2)
        settings: dict[str, object] = {
            "epochs": self.epochs, "batch_size": batch, "lr": self.lr,
            "weight_decay": self.weight_decay, "warmup_epochs": warmup, "optimizer": "adamw",
            "clip": 1.0, "across_epochs": True,
        }  # fmt: skip
        return TrainSettings(**(settings | changes))  # type: ignore[arg-type]


RECIPES: dict[str, dict[str, Recipe]] = {
    "flowers102": {
        "fast": Recipe(10_000, 10, 0.003, 3e-4, held_out=0.0),
        "medium": Recipe(100_000, 1, 0.001, 1e-4, held_out=0.0),
        "long": Recipe(1_000_000, 1, 0.0003, 1e-5, held_out=0.0),
    },
    "pets": {
        "fast": Recipe(1_000, 5, 0.01, 1e-3),
        "medium": Recipe(3_000, 10, 0.003, 3e-4),
        "long": Recipe(30_000, 2, 0.003, 1e-5),
    },
    "food101": {
        "fast": Recipe(100, 10, 0.01, 1e-3),
        "medium": Recipe(1_000, 10, 0.001, 3e-4),
        "long": Recipe(3_000, 5, 0.01, 1e-4),
    },
    "sun397": {
        "fast": Recipe(100, 10, 0.01, 1e-3),
        "medium": Recipe(1_000, 10, 0.001, 1e-4),
        "long": Recipe(3_000, 10, 0.01, 3e-5),
    },
    "imagenet": {
        patience: Recipe(
            epochs, 1, 0.03, 3e-4, batch_size=4096, warmup=5000, resolution=224, stored=256,
            held_out=0.02,
        )
        for patience, epochs in zip(PATIENCE, (300, 1_200, 9_600), strict=True)
    },
}  # fmt: skip

# What the authors searched, on held-out training images.
GRID = {
    "lr": (1e-3, 3e-3, 1e-2),
    "temperature": (1, 2, 5, 10),
    "weight_decay": (1e-5, 3e-5, 1e-4, 3e-4, 1e-3),
    "alpha": (0, 0.1, 0.5, 1),
}


def recipe(dataset: str, patience: str = "fast") -> Recipe:
    """The published recipe for a data set; Pets' for one that the paper does not have.

    Raises:
        ValueError: patience is not "fast", "medium" or "long".
    """
    checks.one_of("patience", patience, PATIENCE)
    return RECIPES.get(dataset, RECIPES["pets"])[patience]
