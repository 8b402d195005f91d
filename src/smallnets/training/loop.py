"""The training loop: the only one, and all of it.

An objective is a function of the model and a batch that returns named terms; the term "loss" is
minimised and every term is logged. A classifier, a student with its teacher and a whole cohort of
students are trained by the same lines.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from smallnets import checks
from smallnets.batches import Batches, check_labelled
from smallnets.data import Dataset, TrainingData, as_batches
from smallnets.models import memory_format
from smallnets.training.checkpoint import (
    History,
    Running,
    cache_path,
    code_digest,
    load_finished,
    place_of_training,
    save_finished,
)
from smallnets.training.draws import (
    epoch_seed,
    global_draws,
    leaving_global_draws,
    seed_global,
)
from smallnets.training.optimizers import new_optimizer
from smallnets.training.settings import TrainSettings, learning_rate
from smallnets.training.steps import Step, Steps, a_batch_of_one_explained, steps_of_batches

if TYPE_CHECKING:
    import lightning_fabric


class Batch(NamedTuple):
    """Inputs as the network sees them, their labels, and what an objective needs to go further."""

    images: Tensor  # (batch, ...), of a `Dataset` images, normalised and augmented
    labels: Tensor  # (batch,)
    which: Tensor | None = None  # (batch,) their places among the images of a `Dataset`
    noise: torch.Generator | None = None  # this training's random numbers, for further views


Objective = Callable[[nn.Module, Batch], dict[str, Tensor]]


@dataclass(frozen=True)
class Classification:
    """Cross-entropy with the labels, mean over the batch.

    Attributes:
        label_smoothing: probability spread evenly over the classes, in [0, 1].
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.between("label_smoothing", self.label_smoothing, 0, 1)

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits = model(batch.images)
        if not isinstance(logits, Tensor):
            raise ValueError(
                f"the network must return its logits as one tensor; got {type(logits).__name__}"
            )
        logits = logits.float()
        try:
            loss = F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
        except IndexError:
            raise ValueError(
                f"labels must be between 0 and {logits.shape[1] - 1}, as the network has "
                f"{logits.shape[1]} classes; got {int(batch.labels.max())}"
            ) from None
        return {"loss": loss}


@leaving_global_draws
@a_batch_of_one_explained()
def fit(
    model: nn.Module,
    dataset: TrainingData,
    settings: TrainSettings,
    *,
    seed: int,
    objective: Objective = Classification(),
    cache_dir: Path | None = None,
    label: str = "training",
    fabric: "lightning_fabric.Fabric | None" = None,
) -> History:
    """Train `model` in place and return every term in every epoch, as the mean over its batches.

    Args:
        model: trained in place, left in evaluation mode on the CPU.
        dataset: a `Dataset`, whose training part is used, or batches (inputs, labels) of your own,
            such as a DataLoader, see `smallnets.data.Batches`. These are taken as they come: they
            decide order, size and number, and `settings.augmentation` acts only if it was given.
            Of several processes each passes its own part, as a DistributedSampler gives it.
        settings: how to train.
        seed: of the order of images, of their augmentation, and of what the network draws itself,
            as in dropout (the start is the model as given). Global random numbers are left alone.
        objective: (model, batch) -> terms, with "loss" among them.
        cache_dir: folder in which the finished training is kept and, while it runs, a checkpoint of
            every epoch. The same training is never done twice, and one that was killed goes on
            where it was, bit for bit. Of batches of your own it needs such as have a name, see
            `smallnets.data.Batches.key`, and one process.
        label: start of the kept file's name, and of the progress bar.
        fabric: a launched Fabric for several processes; every process passes the same arguments.

    Raises:
        ValueError: fewer training images than one batch, or a batch that the processes cannot share
            evenly; batches of your own that `Batches` refuses, that can be read once where there
            are several epochs, whose number a schedule needs and nobody knows, or that have no
            labels for a `Classification`; a training to be kept that has no name (see
            `smallnets.training.naming`).
    """
    processes = 1 if fabric is None else fabric.world_size
    data = as_batches(dataset)
    if isinstance(data, Dataset):
        checks.between("batch_size", settings.batch_size, 1, len(data.y_train))
        if settings.batch_size % processes:
            raise ValueError(
                f"batch_size must be a multiple of the {processes} processes; "
                f"got {settings.batch_size}"
            )
    elif cache_dir is not None and processes > 1:
        raise ValueError(
            f"cache_dir must be None for batches of your own in {processes} processes, each of "
            "which sees only its own; got a folder"
        )
    if isinstance(objective, Classification):
        check_labelled(data)
    model.train()  # as all of it is trained: the mode in which it came has no part in its name
    path = (
        None
        if cache_dir is None
        else cache_path(
            cache_dir,
            label,
            model=model,
            data=data.key,
            settings=settings,
            seed=seed,
            objective=objective,
            place=place_of_training(settings, fabric),
            code=code_digest(),
        )
    )
    if path and (finished := load_finished(path, model)) is not None:
        model.eval()
        return finished

    fabric = fabric or settings.fabric()  # 150 MB and seconds, which only those who train pay
    order = torch.Generator().manual_seed(seed)
    noise = torch.Generator(fabric.device).manual_seed(1_000_003 * (seed + 1) + fabric.global_rank)
    seed_global(seed, fabric.global_rank)
    layout = memory_format(model)
    model.to(fabric.device, memory_format=layout)
    trained, optimizer = fabric.setup(model, new_optimizer(model, settings))
    draws = (order, noise, *global_draws(fabric.device))
    running = Running(path, fabric, model, optimizer, draws)
    history = running.resume()
    steps = (
        steps_of_batches(data, settings, model)
        if isinstance(data, Batches)
        else steps_of_images(data, settings, fabric, order)
    )
    view = settings.augmentation if isinstance(data, Batches) else settings.view

    for epoch in tqdm(range(len(history), settings.epochs), desc=label, leave=False, delay=2):
        trained.train()
        sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=fabric.device))
        taken = 0
        for step in steps(epoch):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, step.time)
            views = step.images if view is None else view(step.images, noise)
            if views.dim() == 4:
                views = views.contiguous(memory_format=layout)
            with fabric.autocast():
                terms = objective(trained, Batch(views, step.labels, step.which, noise))
            optimizer.zero_grad()
            fabric.backward(terms["loss"])
            if settings.clip is not None:
                fabric.clip_gradients(trained, optimizer, max_norm=settings.clip)
            optimizer.step()
            for name, term in terms.items():
                sums[name] += term.detach()
            taken += 1
        history.append({name: total.item() / taken for name, total in sums.items()})
        running.save(history)

    model.to("cpu", memory_format=torch.contiguous_format).eval()
    if path and fabric.is_global_zero:
        save_finished(path, model, history)
        running.remove()
    return history


def steps_of_images(
    dataset: Dataset,
    settings: TrainSettings,
    fabric: "lightning_fabric.Fabric",
    order: torch.Generator,
) -> Steps:
    """The steps of a data set in memory: this process's share of every batch, in random order."""
    images, labels = dataset.x_train.to(fabric.device), dataset.y_train.to(fabric.device)

    def epoch(number: int) -> Iterator[Step]:
        for time, chosen in zip(
            *order_of_images(len(labels), settings, number, order), strict=True
        ):
            mine = chosen[fabric.global_rank :: fabric.world_size].to(fabric.device)
            yield Step(time, dataset.normalise(images[mine]), labels[mine], mine)

    return epoch


def order_of_images(
    count: int, settings: TrainSettings, epoch: int, generator: torch.Generator
) -> tuple[list[float], Tensor]:
    """When an epoch's steps begin, in epochs, and the images of each.

    Args:
        count: training images.
        settings: its `batch_size`, `epochs` and `across_epochs` are used.
        epoch: which one, from 0.
        generator: of the order of images.

    Returns:
        One time a step, and positions (steps, batch). With `across_epochs` the permutations of all
        epochs form one stream that is cut into round(epochs * count / batch) batches; the times are
        then those of an even division of the whole training.
    """
    batch = settings.batch_size
    if not settings.across_epochs:
        steps = count // batch
        shuffled = torch.randperm(count, generator=generator)[: steps * batch]
        return [epoch + step / steps for step in range(steps)], shuffled.view(steps, batch)
    seed = generator.initial_seed()
    first, end = (int(e * count / batch + 0.5) for e in (epoch, epoch + 1))
    total = int(settings.epochs * count / batch + 0.5)
    begun, over = first * batch // count, -(-end * batch // count)
    stream = torch.cat(
        [
            torch.randperm(count, generator=torch.Generator().manual_seed(epoch_seed(seed, e)))
            for e in range(begun, over)
        ]
    )
    start = first * batch - begun * count
    times = [settings.epochs * step / total for step in range(first, end)]
    return times, stream[start : start + (end - first) * batch].view(end - first, batch)
