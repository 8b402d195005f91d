"""What learning a set has in common, whatever is matched: its name, its checkpoints, its loop."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from smallnets import checks
from smallnets.storage import one_line, source_digest
from smallnets.synthesize.condense.pixels import PixelState, start_images
from smallnets.synthesize.condense.samplers import Fresh, Sampler
from smallnets.synthesize.condense.sets import (
    Data,
    ImageSet,
    SyntheticSet,
    check_classes,
    training_set,
)
from smallnets.training import TrainSettings
from smallnets.training.checkpoint import cache_path, code_digest

Watch = Callable[[int, SyntheticSet, float], object]
Step = Callable[[PixelState], float]
SECONDS = 30.0  # between two states on disk


@dataclass(frozen=True, eq=False)
class Condensed:
    """A learned set, and how it was learned.

    Attributes:
        set: images and labels, ordered by class.
        losses: the loss before every update; the official code prints it divided by the classes.
        seconds: of learning, without what a callback took.
        state: from which the run can go on.
    """

    set: SyntheticSet
    losses: list[float]
    seconds: float
    state: PixelState


def run(
    make_step: Callable[..., Step],
    data: Data,
    settings: Any,
    seed: int,
    factory: Sampler | None,
    only: Sequence[int] | None,
    resume: PixelState | None,
    callback: Watch | None,
    every: int,
    cache_dir: Path | None,
    label: str,
) -> Condensed:
    """Learn a set, from its start or from where it was stopped.

    Args:
        make_step: (real, classes, settings, seed, sampler, device, precision) -> a step, which
            updates the pixels of a state and returns the loss before the update.
        settings: of the method, with `ipc`, `iterations`, `lr`, `init`, `batch_real`, `network`,
            `device` and `precision`.
        factory: of networks; None is `settings.network` with fresh weights.
        data, seed, only, resume, callback, every, cache_dir, label: see `condense`.
    """
    real = training_set(data)
    sampler = factory or Fresh(real.num_classes, real.channels, real.size, settings.network)
    classes = chosen_classes(real, only)
    checks.whole("seed", seed, 0)
    checks.whole("every", every, 1)
    check_classes(real, classes)
    smallest = min(int((real.labels == one).sum()) for one in classes)
    if settings.batch_real > smallest:
        warnings.warn(
            f"batch_real {settings.batch_real} is more than the {smallest} images of the smallest "
            "class, of which all are taken",
            stacklevel=3,
        )
    place = TrainSettings(device=settings.device, precision=settings.precision)
    where = place.accelerator, place.arithmetic
    identity = identity_of(settings, seed, classes, real, sampler)
    kept = keeping(cache_dir, label, every, identity, sampler=sampler, place=where)
    state = kept.found() if resume is None else resume.copied()
    if state is None:
        images = start_images(real, classes, settings.ipc, settings.init, seed)
        state = PixelState(images, torch.zeros_like(images))
    else:
        state.check_continues(identity)
        checks.at_least("iterations", settings.iterations, state.iteration)
    state.identity = identity
    device = torch.device(place.accelerator)
    step = make_step(real, classes, settings, seed, sampler, device, place.arithmetic)
    state.images, state.velocity = state.images.to(device), state.velocity.to(device)
    clock = Clock(state)

    def watch() -> None:
        if callback is not None:
            seconds = clock.stop()
            callback(state.iteration, as_set(real, classes, state.images), seconds)
            clock.go()

    bar = tqdm(total=settings.iterations, initial=state.iteration, desc=label, leave=False, delay=2)
    with bar:
        while state.iteration < settings.iterations:
            if state.iteration % every == 0:
                watch()
            state.finish_iteration(step(state), settings.lr)
            bar.update()
            clock.stop()
            kept.keep(state, settings.iterations)
            clock.go()
    watch()
    state.images, state.velocity = state.images.cpu(), state.velocity.cpu()
    return Condensed(as_set(real, classes, state.images), state.losses, state.seconds, state)


def chosen_classes(real: ImageSet, only: Sequence[int] | None) -> list[int]:
    """Labels to condense.

    Raises:
        ValueError: none, one that is not there, or one twice.
    """
    classes = list(range(real.num_classes)) if only is None else list(only)
    if not classes or len(set(classes)) < len(classes):
        raise ValueError(f"only must name different classes; got {classes}")
    for label in classes:
        checks.between("class", checks.whole("class", label, 0), 0, real.num_classes - 1)
    return classes


def identity_of(
    settings: Any, seed: int, classes: Sequence[int], real: ImageSet, sampler: Sampler
) -> dict[str, str]:
    """What a run is, name by name, as texts."""
    digest = sha256()
    for tensor in (real.images, real.labels, real.mean, real.std):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().numpy())
    named = {name: str(value) for name, value in asdict(settings).items()}
    networks = repr(sampler) if isinstance(sampler, Fresh) else type(sampler).__qualname__
    return {
        **named,
        "networks": networks, "method": type(settings).__name__, "seed": str(seed),
        "classes": str(list(classes)), "data": digest.hexdigest()[:16],
    }  # fmt: skip


def as_set(real: ImageSet, classes: Sequence[int], images: Tensor) -> SyntheticSet:
    """Images (K, ipc, ...) with the labels, constants and names of the real ones."""
    order = sorted(range(len(classes)), key=lambda row: classes[row])
    labels = torch.tensor([classes[row] for row in order]).repeat_interleave(images.shape[1])
    flat = images.detach().cpu()[order].flatten(0, 1).clone()
    return SyntheticSet(flat, labels, real.mean, real.std, real.classes)


@dataclass
class Keeping:
    """Where a run keeps its state and its finished set, if anywhere.

    Attributes:
        path: of the finished run; the running one lies beside it. None keeps nothing.
        every: the most updates between two states on disk, besides `SECONDS`.
        written: when the last one was.
    """

    path: Path | None
    every: int
    written: float = field(default_factory=time.monotonic)

    @property
    def running(self) -> Path | None:
        return self.path and self.path.with_suffix(".running")

    def found(self) -> PixelState | None:
        """The finished or running state, or None; a damaged one is dropped with a word."""
        for file in (self.path, self.running):
            if file is not None and file.exists():
                try:
                    return PixelState.load(file)
                except ValueError as error:
                    warnings.warn(f"{one_line(error)}: condensing again", stacklevel=4)
        return None

    def keep(self, state: PixelState, iterations: int) -> None:
        """Write the state if it is due, and the finished one in place of the running one."""
        if self.path is None or self.running is None:
            return
        if state.iteration == iterations:
            state.save(self.path)
            self.running.unlink(missing_ok=True)
        elif state.iteration % self.every == 0 or time.monotonic() - self.written > SECONDS:
            state.save(self.running)
            self.written = time.monotonic()


def keeping(
    cache_dir: Path | None, label: str, every: int, identity: dict[str, str], **more: Any
) -> Keeping:
    """Where a run with this identity is kept below `cache_dir`.

    Raises:
        ValueError: a network sampler that has no name, see `smallnets.training.naming`.
    """
    if cache_dir is None:
        return Keeping(None, every)
    code = code_digest(), source_digest("synthesize")
    path = cache_path(cache_dir, label, ".set", identity=identity, code=code, more=more)
    return Keeping(path, every)


class Clock:
    """Seconds of learning, without those of whoever watches."""

    def __init__(self, state: PixelState) -> None:
        self.state = state
        self.began = time.perf_counter()

    def stop(self) -> float:
        """Add what has passed to the state, and return its seconds."""
        self.state.seconds += time.perf_counter() - self.began
        self.began = time.perf_counter()
        return self.state.seconds

    def go(self) -> None:
        """Leave out what has passed since `stop`."""
        self.began = time.perf_counter()
