"""Images out of nothing but a trained network: Genie's synthesiser, and what it is compared to.

- "genie": a generator for a batch, and the batch's latent vectors, optimised together (GENIE-D)
- "gba": one generator, fresh latent vectors at every step (generator-based approach)
- "pixels": the pixels themselves, matched as a batch (distillation-based approach)
- "zeroq": the pixels, with the statistics of every image matched by itself, as ZeroQ does
- "noise": Gaussian noise, not optimised at all

All images are in the units that the network takes: normalised, not between 0 and 1.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau

from smallnets import checks
from smallnets.models.layout import volumes
from smallnets.quantize.genie.generator import DataGenerator
from smallnets.quantize.genie.statistics import (
    REDUCTIONS,
    BatchNormInputs,
    BNStat,
    bn_statistics,
    bns_loss,
)
from smallnets.quantize.genie.swing import swing as swung
from smallnets.storage import Arrays, kept_arrays, source_digest
from smallnets.training.checkpoint import cache_path
from smallnets.training.seeds import seeded

METHODS = ("genie", "gba", "pixels", "zeroq", "noise")
Made = tuple[Tensor, list[list[float]]]  # images, and the losses of every batch


@dataclass(frozen=True)
class SynthesisSettings:
    """How to make images; the defaults are those of the official code at 224 pixels.

    Attributes:
        iterations: for each batch.
        batch_size: images that are made together, at least 2.
        lr_latent: of the latent vectors; falls tenfold when the loss has not improved for
            `patience` steps, down to `lr_least`.
        lr_generator: of the generator; falls by `decay` every `decay_every` steps. (The official
            command line has the names of these two rates the wrong way round.)
        lr_pixel: where pixels are optimised, with the schedule of latent vectors.
        patience, lr_least, decay, decay_every: see above.
        latent_dim, widths: of the generator, see `DataGenerator`.
        jitter: of swing convolutions.
        train_latents, train_generator: switch one of the two off, to see what the other does.
        one_generator: one generator goes on from batch to batch, instead of a new one each.
        reduction: of the loss, see `bns_loss`.

    Raises:
        ValueError: a field is out of range, or nothing is left to be trained.
    """

    iterations: int = 4000
    batch_size: int = 128
    lr_latent: float = 0.1
    lr_generator: float = 0.01
    lr_pixel: float = 0.5
    patience: int = 100
    lr_least: float = 1e-4
    decay: float = 0.95
    decay_every: int = 100
    latent_dim: int = 256
    widths: tuple[int, int] = (128, 64)
    jitter: int = 1
    train_latents: bool = True
    train_generator: bool = True
    one_generator: bool = False
    reduction: str = "channel_mean"

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.whole("iterations", self.iterations, 1)
        checks.whole("batch_size", self.batch_size, 2)
        for name in ("lr_latent", "lr_generator", "lr_pixel", "lr_least", "decay"):
            checks.above(name, getattr(self, name), 0)
        for name in ("patience", "decay_every", "latent_dim", "jitter"):
            checks.whole(name, getattr(self, name), 1)
        checks.one_of("reduction", self.reduction, REDUCTIONS)
        if not (self.train_latents or self.train_generator):
            raise ValueError("train_latents or train_generator must be on; both are off")


@dataclass(frozen=True)
class Synthesis:
    """What came out.

    Attributes:
        images: (n, channels, height, width), float, as the network takes them.
        losses: of every batch, one number a step, with swing where it was on; empty for noise.
        seconds: what it took when it was made.
        method: how.
    """

    images: Tensor
    losses: list[list[float]]
    seconds: float
    method: str


def synthesize(
    model: nn.Module,
    n_images: int,
    image_shape: tuple[int, int, int],
    method: str = "genie",
    *,
    swing: bool = True,
    settings: SynthesisSettings = SynthesisSettings(),
    seed: int = 0,
    cache_dir: Path | None = None,
) -> Synthesis:
    """Make images that a network takes for its training data.

    Args:
        model: in evaluation mode, with BatchNorm; not changed.
        n_images: how many. The last batch is made whole and cut.
        image_shape: channels, height, width; sides of multiples of 4 where a generator is used.
        method: one of `METHODS`.
        swing: whether strided convolutions swing.
        settings: how.
        seed: of everything random; every batch has its own.
        cache_dir: folder in which every finished batch is kept, so that a killed run goes on with
            the next batch and ends with the same images (all batches at once where one generator
            makes them).

    Raises:
        ValueError: an unknown method, a number out of range, a network in training mode, without
            BatchNorm, or that does not take such images.
    """
    checks.one_of("method", method, METHODS)
    checks.whole("n_images", n_images, 1)
    check_image_shape(image_shape)
    if any(module.training for module in model.modules()):
        raise ValueError("the network must be in evaluation mode; call eval() first")
    if method == "gba" and not settings.train_generator:
        raise ValueError("gba trains its generator; got train_generator=False")
    shape = tuple(image_shape)
    stats = running_statistics(model, shape)
    batches = -(-n_images // settings.batch_size)
    like = stats[0].mean
    if method == "noise":
        generator = torch.Generator().manual_seed(seed)
        images = torch.randn(n_images, *shape, generator=generator).to(like)
        return Synthesis(images, [], 0.0, method)
    coins = torch.Generator()
    network = fast_copy(model, torch.zeros(2, *shape).to(like))
    if swing:
        network = swung(network, settings.jitter, coins)
    make = partial(_make, network, stats, shape, method, settings, coins)
    code = source_digest("quantize", "surgery.py", "models/upsampled.py", "models/moments.py")
    together = method == "gba" or settings.one_generator  # one generator makes all batches
    parts = []
    for batch in (None,) if together else range(batches):
        of = (shape, method, swing, settings, seed, batch, batches if together else 1)
        path = cache_dir and cache_path(cache_dir, "images", ".npz", model=model, of=of, code=code)
        if batch is None:
            work = partial(_from_one_generator, make, batches, seed)
        else:
            work = partial(make, seeds=(seed, batch))
        parts.append(kept_arrays(path, partial(_arrays, work)))
    images = torch.cat([torch.from_numpy(part["images"]).to(like) for part in parts])
    losses = [line for part in parts for line in part["losses"].tolist()]
    seconds = sum(float(part["seconds"]) for part in parts)
    return Synthesis(images[:n_images], losses, seconds, method)


def frozen_copy(model: nn.Module) -> nn.Module:
    """A copy without in-place activations whose weights ask for no gradient: half a backward pass
    less.
    """
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    for module in copied.modules():
        if getattr(module, "inplace", False):
            module.inplace = False
    return copied


def fast_copy(model: nn.Module, images: Tensor) -> nn.Module:
    """A frozen copy with its weights in channels-last memory, if it has maps and takes images so: a
    `view` across channels and places does not.

    It has no weight gradients, so that `smallnets.models.layout` has nothing to say against it.
    """
    copied = frozen_copy(model)
    if volumes(copied):
        return copied
    try:
        with torch.no_grad():
            copied.to(memory_format=torch.channels_last)(images)
    except RuntimeError:
        copied.to(memory_format=torch.contiguous_format)
    return copied


def running_statistics(model: nn.Module, shape: tuple[int, ...]) -> list[BNStat]:
    """Statistics of the BatchNorm layers that a pass of such images meets.

    Raises:
        ValueError: the network does not take them; one line says why.
    """
    stats = bn_statistics(model)
    try:
        with torch.no_grad(), BatchNormInputs(model) as tap:
            model(torch.zeros(2, *shape).to(stats[0].mean))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"the network does not take images of shape {shape}: {reason}") from None
    return [stat for stat in stats if stat.name in tap.names]


def check_image_shape(image_shape: Sequence[int]) -> None:
    """Raise ValueError unless a shape is (channels, height, width)."""
    if len(image_shape) != 3:
        raise ValueError(f"image_shape must be (channels, height, width); got {tuple(image_shape)}")
    for side in image_shape:
        checks.whole("each number of image_shape", side, 1)


def _make(
    network: nn.Module,
    stats: Sequence[BNStat],
    shape: tuple[int, ...],
    method: str,
    settings: SynthesisSettings,
    coins: torch.Generator,
    *,
    seeds: tuple[int, int],
    generator: DataGenerator | None = None,
) -> Made:
    """One batch of images, and the loss at every step."""
    noise = torch.Generator().manual_seed(_number(*seeds, 0))
    coins.manual_seed(_number(*seeds, 1))
    like = stats[0].mean
    size = settings.batch_size
    per_image = method == "zeroq"
    if method in ("pixels", "zeroq"):
        pixels = torch.randn(size, *shape, generator=noise).to(like).requires_grad_(True)
        variables = Variables([pixels], [])
        images, losses = optimise(network, stats, lambda: pixels, variables, settings, per_image)
        return images, [losses]
    if generator is None:
        generator = new_generator(shape, settings, _number(*seeds, 2)).to(like)
    generator.requires_grad_(settings.train_generator)
    latents = torch.randn(size, settings.latent_dim, generator=noise).to(like)
    latents.requires_grad_(settings.train_latents)

    def draw() -> Tensor:
        z = latents
        if method == "gba":
            z = torch.randn(size, settings.latent_dim, generator=noise).to(like)
        return generator(z)

    learned = [latents] if settings.train_latents and method == "genie" else []
    weights = list(generator.parameters()) if settings.train_generator else []
    images, losses = optimise(network, stats, draw, Variables(learned, weights), settings)
    return images, [losses]


def new_generator(shape: tuple[int, ...], settings: SynthesisSettings, seed: int) -> DataGenerator:
    """A generator for images of a shape, drawn from a seed, in the faster order in memory."""
    with seeded(seed):
        drawn = DataGenerator((shape[1], shape[2]), settings.latent_dim, shape[0], settings.widths)
    return drawn.to(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Variables:
    """What is optimised: latent vectors or pixels by the one rule, generators by the other."""

    free: list[Tensor]
    generator: list[Tensor]


def optimise(
    network: nn.Module,
    stats: Sequence[BNStat],
    draw: Callable[[], Tensor],
    variables: Variables,
    settings: SynthesisSettings,
    per_image: bool = False,
) -> tuple[Tensor, list[float]]:
    """Minimise the BNS loss; the images of the last pass and the loss before every update.

    Args:
        network: frozen, in evaluation mode.
        stats: of its BatchNorm layers.
        draw: () -> images (batch, channels, height, width), part of a graph.
        variables: that the images depend on.
        settings: how.
        per_image: match the statistics of every image by itself.
    """
    optimizers, plateau, decay = [], None, None
    if variables.free:
        pixels = variables.free[0].dim() == 4
        lr = settings.lr_pixel if pixels else settings.lr_latent
        optimizers.append(Adam(variables.free, lr=lr))
        plateau = ReduceLROnPlateau(
            optimizers[-1],
            factor=0.1,
            patience=settings.patience,
            min_lr=settings.lr_least,
        )
    if variables.generator:
        optimizers.append(Adam(variables.generator, lr=settings.lr_generator))
        decay = ExponentialLR(optimizers[-1], gamma=settings.decay)
    losses: list[float] = []
    with BatchNormInputs(network, [stat.name for stat in stats]) as tap:
        for step in range(1, settings.iterations + 1):
            images = draw()
            network(images)
            loss = bns_loss(
                tap.inputs, stats, images, reduction=settings.reduction, per_image=per_image
            ).total
            for optimizer in optimizers:
                optimizer.zero_grad()
            result = images.detach().clone()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            losses.append(float(loss.detach()))
            if plateau is not None:
                plateau.step(losses[-1])
            if decay is not None and step % settings.decay_every == 0:
                decay.step()
    return result, losses


def _arrays(work: Callable[[], Made]) -> Arrays:
    """Images, a line of losses for every batch that was optimised, and what they took."""
    began = time.perf_counter()
    images, losses = work()
    return {
        "images": images.cpu().numpy(),
        "losses": np.array(losses),
        "seconds": np.array(time.perf_counter() - began),
    }


def _from_one_generator(make: "partial[Made]", batches: int, seed: int) -> Made:
    """All batches from a single generator: of latent vectors of their own ("genie"), or fresh."""
    _, stats, shape, method, settings, _ = make.args
    like = stats[0].mean
    generator = None
    if method in ("genie", "gba"):
        generator = new_generator(shape, settings, _number(seed, 0, 2)).to(like)
    if method != "gba":
        parts = [make(seeds=(seed, batch), generator=generator) for batch in range(batches)]
        return torch.cat([part for part, _ in parts]), [
            line for _, lines in parts for line in lines
        ]
    assert generator is not None
    first, losses = make(seeds=(seed, 0), generator=generator)
    noise = torch.Generator().manual_seed(_number(seed, 1, 0))
    images = [first]
    for _ in range(batches - 1):
        z = torch.randn(settings.batch_size, settings.latent_dim, generator=noise).to(like)
        with torch.no_grad():
            images.append(generator(z))
    return torch.cat(images), losses


def _number(seed: int, batch: int, what: int) -> int:
    """A seed of its own for the noise (0), the coins (1) and the generator (2) of every batch."""
    return 3 * (1_000_003 * seed + batch) + what


def roughness(images: Tensor) -> float:
    """Mean absolute difference of horizontal neighbours over the deviation of the pixels."""
    return float((images[..., 1:] - images[..., :-1]).abs().mean() / images.std())


def corner_energy(images: Tensor) -> float:
    """Share of the spectrum's energy at the corner where both directions alternate from pixel to
    pixel (the mean excepted): what a checkerboard is made of.

    The corner is all frequencies above three eighths of the sampling rate in both directions.
    """
    spectrum = torch.fft.fft2(images - images.mean((2, 3), keepdim=True)).abs().square()
    down, across = (
        torch.fft.fftfreq(side, device=images.device).abs() > 0.375 for side in images.shape[2:]
    )
    return float(spectrum[..., down[:, None] & across].sum() / spectrum.sum())


def shorter(settings: SynthesisSettings, iterations: int) -> SynthesisSettings:
    """The same settings for fewer steps; schedules keep their shape."""
    share = iterations / settings.iterations
    return replace(
        settings,
        iterations=iterations,
        patience=max(1, round(settings.patience * share)),
        decay_every=max(1, round(settings.decay_every * share)),
    )
