"""Post-training quantisation: each part of the network learns to answer as the original did.

Part by part, in order, the rounding of weights and all steps are learned so that the quantised part
gives what the original part gives (section 3.5 of the chapter). The inputs of a part come from the
already quantised parts before it. They are carried on from part to part: the network runs once,
not once for each part.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.optim import Adam
from tqdm import tqdm

from smallnets import checks
from smallnets.batches import Batches, Source
from smallnets.models import sound
from smallnets.quantize.adaround import beta_schedule
from smallnets.quantize.genie.network import QuantizedNetwork, check_images, taken
from smallnets.quantize.genie.quantizers import (
    LEARNS_BITS,
    LEARNS_STEP,
    ActivationQuantizer,
    QDrop,
    WeightQuantizer,
    quantizers_in,
)
from smallnets.quantize.genie.units import run_in_batches


@dataclass(frozen=True)
class ReconstructionSettings:
    """How to learn; the defaults are the published ones.

    Attributes:
        iterations: for each unit.
        batch_size: images a step.
        lr_bit: of the soft bits' logits, constant. With few iterations a bit can only change its
            mind if it is raised.
        lr_step, lr_activation: of weights' and activations' steps, on a cosine down to 0.
        regulariser: weight (lambda) of the rounding term.
        warmup: share of the iterations without that term.
        beta_start, beta_end: of its exponent.
        drop: probability that a value is quantised while learning (QDrop); 1 is BRECQ's way.
        init_images: images on which activations' steps are found, as many as there are at most.
        learn_activations: whether their steps are learned.

    Raises:
        ValueError: a field is out of range.
    """

    iterations: int = 20_000
    batch_size: int = 32
    lr_bit: float = 1e-3
    lr_step: float = 1e-4
    lr_activation: float = 4e-5
    regulariser: float = 1.0
    warmup: float = 0.2
    beta_start: float = 20.0
    beta_end: float = 2.0
    drop: float = 0.5
    init_images: int = 32
    learn_activations: bool = True

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        for name in ("iterations", "batch_size", "init_images"):
            checks.whole(name, getattr(self, name), 1)
        for name in ("lr_bit", "lr_step", "lr_activation", "beta_start", "beta_end"):
            checks.above(name, getattr(self, name), 0)
        checks.at_least("regulariser", self.regulariser, 0)
        if checks.between("warmup", self.warmup, 0, 1) == 1:
            raise ValueError("warmup must be below 1; got 1")
        checks.between("drop", self.drop, 0, 1)


@dataclass(frozen=True)
class Progress:
    """One step: reconstruction error, rounding term, its exponent, and the weighted sum."""

    reconstruction: float
    rounding: float
    beta: float
    total: float


@dataclass(frozen=True)
class UnitHistory:
    """What happened to a unit.

    Attributes:
        name: of the unit.
        layers: in it.
        before, after: its error on all calibration images, with everything quantised.
        steps: of the optimisation; empty where nothing was learned.
        seconds: what it took.
    """

    name: str
    layers: tuple[str, ...]
    before: float
    after: float
    steps: list[Progress]
    seconds: float


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """Squared differences, summed over channels (outputs) and averaged over all else: ()."""
    return (output - target).square().sum(1).mean()


def reconstruct(
    network: QuantizedNetwork,
    images: Tensor | Batches | Source,
    settings: ReconstructionSettings = ReconstructionSettings(),
    *,
    unit: str = "block",
    only: Sequence[str] | None = None,
    seed: int = 0,
    count: int = 1024,
    progress: bool = False,
) -> list[UnitHistory]:
    """Learn a quantised network's rounding and steps, part by part, in place.

    Args:
        network: made by `quantize`.
        images: (n, channels, height, width), made or real, as the network takes them. Or batches
            of your own, with or without labels, of which the first `count` examples are held in
            memory, as is what every part makes of them.
        settings: how.
        unit: "block", "layer" or "model", see `find_units`.
        only: names of the units to learn; the others are rounded as they start. None is all.
        seed: of the order of images and of QDrop's coins.
        count: examples that are taken of batches; the paper's number.
        progress: whether to show a bar.

    Raises:
        ValueError: unsuitable or too few images, a unit that does not exist, or a network whose
            trace gives something else than itself.
    """
    images = taken(network, images, count)
    check_images(network, images, settings.batch_size)
    units = network.units(unit)
    if only is not None:
        for name in only:
            checks.one_of("unit", name, [one.name for one in units])
    generator = torch.Generator().manual_seed(seed)
    exact: dict[fx.Node, Tensor] = {network.entry: images}
    quantised = dict(exact)
    histories = []
    for place, one in enumerate(tqdm(units, disable=not progress, leave=False)):
        began = time.perf_counter()
        original, student = network.pair(one)
        wanted = run_in_batches(original, [exact[n] for n in one.entries], 256)
        target = wanted[-1]
        inputs = [quantised[n] for n in one.entries]
        run_in_batches(student, [x[: settings.init_images] for x in inputs], settings.init_images)
        before = float(reconstruction_loss(run_in_batches(student, inputs, 256)[-1], target))
        steps: list[Progress] = []
        if one.layers and (only is None or one.name in only):
            steps = learn(
                student, target, [exact[n] for n in one.entries], inputs, settings, generator
            )
        found = run_in_batches(student, inputs, 256)
        after = float(reconstruction_loss(found[-1], target))
        exact |= dict(zip(one.exits, wanted, strict=False))
        quantised |= dict(zip(one.exits, found, strict=False))
        needed = {node for later in units[place + 1 :] for node in later.entries}
        exact = {node: value for node, value in exact.items() if node in needed}
        quantised = {node: value for node, value in quantised.items() if node in needed}
        seconds = time.perf_counter() - began
        if one.layers:
            histories.append(UnitHistory(one.name, one.layers, before, after, steps, seconds))
    return histories


def learn(
    student: nn.Module,
    target: Tensor,
    exact: Sequence[Tensor],
    quantised: Sequence[Tensor],
    settings: ReconstructionSettings,
    generator: torch.Generator | None = None,
    *,
    mixer: QDrop | None = None,
    rows: Sequence[Tensor] | None = None,
) -> list[Progress]:
    """Learn one unit in place.

    Args:
        student: takes the entries, returns a tuple that ends with what is compared.
        target: (n, ...) what the original gives for the exact inputs.
        exact, quantised: each entry (n, ...) as the original has it, and as the quantised parts
            before make it.
        settings: how.
        generator: of the order of images and the coins.
        mixer, rows: coins, and the images of every step, to be used instead; for tests.
    """
    exact, quantised = ([sound(student, x) for x in entries] for entries in (exact, quantised))
    weights, activations = quantizers_in(student)
    mixer = mixer or QDrop(settings.drop, generator)
    rows = rows or minibatches(len(target), settings, generator)
    bits = [one.logit for one in weights if one.mode in LEARNS_BITS]
    steps = [one.step for one in weights if one.mode in LEARNS_STEP]
    ranges = [one.step for one in activations]
    if not settings.learn_activations or mixer.probability == 0:  # which shows them no gradient
        ranges = []
    groups = [
        {"params": parameters, "lr": lr, "highest": lr, "falls": falls}
        for parameters, lr, falls in (
            (bits, settings.lr_bit, False),
            (steps, settings.lr_step, True),
            (ranges, settings.lr_activation, True),
        )
        if parameters
    ]
    if not groups:
        return []
    optimizer = Adam(groups)
    history, total = [], settings.iterations
    with learning(weights, activations, mixer):
        for t in range(1, total + 1):
            part = rows[t - 1]
            entries = [mixer(q[part], x[part]) for q, x in zip(quantised, exact, strict=True)]
            error = reconstruction_loss(student(*entries)[-1], target[part])
            beta = beta_schedule(t, total, settings.warmup, settings.beta_start, settings.beta_end)
            rounding = torch.zeros_like(error)
            if t >= settings.warmup * total and settings.regulariser > 0 and bits:
                terms = torch.stack([one.regulariser(beta) for one in weights])
                rounding = settings.regulariser * terms.sum()
            loss = error + rounding
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for group in optimizer.param_groups:
                if group["falls"]:
                    group["lr"] = group["highest"] * (1 + math.cos(math.pi * t / total)) / 2
            values = torch.stack([error, rounding, loss]).tolist()
            history.append(Progress(values[0], values[1], beta, values[2]))
    return history


@contextmanager
def learning(
    weights: Sequence[WeightQuantizer], activations: Sequence[ActivationQuantizer], mixer: QDrop
) -> Iterator[None]:
    """Inside the block weights are soft and activations are mixed; after it, however it ends,
    neither is.
    """
    for one in weights:
        one.soft = True
    for quantizer in activations:
        quantizer.mix = mixer
    try:
        yield
    finally:
        for one in weights:
            one.soft = False
        for quantizer in activations:
            quantizer.mix = None


def minibatches(
    count: int, settings: ReconstructionSettings, generator: torch.Generator | None = None
) -> list[Tensor]:
    """Which images each step sees: whole batches of shuffled passes, incomplete ones left out.

    Raises:
        ValueError: fewer images than a batch.
    """
    size = settings.batch_size
    checks.at_least("number of calibration images", count, size)
    rows: list[Tensor] = []
    while len(rows) < settings.iterations:
        order = torch.randperm(count, generator=generator)
        rows += [part for part in order.split(size) if len(part) == size]
    return rows[: settings.iterations]
