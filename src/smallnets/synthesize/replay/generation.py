"""Stage 1, "knowledge recording": a generator from an old classifier alone, without any image."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from smallnets import checks
from smallnets.batches import Batches, first_weights
from smallnets.losses import to_float32
from smallnets.measure import evaluating
from smallnets.synthesize.replay.dreaming import (
    DreamingWeights,
    relative_balance_loss,
    smoothness_loss,
)
from smallnets.synthesize.replay.generators import ReplayGenerator, Shape, check_shape
from smallnets.synthesize.replay.heads import head_name, head_of
from smallnets.synthesize.replay.losses import (
    SPACES,
    VARIATIONS,
    activation_loss,
    class_balance_loss,
    draw_pairs,
    one_hot_loss,
    pair_diversity,
    tv_loss,
)
from smallnets.synthesize.replay.statistics import (
    ClassifierTap,
    bn_norm_loss,
    bn_statistics,
    gaussian_bn_loss,
)
from smallnets.training import Batch, TrainSettings, check_network, fit, seeded, teaching

MODES = ("batch", "running")
JUDGED = 512  # images by which a finished generator is described
Terms = dict[str, Tensor]


@dataclass(frozen=True)
class GeneratorWeights:
    """Weights of the six terms; the defaults are those of the published run on CIFAR-100.

    Attributes:
        one_hot, balance, activation, variation, bn, diversity: see `losses` and `statistics`. A
            term of weight 0 is not computed. The official code's file names suggest a diversity of
            0.1.

    Raises:
        ValueError: a negative weight.
    """

    one_hot: float = 1.0
    balance: float = 5.0
    activation: float = 0.1
    variation: float = 10.0
    bn: float = 20.0
    diversity: float = 0.0

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        for name, weight in self.by_name().items():
            checks.at_least(name, weight, 0)

    def by_name(self) -> dict[str, float]:
        """Name of a term -> its weight."""
        names = ("one_hot", "balance", "activation", "variation", "bn", "diversity")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class GeneratorSettings:
    """How a generator is built and trained; the defaults are the published ones.

    Attributes:
        weights: of the terms; `DreamingWeights` trains it as Always Be Dreaming does.
        latent: length of a latent vector.
        widths, crop: of the generator, see `ReplayGenerator`.
        epochs, steps: iterations are their product; the log has one line an epoch.
        batch: images an iteration.
        lr: of Adam, constant.
        space: where samples are to differ, one of `SPACES`.
        pairs: of the diversity term.
        variation: one of `VARIATIONS`. The published one does not see a checkerboard.
        base: of the logarithm in the class balance.
        device, precision: see `TrainSettings`.

    Raises:
        ValueError: a field is out of range; more pairs than half a batch, where there is a weight
            on diversity.
    """

    weights: GeneratorWeights | DreamingWeights = GeneratorWeights()
    latent: int = 1000
    widths: tuple[int, ...] = (128, 128, 64)
    crop: bool = False
    epochs: int = 500
    steps: int = 120
    batch: int = 512
    lr: float = 1e-2
    space: str = "pixels"
    pairs: int = 200
    variation: str = "telescoped"
    base: float = 10.0
    device: str = "auto"
    precision: str = "32-true"

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        for name in ("latent", "epochs", "steps", "pairs"):
            checks.whole(name, getattr(self, name), 1)
        checks.each("widths", self.widths, checks.whole, 1)
        checks.whole("batch", self.batch, 2)
        checks.above("base", self.base, 1)
        checks.one_of("space", self.space, SPACES)
        checks.one_of("variation", self.variation, VARIATIONS)
        if isinstance(self.weights, GeneratorWeights) and self.weights.diversity > 0:
            draw_pairs(self.batch, self.pairs)
        self.training()

    def training(self) -> TrainSettings:
        """The settings of the loop."""
        return TrainSettings(
            epochs=self.epochs, batch_size=self.batch, lr=self.lr, weight_decay=0.0,
            schedule="constant", optimizer="adam", device=self.device, precision=self.precision,
        )  # fmt: skip

    @property
    def needs_bn(self) -> bool:
        """Whether BatchNorm statistics are matched."""
        return self.weights.bn > 0

    def network(self, image_shape: Shape, seed: int) -> ReplayGenerator:
        """A fresh generator, drawn from a seed."""
        with seeded(seed):
            return ReplayGenerator(image_shape, self.latent, self.widths, crop=self.crop)


PUBLISHED_GENERATOR = GeneratorSettings()


@dataclass(frozen=True, eq=False)
class GeneratorObjective:
    """Objective of a generator for `smallnets.training.fit`.

    Attributes:
        classifier: frozen, in evaluation mode.
        n_old: its classes that count.
        settings: of the generator.
        head: see `head_name`.
    """

    classifier: nn.Module
    n_old: int
    settings: GeneratorSettings
    head: str | None = None

    def __call__(self, generator: nn.Module, batch: Batch) -> Terms:
        """Terms for a batch of latent vectors that is drawn here; the batch's inputs only say how
        many and where.
        """
        drawn = torch.randn(
            (len(batch.images), self.settings.latent),
            generator=batch.noise,
            device=batch.images.device,
        )
        return self.terms(generator, drawn.to(batch.images), batch.noise)

    def terms(
        self,
        generator: nn.Module,
        latents: Tensor,
        noise: torch.Generator | None = None,
        pairs: tuple[Tensor, Tensor] | None = None,
    ) -> Terms:
        """The weighted sum as "loss", and the terms of `generator_terms`.

        Args:
            generator: in training mode.
            latents: (batch, latent).
            noise: of the pairs.
            pairs: themselves, see `pair_diversity`.

        Raises:
            ValueError: the loss is not finite.
        """
        images = generator(latents)
        with ClassifierTap(self.classifier, self.head, norms=self.settings.needs_bn) as tap:
            logits = self.classifier(images)[:, : self.n_old]
            if isinstance(self.settings.weights, DreamingWeights):
                return self._dreamt(images, logits, tap, self.settings.weights)
            return self._published(images, logits, tap, self.settings.weights, noise, pairs)

    def _published(
        self,
        images: Tensor,
        logits: Tensor,
        tap: ClassifierTap,
        weights: GeneratorWeights,
        noise: torch.Generator | None,
        pairs: tuple[Tensor, Tensor] | None,
    ) -> Terms:
        ask = self.settings
        terms: Terms = {}
        if weights.one_hot:
            terms["one_hot"] = one_hot_loss(logits)
        if weights.balance:
            terms["balance"] = class_balance_loss(logits, ask.base)
        if weights.activation:
            terms["activation"] = activation_loss(to_float32(tap.features))
        if weights.variation:
            terms["variation"] = tv_loss(images, ask.variation)
        if weights.bn:
            terms["bn"] = bn_norm_loss(tap.inputs, tap.statistics)
        if weights.diversity:
            samples = {"pixels": images, "logits": logits}.get(ask.space)
            samples = tap.features if samples is None else samples
            terms["diversity"] = pair_diversity(samples, ask.pairs, noise, pairs)
        return _summed(terms, weights.by_name())

    def _dreamt(
        self, images: Tensor, logits: Tensor, tap: ClassifierTap, weights: DreamingWeights
    ) -> Terms:
        terms: Terms = {}
        if weights.content:
            chosen = logits.detach().argmax(dim=1)
            terms["content"] = F.cross_entropy(to_float32(logits) / weights.temperature, chosen)
        if weights.balance:
            terms["balance"] = relative_balance_loss(logits)
        if weights.bn:
            terms["bn"] = gaussian_bn_loss(tap.inputs, tap.statistics)
        if weights.smooth:
            terms["smooth"] = smoothness_loss(images)
        names = ("content", "balance", "bn", "smooth")
        return _summed(terms, {name: getattr(weights, name) for name in names})


def _summed(terms: Terms, weights: dict[str, float]) -> Terms:
    if not terms:
        raise ValueError("at least one weight of a generator must be above 0; all are 0")
    loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
    if not bool(loss.isfinite()):
        raise ValueError(
            "the generator's loss must stay finite; got "
            + ", ".join(f"{name} {float(term.detach()):g}" for name, term in terms.items())
            + ": lower lr, or the weight of diversity, which has no lower bound"
        )
    return {"loss": loss, **terms}


@dataclass(frozen=True, eq=False)
class GeneratorResult:
    """A finished generator, and what it makes.

    Attributes:
        generator: in training mode, in which its images are normalised over their batch.
        history: one line an epoch, the mean of "loss" and of every term.
        n_old: classes of the classifier that counted.
        class_histogram: how many of the images that were looked at have each as their largest
            class, (n_old,). It may be lopsided although the next one is not.
        mean_probabilities: the mean prediction, (n_old,).
        confidence: mean of the largest probability.
        spread: standard deviation of pixels within a class (by largest probability), mean over
            classes and pixels: what diversity is to raise.
        bn_distance: the BatchNorm loss of these images; NaN without BatchNorm.
    """

    generator: nn.Module
    history: list[dict[str, float]]
    n_old: int
    class_histogram: Tensor
    mean_probabilities: Tensor
    confidence: float
    spread: float
    bn_distance: float


def train_generator(
    classifier: nn.Module,
    image_shape: Shape,
    settings: GeneratorSettings = PUBLISHED_GENERATOR,
    *,
    n_old: int | None = None,
    seed: int = 0,
    head: str | None = None,
    generator: nn.Module | None = None,
    cache_dir: Path | None = None,
) -> GeneratorResult:
    """Train a fresh generator whose images an old classifier takes for its data.

    Args:
        classifier: left as it is.
        image_shape: channels, height, width of the images that it takes.
        settings: how.
        n_old: its first classes that count; by default all.
        seed: of the generator's start, the latent vectors and the pairs.
        head: of the classifier, see `head_name`.
        generator: a fresh one of your own, (batch, latent) -> images; trained in place.
        cache_dir: folder in which the finished generator is kept, and every epoch meanwhile, see
            `smallnets.training.fit`.

    Raises:
        ValueError: a classifier without BatchNorm where its statistics are to be matched, one that
            does not take such images, a number out of range, or a loss that is not finite.
    """
    shape = check_shape(image_shape)
    classes = head_of(classifier, head).out_features
    n_old = classes if n_old is None else n_old
    checks.between("n_old", checks.whole("n_old", n_old, 1), 1, classes)
    if settings.needs_bn:
        bn_statistics(classifier)
    frozen = copy.deepcopy(classifier).eval().requires_grad_(False)
    check_network("classifier", frozen, torch.zeros(2, *shape))
    if generator is None:
        generator = settings.network(shape, seed)
    objective = GeneratorObjective(frozen, n_old, settings, head_name(frozen, head))
    places = Batches([torch.zeros(settings.batch, 1)] * settings.steps, labelled=False)
    training = settings.training()
    with teaching([frozen], training.accelerator, torch.channels_last):
        history = fit(
            generator, places, training, seed=seed, objective=objective, cache_dir=cache_dir,
            label="generator",
        )  # fmt: skip
    generator.train()
    return described(generator, history, frozen, settings, n_old, head)


def described(
    generator: nn.Module,
    history: list[dict[str, float]],
    classifier: nn.Module,
    settings: GeneratorSettings,
    n_old: int,
    head: str | None = None,
) -> GeneratorResult:
    """A finished generator with what its images are like to its classifier."""
    noise = torch.Generator().manual_seed(0)
    parts, logits, distances = [], [], []
    with evaluating(classifier), torch.no_grad():
        for _ in range(-(-JUDGED // settings.batch)):
            images = generate(generator, settings.batch, noise, settings.latent)
            with ClassifierTap(classifier, head, norms=settings.needs_bn) as tap:
                logits.append(to_float32(classifier(images)[:, :n_old]))
                if settings.needs_bn:
                    distances.append(float(bn_norm_loss(tap.inputs, tap.statistics)))
            parts.append(images)
    probabilities = torch.cat(logits).softmax(dim=1)
    classes = probabilities.argmax(dim=1)
    return GeneratorResult(
        generator=generator,
        history=history,
        n_old=n_old,
        class_histogram=torch.bincount(classes, minlength=n_old),
        mean_probabilities=probabilities.mean(dim=0),
        confidence=float(probabilities.amax(dim=1).mean()),
        spread=class_spread(torch.cat(parts), classes),
        bn_distance=sum(distances) / len(distances) if distances else float("nan"),
    )


def class_spread(images: Tensor, classes: Tensor) -> float:
    """Standard deviation of every pixel within a class, mean over pixels and classes; NaN if no
    class has two images.
    """
    found = [
        float(images[classes == one].std(dim=0).mean())
        for one in classes.unique()
        if int((classes == one).sum()) > 1
    ]
    return sum(found) / len(found) if found else float("nan")


def generate(
    generator: nn.Module,
    count: int,
    noise: torch.Generator,
    latent: int | None = None,
    mode: str = "batch",
) -> Tensor:
    """Images (count, channels, height, width) of a generator, which is left as it is.

    Args:
        generator: in any mode.
        count: at least 2 in mode "batch".
        noise: of the latent vectors.
        latent: their length; by default the generator's own `latent`.
        mode: "batch" normalises each batch by itself, as in training and in the official code;
            "running" by the running statistics, which gives other images. Neither moves them.

    Raises:
        ValueError: another mode, or a batch that is too small.
    """
    checks.one_of("mode", mode, MODES)
    checks.whole("count of generated images", count, 2 if mode == "batch" else 1)
    length = getattr(generator, "latent", None) if latent is None else latent
    checks.whole("latent", length, 1)  # type: ignore[arg-type]
    weights = first_weights(generator)
    device = noise.device if weights is None else weights.device
    drawn = torch.randn((count, length), generator=noise, device=noise.device)  # type: ignore[arg-type]
    latents = drawn.to(device if weights is None else weights)
    with (
        _batch_statistics(generator) if mode == "batch" else evaluating(generator),
        torch.no_grad(),
    ):
        images: Tensor = generator(latents)
    return images


@contextmanager
def _batch_statistics(generator: nn.Module) -> Iterator[None]:
    """BatchNorm layers normalise by their batch and remember nothing of it."""
    with evaluating(generator):
        norms = [one for one in generator.modules() if isinstance(one, _BatchNorm)]
        tracked = [one.track_running_stats for one in norms]
        for one in norms:
            one.training, one.track_running_stats = True, False
        try:
            yield
        finally:
            for one, before in zip(norms, tracked, strict=True):
                one.track_running_stats = before
