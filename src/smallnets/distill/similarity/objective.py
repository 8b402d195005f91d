"""One objective for every method of the comparison: labels, soft targets, attention and
similarities, weighted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets import checks
from smallnets.batches import check_labelled
from smallnets.data import Dataset, TrainingData, as_batches
from smallnets.distill.classic import (
    attention_map,
    common_size,
    kd_loss,
    map_distance,
    pooled,
)
from smallnets.distill.similarity.losses import NORMALISATIONS, sp_loss
from smallnets.losses import to_float32
from smallnets.measure import evaluating
from smallnets.training import (
    Batch,
    JointModels,
    ModelOutputs,
    TrainSettings,
    check_apart,
    check_network,
    fit,
    observe,
    teaching,
)

Layers = tuple[tuple[str, str], ...]
AttentionMaps = dict[tuple[str, tuple[int, int] | None], Tensor]  # by the teacher's layer and size


@dataclass(frozen=True)
class DistillationObjective:
    """Weighted sum of the cross-entropy with the labels and what a teacher adds.

    L = ce L_CE + kd L_KD + sp L_SP + at L_AT. The customary alpha of soft targets is ce = 1 -
    alpha, kd = alpha.

    Attributes:
        ce, kd, sp, at: weights of the terms; a term of weight 0 is not computed. The paper calls sp
            gamma and at beta.
        temperature: of the soft targets.
        sp_layers, at_layers: pairs (student's layer, teacher's layer). None stands for the last
            stage of both (sp), and for all stages in order (at).
        normalise: of the similarity matrices, see `similarity_matrix`.

    Raises:
        ValueError: a negative weight, no weight at all, a temperature not above 0, an unknown
            normalisation.
    """

    ce: float = 1.0
    kd: float = 0.0
    sp: float = 0.0
    at: float = 0.0
    temperature: float = 4.0
    sp_layers: Layers | None = None
    at_layers: Layers | None = None
    normalise: str = "row"

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        weights = {"ce": self.ce, "kd": self.kd, "sp": self.sp, "at": self.at}
        for name, weight in weights.items():
            checks.at_least(name, weight, 0)
        checks.above("the sum of the weights ce, kd, sp, at", sum(weights.values()), 0)
        checks.above("temperature", self.temperature, 0)
        checks.one_of("normalise", self.normalise, NORMALISATIONS)

    def __call__(
        self,
        student: ModelOutputs,
        teacher: ModelOutputs,
        labels: Tensor,
        maps: AttentionMaps | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted total and the unweighted terms that it is made of.

        Args:
            student, teacher: logits (batch, classes) and the features that the layer pairs name.
            labels: (batch,).
            maps: the teacher's attention maps on this batch, as far as other students have needed
                them; those that this student needs are added.
        """
        maps = {} if maps is None else maps
        for weight, pairs in ((self.sp, self.sp_layers), (self.at, self.at_layers)):
            if weight and not pairs:
                raise ValueError(
                    "sp_layers and at_layers must name a pair of layers where their term has a "
                    "weight; see `between`"
                )
        terms: dict[str, Tensor] = {}
        if self.ce:
            terms["ce"] = F.cross_entropy(to_float32(student.logits), labels)
        if self.kd:
            terms["kd"] = kd_loss(student.logits, teacher.logits, self.temperature)
        if self.sp:
            if len(labels) < 2:
                raise ValueError(
                    "a batch must hold at least 2 examples for similarities between them; got 1: "
                    "a loader with drop_last=True leaves such a last batch out"
                )
            pairs = self.sp_layers or ()
            terms["sp"] = sp_loss(
                [student.features[s] for s, _ in pairs],
                [teacher.features[t] for _, t in pairs],
                self.normalise,
            )
        if self.at:
            pairs = self.at_layers or ()
            losses = []
            for s, t in pairs:
                mine, theirs = student.features[s], teacher.features[t]
                size = common_size(mine, theirs)
                if (t, size) not in maps:
                    maps[t, size] = attention_map(pooled(theirs, size))
                losses.append(map_distance(attention_map(pooled(mine, size)), maps[t, size]))
            terms["at"] = torch.stack(losses).sum()
        total = torch.stack([getattr(self, name) * term for name, term in terms.items()]).sum()
        return total, terms

    def between(self, student: nn.Module, teacher: nn.Module) -> "DistillationObjective":
        """The same objective with default layers filled in from the stages of both networks."""
        if not (self.sp and self.sp_layers is None) and not (self.at and self.at_layers is None):
            return self
        for role, network in (("student", student), ("teacher", teacher)):
            if not hasattr(network, "stage_names"):
                raise ValueError(
                    f"sp_layers and at_layers must be given for a {role} without stage_names; "
                    f"got {type(network).__name__}"
                )
        if self.at and not self.at_layers and len(student.stage_names) != len(teacher.stage_names):
            raise ValueError(
                "at_layers must be given for networks of different numbers of stages; "
                f"got {len(student.stage_names)} and {len(teacher.stage_names)}"
            )
        stages = tuple(zip(student.stage_names, teacher.stage_names, strict=False))
        ends = ((student.stage_names[-1], teacher.stage_names[-1]),)
        return replace(self, sp_layers=self.sp_layers or ends, at_layers=self.at_layers or stages)

    def layers(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The student's and the teacher's layers that the terms with a weight need."""
        pairs = ((self.sp_layers or ()) if self.sp else ()) + (
            (self.at_layers or ()) if self.at else ()
        )
        return tuple(dict.fromkeys(s for s, _ in pairs)), tuple(dict.fromkeys(t for _, t in pairs))


@dataclass(frozen=True)
class JointDistillation:
    """Objective of a joint of students under one teacher, for `smallnets.training.fit`.

    The teacher is in evaluation mode and gets no gradient; it sees the very images that the
    students see, once for all of them. The loss is the sum over the students, whose gradients are
    independent.
    """

    teacher: nn.Module
    objectives: Mapping[str, DistillationObjective]

    def __call__(self, joint: nn.Module, batch: Batch) -> dict[str, Tensor]:
        wanted = dict.fromkeys(
            layer for one in self.objectives.values() for layer in one.layers()[1]
        )
        with torch.no_grad(), evaluating(self.teacher):
            teacher = observe(self.teacher, batch.images, tuple(wanted))
        logged: dict[str, Tensor] = {}
        totals: list[Tensor] = []
        maps: AttentionMaps = {}
        for name, student in joint(batch.images).items():
            total, terms = self.objectives[name](student, teacher, batch.labels, maps)
            logged |= {f"{name}/{term}": value for term, value in terms.items()}
            totals.append(total)
        return {"loss": torch.stack(totals).sum(), **logged}


def distil(
    students: Mapping[str, nn.Module],
    teacher: nn.Module,
    dataset: TrainingData,
    objectives: Mapping[str, DistillationObjective],
    settings: TrainSettings,
    *,
    seed: int,
    cache_dir: Path | None = None,
) -> list[dict[str, float]]:
    """Train students side by side under one teacher, each with its own objective, and return the
    log.

    Args:
        students: name -> network, trained in place. Names of layers in the objectives are theirs.
        teacher: stays as it is, bit for bit, in its mode and place.
        dataset: students learn from its training part; or batches (inputs, labels) of your own,
            see `fit`.
        objectives: name -> objective, one for every student.
        settings: of the training.
        seed: of the order of images and their augmentation.
        cache_dir: folder for the finished training, see `fit`.

    Returns:
        One dictionary an epoch: "loss" (sum over the students) and the unweighted "student/term"
            means.

    Raises:
        ValueError: names of students and objectives differ, student and teacher do not both fit the
            images, they have other classes, a layer does not exist, or a batch of one image is to
            be compared within itself; and as `fit`.
    """
    if set(students) != set(objectives) or not students:
        raise ValueError(
            "every student needs an objective; "
            f"got students {sorted(students)}, objectives {sorted(objectives)}"
        )
    full = {name: objectives[name].between(student, teacher) for name, student in students.items()}
    data = as_batches(dataset)
    alone = isinstance(data, Dataset) and settings.batch_size < 2
    if alone and any(one.sp for one in full.values()):
        raise ValueError("batch_size must be at least 2 for similarities between images; got 1")
    if any(one.ce for one in full.values()):
        check_labelled(data)
    data = data.of_classes(_check_fit(students, teacher, data.glance(), data.num_classes, full))
    joint = JointModels(students, {name: one.layers()[0] for name, one in full.items()})
    with teaching([teacher], settings.accelerator, torch.channels_last):
        return fit(
            joint,
            data,
            settings,
            seed=seed,
            objective=JointDistillation(teacher, full),
            cache_dir=cache_dir,
            label="students",
        )


def _check_fit(
    students: Mapping[str, nn.Module],
    teacher: nn.Module,
    images: Tensor,
    classes: int | None,
    objectives: Mapping[str, DistillationObjective],
) -> int:
    """Push two images through every network before any training, and say what does not fit.

    Returns:
        How many classes they have.
    """
    needed = {layer for one in objectives.values() for layer in one.layers()[1]}
    seen = check_network("teacher", teacher, images, classes, tuple(needed))
    for name, student in students.items():
        layers = objectives[name].layers()[0]
        check_network(f"student {name!r}", student, images, seen.logits.shape[-1], layers)
        check_apart(student, teacher)
    return seen.logits.shape[-1]
