"""Stage 2, "knowledge inheritance": what a new classifier learns from, and every variant of it.

Columns of the head: the first N_old are the old classes, the others the new ones.

    KD(s, t)   = - mean_i sum_{c old} softmax(t_i / T)_c log softmax(s_i,old / T)_c
    CE_local   = mean_i CE(s_i,new , y_i - N_old)
    L_MFGR     = (1 - alpha) CE_local(new) + alpha (KD(generated) + KD(new)),  alpha = N_old / N

Nothing in L_MFGR compares an old column with a new one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F

from smallnets import checks, losses
from smallnets.losses import to_float32

ALPHA_RULES = ("classes", "steps")
SOURCES = ("none", "generator", "noise", "real")
CUTS = ("none", "local", "full")
PENALTIES = ("none", "ewc", "mas")


class DivergedError(ValueError):
    """Logits that are not finite: the training has diverged, mostly of too high a learning rate."""


def check_finite(name: str, logits: Tensor) -> None:
    """Raise DivergedError unless all logits are finite."""
    try:
        losses.check_finite(name, logits)
    except ValueError as error:
        raise DivergedError(str(error)) from None


@dataclass(frozen=True)
class Method:
    """What supervises which classes, as one row of a table.

    Attributes:
        new: cross-entropy on new images: over the "local" (new) columns, "full" (all), or "none".
        distil_new: KD on new images.
        replay: where replayed images come from: a "generator", "noise", "real" old images, "none".
        distil_replay: KD on replayed images.
        replay_labels: cross-entropy with the old model's largest class on replayed images: over
            the "local" (old) columns, "full" (all), or "none".
        swapped: whether the cross-entropy of replayed images is weighted with alpha instead of
            1 - alpha.
        penalty: on how far weights move, "ewc", "mas" or "none".
        all_data: whether it trains on the images of all tasks seen.
        dreaming: whether it is Always Be Dreaming, whose loss is its own.

    Raises:
        ValueError: an unknown word, replayed images without a term or the reverse, or no term.
    """

    new: str = "local"
    distil_new: bool = False
    replay: str = "none"
    distil_replay: bool = False
    replay_labels: str = "none"
    swapped: bool = False
    penalty: str = "none"
    all_data: bool = False
    dreaming: bool = False

    def __post_init__(self) -> None:
        checks.one_of("new", self.new, CUTS)
        checks.one_of("replay", self.replay, SOURCES)
        checks.one_of("replay_labels", self.replay_labels, CUTS)
        checks.one_of("penalty", self.penalty, PENALTIES)
        asked = self.distil_replay or self.replay_labels != "none" or self.dreaming
        if asked != (self.replay != "none"):
            raise ValueError(
                "a method must have a term on replayed images exactly where it replays any; "
                f"got replay {self.replay!r} and {'some' if asked else 'no'} term"
            )
        if self.new == "none" and not (self.distil_new or asked):
            raise ValueError("a method must have at least one term; got none")

    @property
    def memory_free(self) -> bool:
        """Whether a step sees no training image but its own task's."""
        return not self.all_data and self.replay != "real"

    @property
    def balanced(self) -> bool:
        """Whether its terms are weighted by alpha; a lone cross-entropy is not."""
        return self.distil_new or self.replay != "none"


_MFGR = Method(distil_new=True, replay="generator", distil_replay=True)
METHODS: Mapping[str, Method] = MappingProxyType(
    {
        # The published method; in the official code "gnkd_ncecut".
        "mfgr": _MFGR,
        # The official code's other choices of supervision.
        "gnkdcecut_ncecut": replace(_MFGR, replay_labels="local"),
        "gnkdce_nce": replace(_MFGR, new="full", replay_labels="full"),
        "gnce": Method(new="full", replay="generator", replay_labels="full", swapped=True),
        "lwf": Method(distil_new=True),
        "ndkd": Method(new="none", distil_new=True),
        "gdkd": Method(new="none", replay="generator", distil_replay=True),
        "finetune": Method(new="full"),
        "joint": Method(new="full", all_data=True),
        # Baselines and controls.
        "lwf_full": Method(new="full", distil_new=True),
        "replay_only": replace(_MFGR, distil_new=False),
        "noise_replay": replace(_MFGR, replay="noise"),
        "real_replay": replace(_MFGR, replay="real"),
        "ewc": Method(new="full", penalty="ewc"),
        "mas": Method(new="full", penalty="mas"),
        "abd": Method(replay="generator", dreaming=True),
    }
)


@dataclass(frozen=True)
class TermWeights:
    """Weights of cross-entropy and KD on replayed ("old") and on new images.

    Raises:
        ValueError: a negative weight.
    """

    old_ce: float
    new_ce: float
    old_kd: float
    new_kd: float

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        for name in ("old_ce", "new_ce", "old_kd", "new_kd"):
            checks.at_least(name, getattr(self, name), 0)


def distillation(
    student_logits: Tensor, teacher_logits: Tensor, n_old: int, temperature: float = 2.0
) -> Tensor:
    """Cross-entropy of the tempered old columns, mean over the batch, without a factor T^2.

    Its least value is the teacher's entropy, not 0. New columns have no part in it.

    Args:
        student_logits: (batch, N).
        teacher_logits: (batch, N_old or more), frozen.
        n_old: the old classes.
        temperature: T.

    Raises:
        ValueError: other shapes, n_old or temperature out of range, or logits that are not finite.
    """
    checks.above("temperature", temperature, 0)
    _check(student_logits, n_old)
    check_finite("student_logits", student_logits)
    if teacher_logits.dim() != 2 or len(teacher_logits) != len(student_logits):
        raise ValueError(
            f"teacher_logits must be ({len(student_logits)}, {n_old} or more); "
            f"got {tuple(teacher_logits.shape)}"
        )
    checks.between("n_old", n_old, 1, teacher_logits.shape[1])
    check_finite("teacher_logits", teacher_logits)
    target = (to_float32(teacher_logits[:, :n_old]) / temperature).softmax(dim=1)
    answer = (to_float32(student_logits[:, :n_old]) / temperature).log_softmax(dim=1)
    return -(target.detach() * answer).sum(dim=1).mean()


def local_cross_entropy(student_logits: Tensor, labels: Tensor, n_old: int) -> Tensor:
    """Cross-entropy with a softmax over the new columns only, mean over the batch.

    Args:
        student_logits: (batch, N).
        labels: (batch,), from n_old to N - 1: columns of the whole head.
        n_old: the old classes; 0 is a plain cross-entropy.

    Raises:
        ValueError: a label that is none of the new classes, other shapes, n_old out of range, or
            logits that are not finite.
    """
    if n_old:
        _check(student_logits, n_old)
    return _cross_entropy(student_logits, labels, n_old, student_logits.shape[1])


def old_cross_entropy(student_logits: Tensor, labels: Tensor, n_old: int) -> Tensor:
    """Cross-entropy with a softmax over the old columns only, mean over the batch.

    Args and Raises: as `local_cross_entropy`, for labels from 0 to n_old - 1.
    """
    _check(student_logits, n_old)
    return _cross_entropy(student_logits, labels, 0, n_old)


def full_cross_entropy(student_logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with a softmax over all columns, mean over the batch."""
    return _cross_entropy(student_logits, labels, 0, student_logits.shape[1])


def _cross_entropy(logits: Tensor, labels: Tensor, first: int, end: int) -> Tensor:
    check_finite("logits", logits)
    low, high = int(labels.min()), int(labels.max())
    if low < first or high >= end:
        raise ValueError(
            f"labels must be between {first} and {end - 1}, the classes of this task; "
            f"got {low} to {high}"
        )
    return F.cross_entropy(to_float32(logits[:, first:end]), labels - first)


def _check(student_logits: Tensor, n_old: int) -> None:
    if student_logits.dim() != 2 or student_logits.numel() == 0:
        raise ValueError(
            f"student_logits must be (batch, classes); got {tuple(student_logits.shape)}"
        )
    checks.between("n_old", checks.whole("n_old", n_old, 1), 1, student_logits.shape[1] - 1)


def balance_weight(n_old: int, n_new: int, rule: str = "classes", step: int | None = None) -> float:
    """alpha, the weight of what protects the old classes.

    Args:
        n_old, n_new: classes seen before, and coming now. Without old ones alpha is 0.
        rule: "classes", N_old / (N_old + N_new); or "steps", i / (i + 1), which the official code
            has for some variants and which is the same if all groups are equally large.
        step: i, from 0; for "steps".

    Raises:
        ValueError: a number out of range, an unknown rule, or no step where it is needed.
    """
    checks.whole("n_old", n_old, 0)
    checks.whole("n_new", n_new, 1)
    if checks.one_of("rule", rule, ALPHA_RULES) == "classes":
        return n_old / (n_old + n_new)
    if step is None:
        raise ValueError("step must be a whole number for alpha by steps; got None")
    return checks.whole("step", step, 0) / (step + 1)


def term_weights(method: Method, alpha: float) -> TermWeights:
    """The weights that a method gives its terms.

    KD terms have alpha and cross-entropies 1 - alpha; in "gnce" those of replayed images have
    alpha. Methods without distillation and replay have a plain cross-entropy.
    """
    checks.between("alpha", alpha, 0, 1)
    if not method.balanced:
        return TermWeights(0.0, 1.0, 0.0, 0.0)
    return TermWeights(alpha if method.swapped else 1 - alpha, 1 - alpha, alpha, alpha)


def classifier_terms(
    method: Method,
    new: Tensor,
    labels: Tensor,
    n_old: int,
    weights: TermWeights,
    temperature: float = 2.0,
    *,
    old_on_new: Tensor | None = None,
    replayed: Tensor | None = None,
    old_on_replayed: Tensor | None = None,
) -> dict[str, Tensor]:
    """The loss of a method of the table (all but "abd") on one batch, and its unweighted terms.

    Args:
        method: which terms.
        new: the new model's logits on new images, (batch, N).
        labels: (batch,), columns of the head.
        n_old: the old classes.
        weights: of the terms.
        temperature: of KD.
        old_on_new: the old model's logits on new images, where there is KD on them.
        replayed, old_on_replayed: the two models' logits on replayed images, where there are any.

    Returns:
        "loss", and "new_ce", "new_kd", "old_ce" and "old_kd" as far as the method has them.

    Raises:
        ValueError: logits that the method needs are missing; or as the terms.
    """
    terms: dict[str, Tensor] = {}
    if method.new == "local":
        terms["new_ce"] = local_cross_entropy(new, labels, n_old)
    elif method.new == "full":
        terms["new_ce"] = full_cross_entropy(new, labels)
    if method.distil_new:
        terms["new_kd"] = distillation(new, _given("old_on_new", old_on_new), n_old, temperature)
    if method.replay != "none":
        seen, old = _given("replayed", replayed), _given("old_on_replayed", old_on_replayed)
        if method.distil_replay:
            terms["old_kd"] = distillation(seen, old, n_old, temperature)
        chosen = old[:, :n_old].argmax(dim=1)
        if method.replay_labels == "local":
            terms["old_ce"] = old_cross_entropy(seen, chosen, n_old)
        elif method.replay_labels == "full":
            terms["old_ce"] = full_cross_entropy(seen, chosen)
    loss = torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
    return {"loss": loss, **terms}


def _given(name: str, logits: Tensor | None) -> Tensor:
    if logits is None:
        raise ValueError(f"{name} must be logits for this method; got None")
    return logits
