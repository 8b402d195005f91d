"""Matching the function of a teacher: what is asked of the student in every step.

One objective holds function matching, the inconsistent alternatives that the paper warns of, and
the baselines with labels. It is a function of a model and a batch, for `smallnets.training.fit`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets import checks, measure
from smallnets.batches import check_labelled
from smallnets.data import Augmentation, Batches, Dataset, TrainingData, as_batches
from smallnets.distill.matching.losses import DISTANCES, ensemble_distance
from smallnets.distill.matching.mixing import mix, mixing_share
from smallnets.distill.matching.views import (
    GEOMETRIES,
    VIEWS,
    ViewPairing,
    crop_and_resize,
    sample_boxes,
)
from smallnets.losses import ensemble_log_probs, to_float32
from smallnets.measure import evaluating
from smallnets.training import (
    Batch,
    TrainSettings,
    check_apart,
    check_network,
    fit,
    teaching,
)


@dataclass(frozen=True)
class Matching:
    """What the student is asked for.

    Attributes:
        view: how the two look at images, a name of `VIEWS`; "mix" is function matching.
        temperature: of the distance "kl".
        distance: see `logit_distance`.
        smoothing: of the distance "hard".
        alpha: of the Beta distribution behind the mixing shares of mixed views.
        per_image: draw the share for every image, and not once a batch.
        mix_outputs: the target is the mixture of the teacher's answers to the images, and not its
            answer to the mixture.
        labels: weight of the cross-entropy with the labels, in [0, 1]; the distance to the teacher
            weighs the rest. 0 is the paper's, and does not look at labels; 1 asks no teacher.
        area, aspect, geometry: of inception crops.
        side: of the central and the mild random crop, as a share of the image's side.
        crops: inception crops behind each prediction of "fix/ic_ens".
        flip: mirror half of the student's views; a consistent teacher sees the same.
        resolution: height and width of the student's input; None is the images'.
        teacher_resolution: of the teachers' input, one number for all or one a teacher; None is the
            student's. All are reduced from one view at the largest resolution.

    Raises:
        ValueError: a field is out of range; the message names it, what was given and what is
            allowed.
    """

    view: str = "mix"
    temperature: float = 1.0
    distance: str = "kl"
    smoothing: float = 0.0
    alpha: float = 1.0
    per_image: bool = False
    mix_outputs: bool = False
    labels: float = 0.0
    area: tuple[float, float] = (0.05, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    geometry: str = "tf"
    side: float = 0.875
    crops: int = 1000
    flip: bool = False
    resolution: int | None = None
    teacher_resolution: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.one_of("view", self.view, VIEWS)
        checks.above("temperature", self.temperature, 0)
        checks.one_of("distance", self.distance, DISTANCES)
        checks.between("smoothing", self.smoothing, 0, 1)
        checks.at_least("alpha", self.alpha, 0)
        checks.between("labels", self.labels, 0, 1)
        checks.one_of("geometry", self.geometry, GEOMETRIES)
        checks.between("side", self.side, 1e-6, 1)
        checks.whole("crops", self.crops, 1)
        for name, (low, high), most in (("area", self.area, 1), ("aspect", self.aspect, 1e6)):
            checks.between(f"upper end of {name}", high, checks.above(f"{name}", low, 0), most)
        if self.resolution is not None:
            checks.whole("resolution", self.resolution, 1)
        for side in _sides(self.teacher_resolution):
            checks.whole("teacher_resolution", side, 1)
        if self.mix_outputs and not self.teaching.mixed:
            raise ValueError(f"mix_outputs needs a view that mixes; got view {self.view!r}")

    @property
    def teaching(self) -> ViewPairing:
        """The view's crops and relation."""
        return VIEWS[self.view]

    def seen_at(self, images: Tensor) -> tuple[int, int]:
        """Resolutions of the student's and of the finest teacher's input for a batch of images."""
        student = self.resolution or max(images.shape[2:])
        return student, max(_sides(self.teacher_resolution), default=student)

    def teacher_sides(self, images: Tensor, teachers: int) -> tuple[int, ...]:
        """Resolution of every teacher's input for a batch of images.

        Raises:
            ValueError: there are resolutions for another number of teachers.
        """
        sides = _sides(self.teacher_resolution)
        if len(sides) > 1 and len(sides) != teachers:
            raise ValueError(
                f"teacher_resolution must hold one number, or one for each of {teachers} teachers; "
                f"got {sides}"
            )
        return sides if len(sides) > 1 else (self.seen_at(images)[1],) * teachers

    def draw(
        self, images: Tensor, crop: str, resolution: int, generator: torch.Generator
    ) -> Tensor:
        """One random view of each image, flips included: (batch, channels, side, side), in the
        images' memory format.
        """
        height, width = images.shape[2:]
        where = sample_boxes(
            crop, len(images), height, width, generator,
            side=self.side, area=self.area, aspect=self.aspect, geometry=self.geometry,
        )  # fmt: skip
        mirrored = None
        if self.flip:
            drawn = torch.rand(len(images), generator=generator, device=images.device)
            mirrored = drawn < 0.5
        view = crop_and_resize(images, where, resolution, mirrored)
        if images.is_contiguous():
            return view
        return view.contiguous(memory_format=torch.channels_last)

    def views(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """The student's and the teacher's view; one and the same tensor where they agree.

        A fixed teacher has no view in a step: None.
        """
        teaching, (student, teacher) = self.teaching, self.seen_at(images)
        if teaching.relation == "same":
            view = self.draw(images, teaching.student, max(student, teacher), generator)
            return view, view
        own = self.draw(images, teaching.student, student, generator)
        if teaching.relation == "fixed":
            return own, None
        return own, self.draw(images, teaching.teacher, teacher, generator)


class PrecomputedLogits(nn.Module):
    """A fixed teacher: logits computed once, given out by the number of the training image."""

    logits: Tensor

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.register_buffer("logits", logits)

    def forward(self, index: Tensor) -> Tensor:
        """(batch,) positions -> (batch, classes)."""
        return self.logits[index]


@dataclass(frozen=True)
class FunctionMatching:
    """Objective of one student for `smallnets.training.fit`: one step of the method.

    Attributes:
        teachers: networks, kept in evaluation mode and without gradient; or `PrecomputedLogits` for
            a fixed view. Their distances are summed. Empty if only labels are learnt.
        matching: what is asked for.
    """

    teachers: tuple[nn.Module, ...]
    matching: Matching

    def __call__(self, student: nn.Module, batch: Batch) -> dict[str, Tensor]:
        ask = self.matching
        noise = batch.noise
        if noise is None:
            raise ValueError("a batch must have a generator to draw views from; got noise None")
        view, shown = ask.views(batch.images, noise)
        share = None
        if ask.teaching.mixed:
            share = mixing_share(ask.alpha, len(view), noise, per_image=ask.per_image)
        seen, shown = self.inputs(view, shown, share, batch)

        logits = student(seen)
        terms = {}
        if ask.labels:
            terms["labels"] = label_loss(logits, batch.labels, share).mean()
        if ask.labels < 1:
            with torch.no_grad():
                sides = ask.teacher_sides(batch.images, len(self.teachers))
                pairs = zip(self.teachers, sides, strict=True)
                answers = [self.answer(one, shown, share, batch, side) for one, side in pairs]
            terms["distance"] = ensemble_distance(
                logits, answers, ask.distance,
                temperature=ask.temperature, smoothing=ask.smoothing,
            ).mean()  # fmt: skip
        weights = {"labels": ask.labels, "distance": 1 - ask.labels}
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        return {"loss": total, **terms}

    def inputs(
        self, view: Tensor, shown: Tensor | None, share: Tensor | None, batch: Batch
    ) -> tuple[Tensor, Tensor | None]:
        """What goes into student and teachers: mixed, and reduced to each one's resolution."""
        ask = self.matching
        same = shown is view
        if share is not None:
            view = mix(view, share)
            if not ask.mix_outputs and shown is not None:
                shown = view if same else mix(shown, share)
        student, teacher = ask.seen_at(batch.images)
        seen = resized(view, student)
        if shown is view and student == teacher:
            return seen, seen
        return seen, None if shown is None else resized(shown, teacher)

    def answer(
        self,
        teacher: nn.Module,
        shown: Tensor | None,
        share: Tensor | None,
        batch: Batch,
        side: int,
    ) -> Tensor:
        """A teacher's logits for the batch, seen at its own resolution."""
        with evaluating(teacher):
            logits = teacher(batch.which if shown is None else resized(shown, side))
        if self.matching.mix_outputs and share is not None:
            logits = mix(F.softmax(to_float32(logits), dim=1), share).clamp_min(1e-30).log()
        if not logits.isfinite().all():
            bad = (~logits.isfinite()).any(dim=1).nonzero()[0, 0]
            raise ValueError(
                "the teacher's logits must be finite; "
                f"got {logits[bad].tolist()} for training image "
                f"{int(bad if batch.which is None else batch.which[bad])}"
            )
        return logits


def _sides(resolution: int | tuple[int, ...] | None) -> tuple[int, ...]:
    if resolution is None:
        return ()
    return resolution if isinstance(resolution, tuple) else (resolution,)


def resized(images: Tensor, resolution: int) -> Tensor:
    """Images (batch, channels, height, width) at another resolution, as the published code resizes:
    bilinear, no antialiasing.
    """
    size = (resolution, resolution)
    if images.shape[2:] == size:
        return images
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=False)


def label_loss(logits: Tensor, labels: Tensor, share: Tensor | None = None) -> Tensor:
    """Cross-entropy (batch,) with the labels, or with labels mixed like the images."""
    own = F.cross_entropy(to_float32(logits), labels, reduction="none")
    if share is None:
        return own
    other = F.cross_entropy(to_float32(logits), labels.roll(1), reduction="none")
    return torch.lerp(other, own, share)


def precomputed_logits(
    teacher: nn.Module, dataset: Dataset, matching: Matching, seed: int, side: int | None = None
) -> PrecomputedLogits:
    """What a fixed teacher says about every training image: `crops` views of it for "fix/ic_ens",
    whose probabilities are averaged, and one for the others. It sees them at `side`; None is what
    `matching` says.
    """
    crop = matching.teaching.teacher
    generator = torch.Generator().manual_seed(seed)
    plain = replace(matching, flip=matching.flip and crop == "ic_ens")

    def look(images: Tensor) -> Tensor:
        resolution = side or matching.seen_at(images)[1]
        return plain.draw(
            dataset.normalise(images), crop.removesuffix("_ens"), resolution, generator
        )

    if crop != "ic_ens":
        return PrecomputedLogits(measure.predict(teacher, dataset.x_train, look))
    total = torch.full((len(dataset.x_train), dataset.num_classes), -torch.inf)
    for _ in range(matching.crops):
        answers = F.log_softmax(measure.predict(teacher, dataset.x_train, look), dim=1)
        total = torch.logaddexp(total, answers)
    return PrecomputedLogits(total - math.log(matching.crops))


def match(
    student: nn.Module,
    teachers: nn.Module | Sequence[nn.Module],
    dataset: TrainingData,
    matching: Matching,
    training: TrainSettings,
    *,
    seed: int,
    cache_dir: Path | None = None,
    label: str = "matching",
) -> list[dict[str, float]]:
    """Train a student to match its teachers, in place, and return the log.

    Args:
        student: trained in place.
        teachers: one or several, which stay as they are, bit for bit, in their mode and place.
            None are needed if `matching.labels` is 1.
        dataset: its training images are used, and its labels only if `matching.labels` is above 0.
            For images without labels see `unlabelled`. Or batches of images of your own, see
            `fit`, with labels if `matching.labels` is above 0; not for a fixed view, whose answers
            belong to the images of a `Dataset`.
        matching: what is asked of the student.
        training: how to train; its augmentation is replaced by the views of `matching`.
        seed: of the order of images, of views and of mixtures.
        cache_dir: folder for the finished training, see `fit`.
        label: start of the kept file's name.

    Returns:
        One dictionary an epoch: "loss", and the unweighted "distance" and "labels".

    Raises:
        ValueError: no teacher where one is needed, a network that does not take the images at its
            resolution, has other classes, or does not say finite numbers; a teacher that shares
            parameters with the student; inputs that are no images; a fixed view of batches of your
            own; or settings that `fit` refuses.
    """
    teachers = (teachers,) if isinstance(teachers, nn.Module) else tuple(teachers)
    if matching.labels == 1:
        teachers = ()
    elif not teachers:
        raise ValueError("teachers must hold at least one network unless labels is 1; got none")
    data = as_batches(dataset)
    if isinstance(data, Batches):
        data = _of_images(data, matching)
    glance = data.glance()
    if glance.dim() != 4 or not glance.is_floating_point():
        raise ValueError(
            "function matching cuts its views out of floating-point images (batch, channels, "
            f"height, width); got {glance.dtype} {tuple(glance.shape)}"
        )
    sides = matching.teacher_sides(glance, len(teachers))
    view = resized(glance, matching.seen_at(glance)[0])
    classes = check_network("student", student, view, data.num_classes).logits.shape[-1]
    for teacher, side in zip(teachers, sides, strict=True):
        check_network("teacher", teacher, resized(glance, side), classes)
        check_apart(student, teacher)
    data = data.of_classes(classes)

    with teaching(teachers, training.accelerator, torch.channels_last):
        asked = teachers
        if isinstance(data, Dataset) and matching.teaching.relation == "fixed":
            asked = tuple(
                precomputed_logits(teacher, data, matching, seed, side).to(training.accelerator)
                for teacher, side in zip(teachers, sides, strict=True)
            )
        return fit(
            student,
            data,
            replace(training, augmentation=Augmentation(crop=0)),
            seed=seed,
            objective=FunctionMatching(asked, matching),
            cache_dir=cache_dir,
            label=label,
        )


def _of_images(batches: Batches, matching: Matching) -> Batches:
    """Batches as matching needs them: without labels where none are asked for."""
    if matching.teaching.relation == "fixed" and matching.labels < 1:
        raise ValueError(
            f"view {matching.view!r} asks the teacher once about every image, by its number, and "
            "needs a Dataset; with batches of your own choose a view that is not fixed"
        )
    if not matching.labels:
        return batches.without_labels()
    check_labelled(batches)
    return batches


def unlabelled(dataset: Dataset, images: Tensor) -> Dataset:
    """A dataset to match on other images than its own: normalised as before, all labels 0.

    Args:
        dataset: whose test part, classes and normalisation stay.
        images: uint8 (n, channels, height, width).
    """
    return replace(
        dataset,
        x_train=images,
        y_train=torch.zeros(len(images), dtype=torch.int64),
        moments=(dataset.mean, dataset.std),
    )


def ensemble(teachers: Sequence[nn.Module], images: Tensor) -> Tensor:
    """Logits of several networks as one: the logarithm of their mean probability."""
    with torch.no_grad():
        return ensemble_log_probs([teacher(images) for teacher in teachers])
