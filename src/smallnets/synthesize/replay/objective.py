"""What is asked of a new classifier while it is trained, and the settings of a sequence."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.data import Augmentation
from smallnets.models.upsampled import is_channels_last
from smallnets.surgery import batch_norms
from smallnets.synthesize.replay.dreaming import (
    PUBLISHED_DREAMING,
    DreamingSettings,
    dreaming_terms,
)
from smallnets.synthesize.replay.generation import MODES, PUBLISHED_GENERATOR, GeneratorSettings
from smallnets.synthesize.replay.heads import OpenClassifier, head_of
from smallnets.synthesize.replay.importance import drift_penalty
from smallnets.synthesize.replay.sources import ReplaySource
from smallnets.synthesize.replay.supervision import (
    ALPHA_RULES,
    Method,
    TermWeights,
    classifier_terms,
)
from smallnets.training import Batch, TrainSettings

# Crop by 4 (mirrored at the edges here, filled with black there) and flip as published.
PUBLISHED_TRAINING = TrainSettings(
    epochs=150, batch_size=128, lr=0.1, momentum=0.9, nesterov=False, weight_decay=5e-4,
    schedule="cosine", augmentation=Augmentation(crop=4, flip=True),
)  # fmt: skip


@dataclass(frozen=True)
class IncrementalSettings:
    """How a sequence of tasks is learned; the defaults are the published ones.

    Attributes:
        training: of every later step. Sweep its learning rate for each method by itself before
            comparing any, see `choose_learning_rate`.
        first: of step 0; by default as `training`.
        generator: how it is trained, where one is.
        temperature: of distillation.
        alpha_rule: one of `ALPHA_RULES`, see `balance_weight`.
        weights: fixed weights of the terms instead of those by alpha.
        replay_batch: replayed images a step. None is as many for each old class as there are new
            images for each new one: batch * N_old / N_new.
        replay_mode: of the generator, see `generate`.
        joint_pass: new and replayed images through the new classifier in one batch. Otherwise, as
            published, in two, and BatchNorm normalises each by itself.
        freeze_bn: BatchNorm layers of the new classifier keep their statistics in later steps.
        ewc_strength, mas_strength: of the penalties, see `drift_penalty`. The numbers that they
            multiply are of other sizes. Too high a product with the learning rate diverges.
        importance_images: of a task, by which the importance of weights is measured.
        dreaming: of "abd".

    Raises:
        ValueError: a field is out of range.
    """

    training: TrainSettings = PUBLISHED_TRAINING
    first: TrainSettings | None = None
    generator: GeneratorSettings = PUBLISHED_GENERATOR
    temperature: float = 2.0
    alpha_rule: str = "classes"
    weights: TermWeights | None = None
    replay_batch: int | None = None
    replay_mode: str = "batch"
    joint_pass: bool = False
    freeze_bn: bool = False
    ewc_strength: float = 1000.0
    mas_strength: float = 1.0
    importance_images: int = 500
    dreaming: DreamingSettings = PUBLISHED_DREAMING

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.above("temperature", self.temperature, 0)
        checks.one_of("alpha_rule", self.alpha_rule, ALPHA_RULES)
        checks.one_of("replay_mode", self.replay_mode, MODES)
        if self.replay_batch is not None:
            checks.whole("replay_batch", self.replay_batch, 2)
        checks.at_least("ewc_strength", self.ewc_strength, 0)
        checks.at_least("mas_strength", self.mas_strength, 0)
        checks.whole("importance_images", self.importance_images, 1)

    @property
    def first_training(self) -> TrainSettings:
        """The settings of step 0."""
        return self.training if self.first is None else self.first


PUBLISHED = IncrementalSettings()


@dataclass(frozen=True, eq=False)
class Inheritance:
    """Objective of a new classifier under its predecessor, for `smallnets.training.fit`.

    Attributes:
        method: a row of `METHODS` other than "abd".
        old: the old classifier, frozen, in evaluation mode.
        n_old, n_new: classes.
        weights: of the terms.
        temperature: of distillation.
        source: of replayed images, where there are any.
        replay_batch, joint_pass, freeze_bn: see `IncrementalSettings`.
        importance: of the old classifier's weights, in their order, where they are held.
        strength: with which they are.
    """

    method: Method
    old: nn.Module
    n_old: int
    n_new: int
    weights: TermWeights
    temperature: float = 2.0
    source: ReplaySource | None = None
    replay_batch: int | None = None
    joint_pass: bool = False
    freeze_bn: bool = False
    importance: tuple[Tensor, ...] = ()
    strength: float = 0.0

    def __call__(self, student: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The terms of `classifier_terms`, and "penalty"."""
        if self.freeze_bn:
            _keep_statistics(student)
        ask, images = self.method, batch.images
        replayed = replayed_logits = old_on_replayed = old_on_new = None
        if self.source is not None:
            replayed = _drawn(self.source, batch, self.replay_batch, self.n_old, self.n_new)
        with torch.no_grad():
            if ask.distil_new:
                old_on_new = self.old(images)
            if replayed is not None:
                old_on_replayed = self.old(replayed)
        if replayed is None:
            logits = student(images)
        elif self.joint_pass:
            both = student(torch.cat([images, replayed]))
            logits, replayed_logits = both.split([len(images), len(replayed)])
        else:
            replayed_logits = student(replayed)
            logits = student(images)
        terms = classifier_terms(
            ask, logits, batch.labels, self.n_old, self.weights, self.temperature,
            old_on_new=old_on_new, replayed=replayed_logits, old_on_replayed=old_on_replayed,
        )  # fmt: skip
        if self.importance:
            now = list(student.parameters())
            held = [one.to(p) for one, p in zip(self.importance, now, strict=True)]
            terms["penalty"] = drift_penalty(now, list(self.old.parameters()), held, self.strength)
            terms["loss"] = terms["loss"] + terms["penalty"]
        return terms


@dataclass(frozen=True, eq=False)
class Dreaming:
    """Objective of Always Be Dreaming for an `OpenClassifier`, see `dreaming_terms`.

    Attributes:
        old: the old classifier, opened, frozen, in evaluation mode.
        head: of the new classifier, as it is trained.
        n_old, n_new: classes.
        source: of replayed images. The official code draws them in mode "running".
        mu: weight of the distances between features.
        replay_batch, freeze_bn: see `IncrementalSettings`.
    """

    old: OpenClassifier
    head: nn.Linear
    n_old: int
    n_new: int
    source: ReplaySource
    mu: float = 0.1
    replay_batch: int | None = None
    freeze_bn: bool = False

    def __call__(self, student: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The terms of `dreaming_terms`. Both kinds of images are in one batch, as published."""
        if self.freeze_bn:
            _keep_statistics(student)
        replayed = _drawn(self.source, batch, self.replay_batch, self.n_old, self.n_new)
        images = torch.cat([batch.images, replayed])
        with torch.no_grad():
            known = self.old(images)
        seen, new = student(images), len(batch.images)
        return dreaming_terms(
            seen.logits[:new], seen.features["head"], known.features["head"], batch.labels,
            known.logits[new:, : self.n_old].argmax(dim=1), self.head,
            head_of(self.old.model, self.old.head), self.n_old, self.mu,
        )  # fmt: skip


def _drawn(source: ReplaySource, batch: Batch, fixed: int | None, n_old: int, n_new: int) -> Tensor:
    assert batch.noise is not None
    count = fixed or max(2, round(len(batch.images) * n_old / n_new))
    images = source.draw(count, batch.images, batch.noise)
    # In the order in which the student is trained, see `smallnets.models.layout`.
    last = is_channels_last(batch.images)
    return images.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def _keep_statistics(student: nn.Module) -> None:
    for norm in batch_norms(student):
        norm.eval()
