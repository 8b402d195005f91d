"""One call: a generator of your own becomes a smaller one within a budget.

The Fast pipeline on the general supernet: the generator is the teacher; a supernet of it, of every
width, learns from it with a discriminator; the best configuration within the budget is searched on
images that were held out, trained further if wanted, and exported.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.data.translation import Translation, as_levels, as_signed
from smallnets.gan.compression import Compression, Config, check_images
from smallnets.gan.features import FeatureMaps
from smallnets.gan.networks import Cost, PatchDiscriminator, initialise
from smallnets.gan.networks.general import GeneralSupernet, Widths
from smallnets.gan.networks.general import supernet as general_supernet
from smallnets.gan.networks.tapped import Tapped
from smallnets.gan.objectives import PUBLISHED, Objective
from smallnets.gan.playing import GANTraining
from smallnets.gan.scores import Distance, Measure, calibration_batches, score_of, translated
from smallnets.gan.search import PUBLISHED_EVOLUTION, Evolution, SearchResult
from smallnets.gan.steps import COSTS, SEARCHES, export, fine_tune, search_supernet, train_supernet
from smallnets.measure import evaluating
from smallnets.storage import one_line
from smallnets.training import seeded
from smallnets.training.checkpoint import History

FAST = GANTraining(epochs=200, decay_epochs=200)  # of the supernet of horse to zebra
HELD_OUT = 256  # images at most on which configurations are compared
Pairs: TypeAlias = Translation | Tensor | tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Compressed:
    """A smaller generator, and how it came about.

    Attributes:
        network: of the generator's class, in evaluation mode.
        config: numbers of channels, see `GeneralSupernet.genes`.
        cost, full_cost: for one image, of this network and of the whole generator.
        search: all that was compared.
        supernet: trained; after fine-tuning the chosen widths of it alone.
        history, tuning: of the supernet's training, and of fine-tuning (empty without).
    """

    network: nn.Module
    config: Config
    cost: Cost
    full_cost: Cost
    search: SearchResult
    supernet: GeneralSupernet
    history: History
    tuning: History


def compress(
    generator: nn.Module,
    data: Pairs,
    *,
    budget: float,
    discriminator: nn.Module | None = None,
    objective: Objective | None = None,
    training: GANTraining = FAST,
    fine_tuning: GANTraining | None = None,
    widths: Widths | None = None,
    taps: Sequence[str] = (),
    perceptual: nn.Module | None = None,
    measure: Callable[[Tensor], Measure] | None = None,
    maximise: bool = False,
    method: str = "evolution",
    search: Evolution = PUBLISHED_EVOLUTION,
    evaluations: int | None = None,
    cost: str = "exact",
    seed: int = 0,
    cache_dir: Path | None = None,
) -> Compressed:
    """A generator of the same class with fewer channels, within a budget.

    The supernet begins with the generator's weights, its most important channels first.

    Args:
        generator: trained; images (n, c, h, w) in [-1, 1] -> images of the same height and width.
            Left as it is. Its layers are found by themselves, see
            `smallnets.gan.networks.general.supernet`.
        data: pairs (inputs, targets); inputs alone, for which the generator's own images are both
            target and what the discriminator takes for real; or a `Translation`, paired or not.
            Tensors are uint8, or floating point in [-1, 1], and are kept with 256 levels.
        budget: largest cost for one image of the data's size; below 1, a share of the whole
            generator's.
        discriminator: that the generator was trained with, which is trained further: it sees inputs
            and images together where there are pairs, else images alone. Left as it is. None is a
            new PatchGAN, with which training is less stable.
        objective: what is asked for. None is the published one for pairs or without; without taps
            there is no distillation of features.
        training: of the supernet.
        fine_tuning: of the configuration found; None leaves it as it is in the supernet.
        widths: which layers may have what widths; None takes all of them, at 1, 3/4, 1/2 and 1/4.
        taps: dotted names of modules whose outputs are distilled; they stand at one size each.
        perceptual: for that kind of reconstruction.
        measure: held-out targets (n, c, h, w) -> measure of images, see `smallnets.gan.scores`;
            None is the mean absolute difference from them.
        maximise: whether more of it is better.
        method, search, evaluations: see `search_supernet`.
        cost: what the budget is of: "exact" multiply-accumulates, "published" ones, "parameters".
        seed: of everything random.
        cache_dir: folder in which every step keeps its result.

    Raises:
        ValueError: data of another kind or size than the generator takes or makes, too few of them,
            a budget below the smallest configuration's cost (before any training), or as the steps.
    """
    checks.one_of("cost", cost, COSTS)
    checks.one_of("method", method, SEARCHES)
    checks.above("budget", budget, 0)
    checks.whole("seed", seed, 0)
    images = as_translation(generator, data)
    _check_generator(generator, images)
    ask = objective or _usual(images.paired, bool(taps))
    if ask.distill > 0 and not taps:
        raise ValueError(
            f"a distillation weight of {ask.distill} needs taps, names of modules; got none"
        )
    example = images.a(images.a_train[:2])
    wide = general_supernet(generator, example, widths, taps=taps, sort=True)
    size = images.size
    full, smallest = (wide.cost(one, size) for one in (wide.full_config, wide.space.smallest()))
    allowed = budget * getattr(full, cost) if budget < 1 else budget
    if allowed < getattr(smallest, cost):
        raise ValueError(
            f"budget must be at least {getattr(smallest, cost)}, the cost of the smallest "
            f"configuration; got {allowed:g}"
        )
    fewest = min(len(images.a_train), len(images.b_train))
    chosen = images.held_out(max(1, min(HELD_OUT, fewest // 5)), seed)
    teacher = Tapped(copy.deepcopy(generator).eval(), taps)
    features, judge = _learners(wide, teacher, images, example, discriminator, bool(taps), seed)
    game = Compression(
        wide, judge, teacher, features, wide.space, ask=ask, paired=images.paired,
        perceptual=perceptual,
    )  # fmt: skip
    _check_discriminator(judge, game, images)
    inputs = chosen.a(chosen.a_test)
    target = chosen.b(chosen.b_test) if images.paired else translated(generator, inputs)
    calibration = calibration_batches(chosen)
    score = score_of(
        wide, inputs, Distance(target) if measure is None else measure(target),
        calibration=calibration,
    )  # fmt: skip
    history = train_supernet(game, chosen, training, seed=seed, cache_dir=cache_dir)
    found = search_supernet(
        wide, wide.space, score, allowed, size, method=method, settings=search,
        evaluations=evaluations, cost=cost, seed=seed, maximise=maximise, cache_dir=cache_dir,
    )  # fmt: skip
    tuning: History = []
    if fine_tuning is not None:
        tuning = fine_tune(game, found.best, chosen, fine_tuning, seed=seed, cache_dir=cache_dir)
    network = export(wide, found.best, calibration=calibration, cache_dir=cache_dir)
    return Compressed(
        network, found.best, wide.cost(found.best, size), full, found, wide, history, tuning
    )


def as_translation(generator: nn.Module, data: Pairs) -> Translation:
    """Pairs or images of a user's own as two domains; see `compress`.

    Raises:
        ValueError: something else, or fewer than two images.
    """
    if isinstance(data, Translation):
        found = data
    elif isinstance(data, Tensor):
        a = _levels("images", data)
        made = _made(generator, as_signed(a))
        b = _levels("the generator's images", made)
        found = Translation("images", a, b, a[:1], b[:1], paired=False)
    elif isinstance(data, tuple | list) and len(data) == 2:
        a, b = _levels("inputs", data[0]), _levels("targets", data[1])
        found = Translation("pairs", a, b, a[:1], b[:1], paired=True)
    else:
        raise ValueError(
            "data must be a Translation, images, or a pair (inputs, targets) of tensors; "
            f"got {type(data).__name__}"
        )
    if min(len(found.a_train), len(found.b_train)) < 2:
        raise ValueError("data must hold at least 2 images of each domain; got fewer")
    return found


def _levels(name: str, images: Any) -> Tensor:
    """Images of a user's own as uint8."""
    if not isinstance(images, Tensor):
        raise ValueError(f"{name} must be a tensor; got {type(images).__name__}")
    check_images(name, images)
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise ValueError(f"{name} must be uint8 or floating point; got {images.dtype}")
    if images.min() < -1 or images.max() > 1:
        raise ValueError(
            f"{name} must be from -1 to 1; got {float(images.min()):g} to {float(images.max()):g}"
        )
    return as_levels(images)


def _check_generator(generator: nn.Module, data: Translation) -> None:
    """Raise ValueError unless a generator makes images of domain B of those of domain A."""
    made = _made(generator, data.a(data.a_train[:1]))
    if made.shape[1:] != data.b_train.shape[1:]:
        raise ValueError(
            f"the generator must make images of shape {tuple(data.b_train.shape[1:])}, as the "
            f"targets; it makes {tuple(made.shape[1:])}"
        )


def _check_discriminator(judge: nn.Module, game: Compression, data: Translation) -> None:
    """Raise ValueError unless a discriminator takes what the game shows it."""
    shown = game.seen(data.a(data.a_train[:2]), data.b(data.b_train[:2]))
    try:
        with evaluating(judge), torch.no_grad():
            judge(shown)
    except (RuntimeError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise ValueError(
            f"the discriminator must take images of shape {tuple(shown.shape[1:])}: "
            f"{one_line(error)}"
        ) from error


def _made(generator: nn.Module, inputs: Tensor) -> Tensor:
    """A generator's images; ValueError in one line if it does not take the inputs."""
    try:
        return translated(generator, inputs)
    except (RuntimeError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(
            f"the generator does not take images of shape {tuple(inputs.shape[1:])}: "
            f"{one_line(error)}"
        ) from error


def _usual(paired: bool, tapped: bool) -> Objective:
    """The published weights for pairs (edges to shoes) or without (horse to zebra)."""
    ask = PUBLISHED["edges2shoes" if paired else "horse2zebra"]
    return ask if tapped else replace(ask, distill=0.0)


def _learners(
    wide: GeneralSupernet,
    teacher: Tapped,
    data: Translation,
    example: Tensor,
    discriminator: nn.Module | None,
    tapped: bool,
    seed: int,
) -> tuple[FeatureMaps | None, nn.Module]:
    """Maps of the tapped layers, and a discriminator that may be changed."""
    with seeded(seed):
        features = (
            FeatureMaps(wide.tap_channels(), teacher.tap_channels(example)) if tapped else None
        )
        if discriminator is not None:
            return features, copy.deepcopy(discriminator).requires_grad_(True)
        channels = data.b_channels + (data.a_channels if data.paired else 0)
        layers = next((n for n in (3, 2, 1) if min(data.size) >= 8 * 2**n), 1)
        judge = initialise(PatchDiscriminator(channels, 64, layers))
    return features, judge
