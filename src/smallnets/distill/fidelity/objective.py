"""Students under a teacher of one or many members, for the one training loop."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.batches import check_labelled
from smallnets.data import Batches, TrainingData, as_batches
from smallnets.distill.fidelity.losses import (
    LOSSES,
    distillation_loss,
    member_divergence,
)
from smallnets.distill.fidelity.policies import Policy, real_and_synthetic
from smallnets.losses import ensemble_log_probs
from smallnets.measure import evaluating
from smallnets.training import (
    Batch,
    JointModels,
    TrainSettings,
    check_apart,
    check_networks,
    fit,
    teaching,
)

MEMBERS = "members"  # the one loss that looks at members one by one


class Ensemble(nn.Module):
    """Classifiers of the same classes that are asked together.

    Args:
        members: one or more networks that map images to logits (batch, classes).
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        checks.at_least("number of members", len(members), 1)
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of every member, (batch, members, classes), float32 or wider.

        Raises:
            ValueError: members have different numbers of classes.
        """
        logits = [member(images) for member in self.members]
        classes = [one.shape[1] for one in logits]
        if len(set(classes)) > 1:
            raise ValueError(f"members must have the same classes; got {classes}")
        stacked = torch.stack(logits, dim=1)
        return stacked if stacked.dtype == torch.float64 else stacked.float()


class Reduced(nn.Module):
    """An ensemble as one classifier: images to (batch, classes), equation (1)."""

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__()
        self.ensemble = ensemble

    def forward(self, images: Tensor) -> Tensor:
        return ensemble_log_probs(self.ensemble(images))


@dataclass(frozen=True)
class Objective:
    """How one student learns from the teacher.

    Attributes:
        members: how many of the ensemble's members teach it, the first ones; None is all.
        temperature: of the teacher's term.
        alpha: weight of the labels, in [0, 1).
        loss: of the teacher's term, among `LOSSES`, or "members": `member_divergence`.
        synthetic_temperature: of the rows that a policy made up; None is that of the others. The
            published code gives them 1.

    Raises:
        ValueError: a field is out of range.
    """

    members: int | None = None
    temperature: float = 1.0
    alpha: float = 0.0
    loss: str = "soft"
    synthetic_temperature: float | None = None

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        if self.members is not None:
            checks.whole("members", self.members, 1)
        checks.above("temperature", self.temperature, 0)
        if self.synthetic_temperature is not None:
            checks.above("synthetic_temperature", self.synthetic_temperature, 0)
        if isinstance(self.alpha, bool) or not 0 <= self.alpha < 1:
            raise ValueError(f"alpha must be at least 0 and less than 1; got {self.alpha!r}")
        checks.one_of("loss", self.loss, (*LOSSES, MEMBERS))
        if self.loss == MEMBERS and self.alpha:
            raise ValueError(f"alpha must be 0 for the loss {MEMBERS!r}; got {self.alpha}")

    def __call__(
        self, student_logits: Tensor, member_logits: Tensor, labels: Tensor, synthetic: int = 0
    ) -> Tensor:
        """The loss of a batch whose last `synthetic` rows have no label.

        Args:
            student_logits: (batch, classes).
            member_logits: (batch, members, classes).
            labels: (batch,); those of synthetic rows are not looked at.
            synthetic: how many rows a policy made up.
        """
        taught_by = member_logits[:, : self.members]
        if self.loss == MEMBERS:
            return member_divergence(
                student_logits=student_logits,
                member_logits=taught_by,
                temperature=self.temperature,
            )
        real = len(labels) - synthetic
        temperature: float | Tensor = self.temperature
        if self.synthetic_temperature is not None and synthetic:
            temperature = student_logits.new_full(
                (len(labels), 1), self.temperature, dtype=torch.float32
            )
            temperature[real:] = self.synthetic_temperature
        teacher = ensemble_log_probs(taught_by)
        return distillation_loss(
            student_logits, teacher, labels[:real], self.alpha, temperature, self.loss
        )


@dataclass(frozen=True)
class EnsembleDistillation:
    """Objective of a cohort of students under one ensemble, for `smallnets.training.fit`.

    The teacher is in evaluation mode and gets no gradient; its members look at each batch once for
    all students.
    """

    teacher: Ensemble
    objectives: Mapping[str, Objective]
    share: float = 0.0  # of synthetic rows

    def __call__(self, cohort: nn.Module, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad(), evaluating(self.teacher):
            members = self.teacher(batch.images)
        synthetic = real_and_synthetic(len(batch.labels), self.share, len(batch.labels))[2]
        losses = {
            name: self.objectives[name](seen.logits, members, batch.labels, synthetic)
            for name, seen in cohort(batch.images).items()
        }
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}


def distill_from_ensemble(
    students: Mapping[str, nn.Module],
    teacher: Ensemble,
    dataset: TrainingData,
    objectives: Mapping[str, Objective],
    settings: TrainSettings,
    *,
    seed: int,
    cache_dir: Path | None = None,
) -> list[dict[str, float]]:
    """Train students side by side under one ensemble and return the log of their losses.

    Args:
        students: name -> network, trained in place.
        teacher: stays as it is, bit for bit, in its mode and place.
        dataset: whose training images are shown, seen through `settings.augmentation`, which may be
            a `Policy`; or batches of your own, see `fit`, with labels if an `alpha` is above 0.
        objectives: name -> objective, one for every student.
        settings, seed, cache_dir: see `smallnets.training.fit`.

    Raises:
        ValueError: names of students and objectives differ, a network does not fit the images or
            classes, or is student and teacher at once, or an objective asks for more members than
            there are, or for labels of images that a policy blends.
    """
    if set(students) != set(objectives) or not students:
        raise ValueError(
            "every student needs an objective; "
            f"got students {sorted(students)}, objectives {sorted(objectives)}"
        )
    view = settings.augmentation
    for name, one in objectives.items():
        checks.between(f"members of {name!r}", one.members or 1, 1, len(teacher.members))
        if one.alpha and isinstance(view, Policy) and view.mixing:
            raise ValueError(
                f"alpha of {name!r} must be 0 where images are blended; got {one.alpha}"
            )
    data = as_batches(dataset)
    if all(one.alpha == 0 for one in objectives.values()) and isinstance(data, Batches):
        data = data.without_labels()
    elif any(one.alpha for one in objectives.values()):
        check_labelled(data)
    networks = {"teacher": Reduced(teacher), **students}
    data = data.of_classes(check_networks(networks, data.glance(), data.num_classes))
    for student in students.values():
        check_apart(student, teacher)
    objective = EnsembleDistillation(
        teacher, objectives, view.share if isinstance(view, Policy) else 0.0
    )
    with teaching([teacher], settings.accelerator, torch.channels_last):
        return fit(
            JointModels(students),
            data,
            settings,
            seed=seed,
            objective=objective,
            cache_dir=cache_dir,
            label="imitation",
        )
