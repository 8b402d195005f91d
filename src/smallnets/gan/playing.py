"""Networks that learn against each other: the loop that trains all of them, and what it is told.

A *game* holds networks, knows the terms that each of them pays and in what order they are updated;
`play` gives it batches of two domains. The teachers, a student and a supernet are trained by the
same lines.
"""

import pickle
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer
from tqdm import tqdm

from smallnets import checks
from smallnets.data.translation import Translation
from smallnets.storage import atomic_path, source_digest
from smallnets.training import TrainSettings
from smallnets.training.checkpoint import (
    History,
    cache_path,
    code_digest,
    load_finished,
    save_finished,
)
from smallnets.training.draws import global_draws, global_draws_kept, seed_global

POLICIES = ("linear", "halving", "constant")


@dataclass(frozen=True)
class GANTraining:
    """How to train; the defaults are those of most published scripts.

    Attributes:
        epochs, decay_epochs: with a constant rate, and then with one that falls to 0. An epoch is
            one pass over domain A.
        batch_size: pairs a step.
        lr: of Adam.
        lr_discriminator: of the discriminators' Adam; None is `lr`. GauGAN has half of its rate
            for the generator, and twice of it for the discriminator.
        betas, weight_decay: of Adam.
        policy: "linear" as `linear_policy` says, "halving" after every `halve_every` steps, or
            "constant".
        halve_every: steps.
        load, crop: sides in pixels: images are enlarged to the first, and a random square of the
            second is cut out (published: 286 and 256). None leaves them as they are.
        flip: whether half of the images are mirrored; None is what the data say.
        remember: whether the answers of a fixed teacher to all training images are computed once
            and kept in memory, where images are not cropped. They are what they would be.
        device: "auto" takes a GPU if there is one.

    Raises:
        ValueError: a field is out of range.
    """

    epochs: int = 100
    decay_epochs: int = 100
    batch_size: int = 1
    lr: float = 2e-4
    lr_discriminator: float | None = None
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = 0.0
    policy: str = "linear"
    halve_every: int = 100_000
    load: int | None = None
    crop: int | None = None
    flip: bool | None = None
    remember: bool = True
    device: str = "auto"

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.whole("epochs", self.epochs, 0)
        checks.whole("decay_epochs", self.decay_epochs, 0)
        checks.whole("epochs and decay_epochs together", self.epochs + self.decay_epochs, 1)
        checks.whole("batch_size", self.batch_size, 1)
        checks.above("lr", self.lr, 0)
        if self.lr_discriminator is not None:
            checks.above("lr_discriminator", self.lr_discriminator, 0)
        if not isinstance(self.betas, tuple | list) or len(self.betas) != 2:
            raise ValueError(f"betas must be two numbers; got {self.betas}")
        for beta in self.betas:
            if checks.between("every one of betas", beta, 0, 1) == 1:
                raise ValueError(f"betas must be below 1; got {self.betas}")
        checks.at_least("weight_decay", self.weight_decay, 0)
        checks.one_of("policy", self.policy, POLICIES)
        checks.whole("halve_every", self.halve_every, 1)
        for name in ("load", "crop"):
            if getattr(self, name) is not None:
                checks.whole(name, getattr(self, name), 1)
        if self.load is not None and self.crop is not None and self.crop > self.load:
            raise ValueError(f"crop must be at most load, {self.load}; got {self.crop}")
        TrainSettings(device=self.device)

    @property
    def accelerator(self) -> str:
        """Where to train: "cpu" or "cuda"."""
        return TrainSettings(device=self.device).accelerator

    @property
    def changes_images(self) -> bool:
        """Whether images are seen in ever new ways."""
        return self.load is not None or self.crop is not None

    def factor(self, epoch: int, step: int) -> float:
        """What the rates are multiplied with in an epoch, from 0, and after so many steps."""
        if self.policy == "linear":
            return linear_policy(epoch, self.epochs, self.decay_epochs)
        return 0.5 ** (step // self.halve_every) if self.policy == "halving" else 1.0

    def adam(self, *networks: nn.Module | None, discriminator: bool = False) -> Adam:
        """An optimiser of some networks' parameters."""
        parameters = [p for one in networks if one is not None for p in one.parameters()]
        lr = self.lr_discriminator if discriminator and self.lr_discriminator else self.lr
        return Adam(parameters, lr=lr, betas=self.betas, weight_decay=self.weight_decay, fused=True)


def linear_policy(epoch: int, epochs: int, decay_epochs: int) -> float:
    """1 - max(0, e + 1 - n0) / (n_decay + 1), the official factor of the rate in epoch e, from 0.

    It never gets to 0.
    """
    return 1.0 - max(0, epoch + 1 - epochs) / (decay_epochs + 1)


class Pictures(NamedTuple):
    """A batch: images of two domains on the training's device, which belong together if paired."""

    a: Tensor  # (n, channels, height, width) as networks take them
    b: Tensor
    which: Tensor  # (n,) places of A's images in the training part
    mirrored: Tensor  # bool (n,), of A
    step: int  # from 0, of the whole training
    draw: torch.Generator  # this training's random numbers


Terms = dict[str, Tensor]


class Game(Protocol):
    """What `play` trains."""

    def trained(self) -> dict[str, nn.Module]:
        """The networks that learn, by name."""

    def fixed(self) -> list[nn.Module]:
        """Networks that do not."""

    def optimizers(self, training: GANTraining) -> dict[str, Optimizer]:
        """Of these networks."""

    def prepare(self, data: Translation, training: GANTraining, device: torch.device) -> None:
        """Compute what every step needs."""

    def memory(self) -> dict[str, "ImagePool"]:
        """What is remembered from step to step besides weights."""

    def step(self, batch: Pictures, optimizers: Mapping[str, Optimizer]) -> Terms:
        """Update all networks once; the terms before the update."""


class ImagePool:
    """Images that a generator made earlier, for its discriminator (Shrivastava et al., 2017).

    Args:
        size: images that it holds; 0 is no pool. Until it is full, it returns what it gets. Then it
            returns either the image that it gets, or one of its own, in whose place that one goes.

    Raises:
        ValueError: a size below 0.
    """

    def __init__(self, size: int = 50) -> None:
        self.size = checks.whole("size of the pool", size, 0)
        self.images: list[Tensor] = []

    def __call__(self, images: Tensor, draw: torch.Generator) -> Tensor:
        """As many images (n, ...) as it gets, without gradient."""
        if self.size == 0:
            return images.detach()
        out = []
        for image in images.detach():
            if len(self.images) < self.size:
                self.images.append(image.clone())
            elif float(torch.rand((), generator=draw)) > 0.5:
                place = int(torch.randint(self.size, (), generator=draw))
                earlier, self.images[place] = self.images[place], image.clone()
                image = earlier
            out.append(image)
        return torch.stack(out)


def finite(terms: Terms, step: int) -> Terms:
    """The terms, if all of them are finite.

    Raises:
        ValueError: one is not, which the line names.
    """
    for name, term in terms.items():
        if not bool(term.detach().isfinite()):
            raise ValueError(
                f"every loss term must be finite; {name} is {float(term.detach())} in step {step}: "
                "try a lower learning rate"
            )
    return terms


def check_data(data: Translation, training: GANTraining) -> None:
    """Raise ValueError if there are fewer images than one batch."""
    fewest = min(len(data.a_train), len(data.b_train))
    checks.between("batch_size", training.batch_size, 1, fewest)


def check_pairs(data: Translation) -> None:
    """Raise ValueError if images of the two domains do not belong together."""
    if not data.paired:
        raise ValueError("this game needs pairs; got data without")


def play(
    game: Game,
    data: Translation,
    training: GANTraining,
    *,
    seed: int,
    monitor: Callable[[], Mapping[str, float]] | None = None,
    cache_dir: Path | None = None,
    label: str = "gan",
) -> History:
    """Train a game's networks in place, and return every term in every epoch, as its mean.

    Args:
        game: what learns; afterwards its networks are in evaluation mode on the CPU.
        data: whose training part is used.
        training: how.
        seed: of the order of images and of all random numbers.
        monitor: called after every epoch; what it returns stands in the history, too.
        cache_dir: folder in which the finished training is kept and, while it runs, a checkpoint of
            every epoch: it goes on where it was stopped, bit for bit.
        label: start of the kept file's name, and of the progress bar.

    Raises:
        ValueError: fewer images than one batch, a loss that is not finite (the line says which), or
            a game to be kept that has no name.
    """
    check_data(data, training)
    checks.whole("seed", seed, 0)
    networks = nn.ModuleDict(game.trained())
    networks.train()
    path = (
        None
        if cache_dir is None
        else cache_path(
            cache_dir, label, game=game, data=data.key, training=training, seed=seed,
            monitor=monitor, code=(code_digest(), source_digest("gan")),
            place=(training.accelerator, str(torch.get_default_dtype())),
        )
    )  # fmt: skip
    if path and (finished := load_finished(path, networks)) is not None:
        networks.eval()
        return finished
    with global_draws_kept():
        seed_global(seed)
        history = _played(game, networks, data, training, seed, monitor, path, label)
    networks.to("cpu").eval()
    if path is not None:
        save_finished(path, networks, history)
        path.with_suffix(".running").unlink(missing_ok=True)
    return history


def _played(
    game: Game,
    networks: nn.ModuleDict,
    data: Translation,
    training: GANTraining,
    seed: int,
    monitor: Callable[[], Mapping[str, float]] | None,
    path: Path | None,
    label: str,
) -> History:
    device = torch.device(training.accelerator)
    networks.to(device)
    fixed = [one.to(device).eval() for one in game.fixed()]
    game.prepare(data, training, device)
    optimizers = game.optimizers(training)
    bases = {k: [g["lr"] for g in one.param_groups] for k, one in optimizers.items()}
    draw = torch.Generator().manual_seed(seed)
    checkpoint = _Checkpoint(path, game, networks, optimizers, draw, device)
    history, step = checkpoint.resume()
    epochs = training.epochs + training.decay_epochs
    bar = tqdm(range(len(history), epochs), desc=label, leave=False, delay=2)
    for epoch in bar:
        networks.train()
        sums: dict[str, list[Tensor]] = defaultdict(list)
        for batch in batches_of(data, training, step, draw, device):
            factor = training.factor(epoch, step)
            for name, one in optimizers.items():
                for group, base in zip(one.param_groups, bases[name], strict=True):
                    group["lr"] = base * factor
            for name, term in game.step(batch, optimizers).items():
                sums[name].append(term.detach())
            step += 1
        row = {name: float(torch.stack(terms).mean()) for name, terms in sums.items()}
        if monitor is not None:
            networks.eval()
            row.update(monitor())
        history.append(row)
        checkpoint.save(history, step)
    for one in fixed:
        one.to("cpu")
    return history


def batches_of(
    data: Translation,
    training: GANTraining,
    step: int,
    draw: torch.Generator,
    device: torch.device,
) -> Iterator[Pictures]:
    """The batches of an epoch, which begins with step number `step`.

    Unpaired images of B are drawn from all of them, shuffled anew whenever they are used up.
    """
    count, size = len(data.a_train), training.batch_size
    order_a = torch.randperm(count, generator=draw)
    if data.paired:
        order_b = order_a
    else:
        rounds = -(-count // len(data.b_train))
        order_b = torch.cat(
            [torch.randperm(len(data.b_train), generator=draw) for _ in range(rounds)]
        )
    flip = data.flips if training.flip is None else training.flip
    for place in range(count // size):
        mine = slice(place * size, (place + 1) * size)
        which = order_a[mine]
        a, b = data.a_train[which], data.b_train[order_b[mine]]
        if training.load is not None:
            a = _resized(a, training.load, whole=data.one_hot)
            b = _resized(b, training.load)
        if data.paired:
            (a, b), mirrored = _seen((a, b), training, flip, draw)
        else:
            (a,), mirrored = _seen((a,), training, flip, draw)
            (b,), _ = _seen((b,), training, flip, draw)
        yield Pictures(
            data.a(a).to(device), data.b(b).to(device), which, mirrored, step + place, draw
        )


def _seen(
    images: tuple[Tensor, ...], training: GANTraining, flip: bool, draw: torch.Generator
) -> tuple[list[Tensor], Tensor]:
    """Images (n, c, h, w) that belong together, cropped and mirrored alike."""
    found = list(images)
    if training.crop is not None:
        height, width = found[0].shape[2:]
        if training.crop > min(height, width):
            raise ValueError(
                f"crop must be at most the images' sides, {height} and {width}; got {training.crop}"
            )
        top = int(torch.randint(height - training.crop + 1, (), generator=draw))
        left = int(torch.randint(width - training.crop + 1, (), generator=draw))
        square = (..., slice(top, top + training.crop), slice(left, left + training.crop))
        found = [one[square] for one in found]
    mirrored = torch.zeros(len(found[0]), dtype=torch.bool)
    if flip:
        mirrored = torch.rand(len(found[0]), generator=draw) < 0.5
        where = mirrored.view(-1, 1, 1, 1)
        found = [torch.where(where, one.flip(3), one) for one in found]
    return found, mirrored


def _resized(images: Tensor, side: int, whole: bool = False) -> Tensor:
    """uint8 images at another size, square; `whole`: one-hot maps, which stay 0 and 1."""
    if whole:
        return F.interpolate(images, (side, side), mode="nearest")
    larger = F.interpolate(images.float(), (side, side), mode="bicubic", antialias=True)
    return larger.round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class _Checkpoint:
    """Everything that the next epoch depends on, beside the file of the finished training."""

    path: Path | None
    game: Game
    networks: nn.ModuleDict
    optimizers: Mapping[str, Optimizer]
    draw: torch.Generator
    device: torch.device

    def save(self, history: History, step: int) -> None:
        if self.path is None:
            return
        state: dict[str, Any] = {
            "history": history,
            "step": step,
            "networks": self.networks.state_dict(),
            "optimizers": {name: one.state_dict() for name, one in self.optimizers.items()},
            "pools": {name: pool.images for name, pool in self.game.memory().items()},
            "draws": [one.get_state() for one in (self.draw, *global_draws(self.device))],
        }
        with atomic_path(self.path.with_suffix(".running")) as temporary:
            torch.save(state, temporary)

    def resume(self) -> tuple[History, int]:
        file = None if self.path is None else self.path.with_suffix(".running")
        if file is None or not file.exists():
            return [], 0
        try:
            state = torch.load(file, weights_only=True, map_location=self.device)
        except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
            warnings.warn(
                f"{file.name} is damaged ({type(error).__name__}): training again", stacklevel=4
            )
            return [], 0
        self.networks.load_state_dict(state["networks"])
        for name, one in self.optimizers.items():
            one.load_state_dict(state["optimizers"][name])
        for name, pool in self.game.memory().items():
            pool.images = list(state["pools"][name])
        draws = (self.draw, *global_draws(self.device))
        for generator, saved in zip(draws, state["draws"], strict=True):
            generator.set_state(saved.cpu())
        return state["history"], state["step"]
