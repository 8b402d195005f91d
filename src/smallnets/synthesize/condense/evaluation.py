"""One way of judging every set: fresh networks, trained on the set alone, tested on real images.

The published protocol: SGD with momentum, E + 1 epochs, the rate divided by ten once after the
epoch with index E // 2 + 1, where the optimizer is made anew and its momentum forgotten; siamese
augmentation with parameters of its own for every image; the accuracy after the last epoch, without
a choice among epochs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets import checks, measure
from smallnets.models import memory_format
from smallnets.synthesize.condense import chance
from smallnets.synthesize.condense.augmentation import FULL, apply_dsa, check_strategy, sample_dsa
from smallnets.synthesize.condense.selection import Forgetting, forgetting_events
from smallnets.synthesize.condense.sets import (
    Data,
    ImageSet,
    check_same_constants,
    test_set,
    training_set,
)
from smallnets.training import DEVICES, TrainSettings, run_parallel, seeded

Factory = Callable[[], nn.Module]
AfterEpoch = Callable[[int, nn.Module], object]
AT_A_TIME = 256  # images whose answers are asked for together


@dataclass(frozen=True)
class EvalSettings:
    """How a network is trained on a set; the defaults are those of DM and DSA.

    Attributes:
        epochs: the E of the protocol, which trains E + 1 epochs. 1000, and 300 for DC without
            augmentation.
        lr: before the drop. 0.1 with 100 epochs keeps the ranking of methods in a tenth of the
            time.
        momentum, weight_decay: of SGD.
        batch_size: images a step; all of a smaller set.
        strategy: siamese augmentation; None is none. The same for all methods that are compared.
        align_corners: see `apply_dsa`.
        iterations: the most steps in all; None is no limit. It is how "early stopping" trains on
            real data for as long as a small set takes.
        device: "auto" takes a GPU if there is one.

    Raises:
        ValueError: a field is out of range.
    """

    epochs: int = 1000
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 256
    strategy: str | None = FULL
    align_corners: bool = False
    iterations: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.whole("epochs", self.epochs, 0)
        checks.above("lr", self.lr, 0)
        checks.between("momentum", self.momentum, 0, 1)
        checks.at_least("weight_decay", self.weight_decay, 0)
        checks.whole("batch_size", self.batch_size, 1)
        check_strategy(self.strategy)
        if self.iterations is not None:
            checks.whole("iterations", self.iterations, 1)
        checks.one_of("device", self.device, DEVICES)

    @property
    def rates(self) -> list[float]:
        """The learning rate of each of the E + 1 epochs."""
        drop = self.epochs // 2 + 1
        return [self.lr if epoch <= drop else 0.1 * self.lr for epoch in range(self.epochs + 1)]

    def steps(self, images: int) -> int:
        """Steps of a training on so many images."""
        each = -(-images // self.batch_size)
        whole_training = each * (self.epochs + 1)
        return whole_training if self.iterations is None else min(whole_training, self.iterations)


PUBLISHED_EVALUATION = EvalSettings()


class Trained(NamedTuple):
    """A network that was trained on a set."""

    network: nn.Module
    train_accuracy: float  # of the last epoch, on the images as they were augmented


def train_on(
    data: Data,
    factory: Factory,
    settings: EvalSettings = PUBLISHED_EVALUATION,
    seed: int = 0,
    *,
    after_epoch: AfterEpoch | None = None,
    seen: Callable[[Tensor, Tensor], object] | None = None,
) -> Trained:
    """Train a fresh network on a set: a synthetic one, or the whole of the real data.

    Args:
        data: what it sees.
        factory: () -> a network, called under random numbers of the seed.
        settings: how.
        seed: of weights, order and augmentation.
        after_epoch: (epoch, network), from 0 on.
        seen: (places of the images, whether each was classified correctly), for every batch.

    Raises:
        ValueError: the network has fewer classes than the set, or its loss is not finite.
    """
    images = training_set(data)
    device = torch.device(TrainSettings(device=settings.device).accelerator)
    draws = chance.generator(checks.whole("seed", seed, 0), chance.ORDER)
    with seeded(chance.number_of(seed, chance.NETWORK)):
        network = factory().train()
        network.to(device, memory_format=memory_format(network))
        count = right = done = 0
        rates = settings.rates
        for epoch, rate in enumerate(rates):
            if epoch == 0 or rate != rates[epoch - 1]:
                optimizer = _sgd(network, settings, rate)
            count = right = 0
            for which in torch.randperm(len(images), generator=draws).split(settings.batch_size):
                if done == settings.iterations:
                    break
                view = sample_dsa(settings.strategy, len(which), images.size, draws)
                x = apply_dsa(images.take(which).to(device), view, settings.align_corners)
                y = images.labels[which].to(device)
                correct = _step(network, optimizer, x, y)
                if seen is not None:
                    seen(which, correct.cpu())
                right, count, done = right + int(correct.sum()), count + len(which), done + 1
            if after_epoch is not None:
                after_epoch(epoch, network)
            if done == settings.iterations:
                break
        network.zero_grad()
    return Trained(network.eval(), right / max(count, 1))


def _sgd(network: nn.Module, settings: EvalSettings, rate: float) -> torch.optim.SGD:
    return torch.optim.SGD(
        network.parameters(), rate, momentum=settings.momentum, weight_decay=settings.weight_decay
    )


def _step(network: nn.Module, optimizer: torch.optim.SGD, x: Tensor, y: Tensor) -> Tensor:
    logits = measure.one_tensor(network(x))
    if logits.shape[1] <= int(y.max()):
        raise ValueError(
            f"the network must have at least {int(y.max()) + 1} classes; got {logits.shape[1]}"
        )
    loss = F.cross_entropy(logits, y)
    if not bool(loss.isfinite()):
        raise ValueError(
            f"the loss must stay finite; got {float(loss.detach())} with lr "
            f"{optimizer.param_groups[0]['lr']:g}"
        )
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return logits.detach().argmax(1) == y


def accuracy(network: nn.Module, data: Data) -> float:
    """Share of the test images that a network classifies correctly, 0 to 1."""
    images = test_set(data)
    right = 0
    for which in torch.arange(len(images)).split(AT_A_TIME):
        said = measure.predict(network, images.take(which)).argmax(1)
        right += int((said == images.labels[which]).sum())
    return right / len(images)


class EvalResult(NamedTuple):
    """Accuracies float64 (sets, networks), 0 to 1, on real test images.

    Networks of one set are no independent sets: the error of a method is the spread over sets.
    """

    accuracies: Tensor

    @property
    def mean(self) -> float:
        """Over sets and networks, as published."""
        return float(self.accuracies.mean())

    @property
    def spread(self) -> float:
        """Standard deviation over all networks of all sets, as published."""
        return float(self.accuracies.std(correction=0))

    @property
    def error(self) -> float:
        """Standard error of the mean over sets; nan for one set."""
        means = self.accuracies.mean(1)
        return float(means.std() / len(means) ** 0.5) if len(means) > 1 else float("nan")


def evaluate_set(
    sets: ImageSet | Sequence[ImageSet],
    test: Data,
    factory: Factory,
    settings: EvalSettings = PUBLISHED_EVALUATION,
    seeds: Sequence[int] = range(5),
    *,
    workers: int | None = None,
) -> EvalResult:
    """Train fresh networks on one set or several, and test each on the real test images.

    Args:
        sets: what is judged: learned, chosen, or whole (`training_set(dataset)`).
        test: a `Dataset`, whose test part is used, or a set.
        factory: () -> a network.
        settings: the same for all methods that are compared.
        seeds: one network each: 5 to 20 as published.
        workers: see `smallnets.training.run_parallel`.

    Raises:
        ValueError: sets that are normalised otherwise than the test images; no set or no seed.
    """
    judged = [sets] if isinstance(sets, ImageSet) else list(sets)
    if not judged or not len(seeds):
        raise ValueError("there must be at least one set and one seed; got none")
    tested = test_set(test)
    for one in judged:
        check_same_constants(one, tested)
    jobs = [{"images": one, "seed": int(seed)} for one in judged for seed in seeds]

    def job(images: ImageSet, seed: int) -> float:
        return accuracy(train_on(images, factory, settings, seed).network, tested)

    found = run_parallel(job, jobs, workers=workers, description="evaluating")
    return EvalResult(torch.tensor(found, dtype=torch.float64).view(len(judged), len(seeds)))


def trained_features(
    data: Data, factory: Factory, settings: EvalSettings = PUBLISHED_EVALUATION, seed: int = 0
) -> Tensor:
    """Embeddings (N, D) of all training images by a network that was trained on them.

    For herding and k-center. In continual learning pass the images of the current step alone.
    """
    images = training_set(data)
    return features(train_on(images, factory, settings, seed).network, images)


def features(network: nn.Module, data: Data) -> Tensor:
    """Embeddings float32 (n, D) of a set, in evaluation mode."""
    images = training_set(data)
    place = next(network.parameters(), torch.empty(0)).device
    with measure.evaluating(network), torch.no_grad():
        parts = [
            network.embed(images.take(which).to(place)).cpu()  # type: ignore[operator]
            for which in torch.arange(len(images)).split(AT_A_TIME)
        ]
    return torch.cat(parts)


def watch_forgetting(
    data: Data, factory: Factory, settings: EvalSettings = PUBLISHED_EVALUATION, seed: int = 0
) -> Forgetting:
    """Forgetting events of all training images in one training on the whole set."""
    images = training_set(data)
    correct = torch.zeros(settings.epochs + 1, len(images), dtype=torch.bool)
    at = torch.zeros(len(images), dtype=torch.int64)

    def seen(which: Tensor, right: Tensor) -> None:
        correct[at[which], which] = right
        at[which] += 1

    train_on(images, factory, settings, seed, seen=seen)
    return forgetting_events(correct[: int(at.min())])
