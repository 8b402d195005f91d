"""The training loop: the only one, and all of it.

An objective is a function of the model and a batch that returns named terms; the term "loss" is
minimised and every term is logged. A classifier, a student with its teacher and a whole cohort of
students are trained by the same lines.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from smallnets import checks
from smallnets.data import Dataset
from smallnets.training.checkpoint import (
    History,
    Running,
    code_digest,
    kept_path,
    load_finished,
    save_finished,
)
from smallnets.training.settings import TrainSettings, learning_rate


class Batch(NamedTuple):
    """Images as the network sees them, and their labels."""

    images: Tensor  # (batch, channels, height, width), normalised and augmented
    labels: Tensor  # (batch,)


Objective = Callable[[nn.Module, Batch], dict[str, Tensor]]


@dataclass(frozen=True)
class Classification:
    """Cross-entropy with the labels, mean over the batch.

    Attributes:
        label_smoothing: probability spread evenly over the classes, in [0, 1].
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        checks.between("label_smoothing", self.label_smoothing, 0, 1)

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits = model(batch.images).float()
        return {"loss": F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)}


def fit(
    model: nn.Module,
    dataset: Dataset,
    settings: TrainSettings,
    *,
    seed: int,
    objective: Objective = Classification(),
    keep: Path | None = None,
    label: str = "training",
    fabric: Fabric | None = None,
) -> History:
    """Train `model` in place and return the mean of every term in every epoch.

    Args:
        model: trained in place, left in evaluation mode on the CPU.
        dataset: its training part is used.
        settings: how to train.
        seed: of the order of images and of their augmentation (the start is the model as given).
        objective: (model, batch) -> terms, with "loss" among them.
        keep: folder in which the finished training is kept and, while it runs, a checkpoint of
            every epoch. The same training is never done twice, and one that was killed goes on
            where it was, bit for bit.
        label: start of the kept file's name, and of the progress bar.
        fabric: a launched Fabric for several processes; every process passes the same arguments.

    Raises:
        ValueError: fewer training images than one batch, or a batch that the processes cannot share
            evenly.
    """
    fabric = fabric or settings.fabric()
    checks.between("batch_size", settings.batch_size, 1, len(dataset.y_train))
    if settings.batch_size % fabric.world_size:
        raise ValueError(
            f"batch_size must be a multiple of the {fabric.world_size} processes; "
            f"got {settings.batch_size}"
        )
    code = code_digest(objective)
    path = (
        None
        if keep is None
        else kept_path(
            keep,
            label,
            model=model,
            data=dataset.key,
            settings=settings,
            seed=seed,
            objective=objective,
            arithmetic=settings.arithmetic,
            world=fabric.world_size,
        )
    )
    if path and (finished := load_finished(path, model, code)) is not None:
        model.eval()
        return finished

    order = torch.Generator().manual_seed(seed)
    noise = torch.Generator(fabric.device).manual_seed(1_000_003 * (seed + 1) + fabric.global_rank)
    model.to(fabric.device, memory_format=torch.channels_last)
    optimizer = settings.optimiser(model.parameters())
    trained, optimizer = fabric.setup(model, optimizer)
    running = Running(path, code, model, optimizer, (order, noise))
    history = running.resume()
    images, labels = dataset.x_train.to(fabric.device), dataset.y_train.to(fabric.device)
    steps = len(labels) // settings.batch_size

    for epoch in tqdm(range(len(history), settings.epochs), desc=label, leave=False, delay=2):
        trained.train()
        shuffled = torch.randperm(len(labels), generator=order)[: steps * settings.batch_size]
        sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=fabric.device))
        for step, chosen in enumerate(shuffled.view(steps, -1)):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, epoch + step / steps)
            mine = chosen[fabric.global_rank :: fabric.world_size].to(fabric.device)
            views = settings.augmentation(dataset.normalise(images[mine]), noise)
            batch = Batch(views.contiguous(memory_format=torch.channels_last), labels[mine])
            with fabric.autocast():
                terms = objective(trained, batch)
            optimizer.zero_grad()
            fabric.backward(terms["loss"])
            optimizer.step()
            for name, term in terms.items():
                sums[name] += term.detach()
        history.append({name: total.item() / steps for name, total in sums.items()})
        if fabric.is_global_zero:
            running.save(history)

    model.to("cpu", memory_format=torch.contiguous_format).eval()
    if path and fabric.is_global_zero:
        save_finished(path, model, history, code)
        running.remove()
    return history
