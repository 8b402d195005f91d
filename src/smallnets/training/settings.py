"""What a training run is told: how long, how fast, on what device, in what arithmetic."""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from smallnets import checks
from smallnets.data import Augmentation

if TYPE_CHECKING:
    import lightning_fabric

SCHEDULES = ("cosine", "linear", "step", "constant")
OPTIMIZERS = ("sgd", "adam", "adamw", "shampoo")
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "32-true", "bf16-mixed")


@dataclass(frozen=True)
class TrainSettings:
    """Settings of one training.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step, over all processes. Batches of your own are as large as they
            are.
        lr: highest learning rate.
        momentum, nesterov: of SGD.
        weight_decay: of "sgd" and "adam", on all parameters and through the gradient. With "adamw"
            and "shampoo" it is the share by which matrices and kernels shrink in a step at the
            highest learning rate, whatever that rate is; biases and norms are left alone.
        schedule: "cosine" and "linear" fall from `lr` to `final_lr` with every step, "step"
            multiplies by `decay` at each of the `milestones`, "constant" stays.
        milestones: epochs at which the "step" schedule falls.
        decay: factor of the "step" schedule.
        final_lr: where the cosine ends.
        warmup_epochs: linear rise from 0 before the schedule starts.
        whole_epochs: whether the learning rate changes only from epoch to epoch, not within one.
        augmentation: random view of every batch; teacher and student see the same one. None is
            the usual one, `Augmentation()`, for a `Dataset`, and none at all for batches of your
            own, whose loader has its own.
        optimizer: "sgd", "adam", "adamw" or "shampoo", see `smallnets.training.optimizers`.
        clip: largest norm of the gradient of all parameters together; None is no limit.
        across_epochs: batches run on across the ends of epochs, and no image is left out. Otherwise
            an incomplete last batch is dropped.
        device: "auto" takes a GPU if there is one.
        precision: "bf16-mixed" is bfloat16 autocast, "auto" takes it where the hardware has it.

    Raises:
        ValueError: a field is out of range; the message names it, what was given and what is
            allowed.
    """

    epochs: int = 10
    batch_size: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    milestones: tuple[int, ...] = ()
    decay: float = 0.2
    final_lr: float = 0.0
    warmup_epochs: float = 0.0
    whole_epochs: bool = False
    augmentation: Augmentation | None = None
    optimizer: str = "sgd"
    clip: float | None = None
    across_epochs: bool = False
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.whole("epochs", self.epochs, 1)
        checks.whole("batch_size", self.batch_size, 1)
        checks.above("lr", self.lr, 0)
        checks.between("momentum", self.momentum, 0, 1)
        checks.at_least("weight_decay", self.weight_decay, 0)
        checks.one_of("schedule", self.schedule, SCHEDULES)
        checks.above("decay", self.decay, 0)
        checks.between("final_lr", self.final_lr, 0, self.lr)
        checks.at_least("warmup_epochs", self.warmup_epochs, 0)
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs must be less than the {self.epochs} epochs; "
                f"got {self.warmup_epochs}"
            )
        checks.one_of("optimizer", self.optimizer, OPTIMIZERS)
        if self.clip is not None:
            checks.above("clip", self.clip, 0)
        checks.one_of("device", self.device, DEVICES)
        checks.one_of("precision", self.precision, PRECISIONS)

    @property
    def view(self) -> Augmentation:
        """The augmentation of a `Dataset`: the one given, or the usual one."""
        return Augmentation() if self.augmentation is None else self.augmentation

    @property
    def accelerator(self) -> str:
        """Where to train: "cpu" or "cuda".

        Raises:
            ValueError: a GPU was asked for and there is none.
        """
        has_gpu = torch.cuda.is_available()
        if self.device == "cuda" and not has_gpu:
            raise ValueError(
                "device must be auto or cpu on a machine without a usable GPU; got 'cuda'"
            )
        return "cuda" if has_gpu and self.device != "cpu" else "cpu"

    @property
    def arithmetic(self) -> str:
        """The precision that "auto" stands for on this machine: "32-true" or "bf16-mixed"."""
        if self.precision != "auto":
            return self.precision
        return "bf16-mixed" if has_fast_bfloat16(self.accelerator) else "32-true"

    def with_epochs(self, epochs: int) -> "TrainSettings":
        """A training of another length and the same shape: warm-up and milestones keep their share.

        Raises:
            ValueError: less than one epoch.
        """
        share = checks.whole("epochs", epochs, 1) / self.epochs
        return replace(
            self,
            epochs=epochs,
            warmup_epochs=self.warmup_epochs * epochs / self.epochs,
            milestones=tuple(round(milestone * share) for milestone in self.milestones),
        )

    def fabric(self) -> "lightning_fabric.Fabric":
        """Lightning Fabric for one process in the settings' place and arithmetic."""
        # Three seconds to import, which only those who train should wait for.
        from lightning_fabric import Fabric
        from lightning_fabric.plugins import MixedPrecision

        mixed = self.arithmetic == "bf16-mixed"
        plugin = MixedPrecision("bf16-mixed", self.accelerator) if mixed else None
        return Fabric(accelerator=self.accelerator, devices=1, plugins=plugin)


def has_fast_bfloat16(device: str) -> bool:
    """Whether bfloat16 arithmetic is in the hardware of "cpu" or "cuda", so that autocast gains
    time.
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.backends.cpu.get_cpu_capability()
    return capabilities == "AVX512" and torch.cpu._is_avx512_bf16_supported()


def learning_rate(settings: TrainSettings, epoch: float) -> float:
    """Learning rate after `epoch` epochs, a fraction within an epoch included.

    Past the end of the training it stays what it is there.
    """
    epoch = min(epoch, settings.epochs)
    if settings.whole_epochs:
        epoch = math.floor(epoch)
    if epoch < settings.warmup_epochs:
        return settings.lr * epoch / settings.warmup_epochs
    if settings.schedule == "step":
        return settings.lr * settings.decay ** sum(
            epoch >= milestone for milestone in settings.milestones
        )
    if settings.schedule in ("cosine", "linear"):
        share = (epoch - settings.warmup_epochs) / max(
            settings.epochs - settings.warmup_epochs, 1e-12
        )
        if settings.schedule == "linear":
            return settings.final_lr + (settings.lr - settings.final_lr) * (1 - share)
        return (
            settings.final_lr
            + (settings.lr - settings.final_lr) * (1 + math.cos(math.pi * share)) / 2
        )
    return settings.lr
