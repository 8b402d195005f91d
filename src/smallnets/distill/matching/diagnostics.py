"""What a student is judged by: how often it is right, and how close it is to its teacher's
function, on images of the training and where nobody looked.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from smallnets import checks, measure
from smallnets.batches import check_labelled, moved_to
from smallnets.data import Batches, Dataset, TrainingData, as_batches
from smallnets.distill.matching.losses import agreement, logit_distance
from smallnets.distill.matching.views import evaluation_view
from smallnets.losses import entropy
from smallnets.models import StagedNetwork


class Answers(NamedTuple):
    """A network's answers to a set of images."""

    logits: Tensor  # (images, classes)
    features: Tensor  # (images, features): what the classifier gets


def answers_and_features(
    network: nn.Module,
    dataset: Dataset,
    images: Tensor,
    resolution: int,
    side: float = 1.0,
    classifier: str | None = None,
) -> Answers:
    """Answers and pooled features for uint8 images at a resolution.

    Args:
        network: any; a `StagedNetwork` is a sequence whose last part is the classifier.
        dataset: for its normalisation.
        images: uint8 (n, channels, height, width).
        resolution: at which the network sees them.
        side: of the middle that it sees, as a share of the image's; 1 is the whole image.
        classifier: name of the layer that gets the features; the last linear one by default.

    Raises:
        ValueError: the network has no such layer, or it does not run once a pass.
    """

    def view(part: Tensor) -> Tensor:
        return evaluation_view(dataset.normalise(part), resolution, side)

    if classifier is not None or not isinstance(network, StagedNetwork):
        parts = [answers(network, view(part), classifier) for part in images.split(250)]
        return _joined(parts)
    features = measure.predict(network[:-1], images, view)
    logits = measure.predict(network[-1], features, lambda part: part)
    return Answers(logits, features)


def answers(network: nn.Module, inputs: Tensor, classifier: str | None = None) -> Answers:
    """Answers to one batch of inputs (n, ...) as the network takes them, and what its classifier
    got, flattened; on the CPU.

    Args and Raises: as `answers_and_features`.
    """
    linear = [name for name, one in network.named_modules() if isinstance(one, nn.Linear)]
    named = dict(network.named_modules())
    name = classifier or (linear[-1] if linear else "")
    if name not in named or not name:
        layers = ", ".join(one for one in named if one)
        raise ValueError(f"classifier must be a layer, among {layers}; got {classifier!r}")
    got: list[Tensor] = []

    def keep(_: nn.Module, given: tuple[Any, ...]) -> None:
        got.append(given[0].detach().flatten(1).cpu())

    handle = named[name].register_forward_pre_hook(keep)
    try:
        with measure.evaluating(network), torch.no_grad():
            logits = measure.one_tensor(network(moved_to(network, inputs))).float().cpu()
    finally:
        handle.remove()
    if len(got) != 1:
        raise ValueError(f"classifier {name!r} must run once a pass; it ran {len(got)} times")
    return Answers(logits, got[0].float())


def _joined(parts: list[Answers]) -> Answers:
    logits, features = zip(*parts, strict=True)
    return Answers(torch.cat(logits), torch.cat(features))


def evaluate_student(
    student: Answers,
    teacher: Answers,
    labels: Tensor,
    seen: tuple[Tensor, Tensor] | None = None,
) -> dict[str, float]:
    """Measures of a student.

    Args:
        student, teacher: answers to the test images.
        labels: of the test images.
        seen: the student's and the teacher's logits for images of the training, in this order;
            None leaves out what is measured on them.

    Returns:
        "accuracy", "agreement" and "agreement@5" with the teacher (shares of 1), "kl" from the
        teacher, "l2" to it and "entropy" (nats) on the test images, "kl train", "l2 train" and
        "entropy train" on those of the training, and "cka" of the features.
    """
    five = min(5, student.logits.shape[1])
    found = {
        "accuracy": measure.accuracy(student.logits, labels),
        "agreement": measure.agreement(student.logits, teacher.logits),
        "agreement@5": agreement(student.logits, teacher.logits, five).double().mean().item(),
    }
    on_train = {} if seen is None else _distances(*seen)
    for name, value in _distances(student.logits, teacher.logits).items():
        found[name] = value
        if on_train:
            found[f"{name} train"] = on_train[name]
    return found | {"cka": _alignment(student.features, teacher.features)}


def _distances(student_logits: Tensor, teacher_logits: Tensor) -> dict[str, float]:
    return {
        "kl": measure.predictive_kl(student_logits=student_logits, teacher_logits=teacher_logits),
        "l2": logit_distance(student_logits, teacher_logits, "l2").mean().item(),
        "entropy": entropy(student_logits).mean().item(),
    }


def _alignment(student: Tensor, teacher: Tensor) -> float:
    """Linear CKA; nothing in common where one says the same of all images."""
    if any(bool((features == features[0]).all()) for features in (student, teacher)):
        return 0.0
    return measure.cka(student, teacher, "linear")


def measures(
    networks: Mapping[str, nn.Module],
    dataset: TrainingData,
    resolutions: Mapping[str, int] | None = None,
    side: float = 1.0,
    probe: int = 1000,
    *,
    train: TrainingData | None = None,
    classifiers: Mapping[str, str] | None = None,
) -> dict[str, dict[str, float]]:
    """`evaluate_student` for every network against the one called "teacher".

    Args:
        networks: name -> network.
        dataset: its test images are judged on, and its first `probe` training images are what
            students were trained on. Or batches (inputs, labels) of your own to judge on.
        resolutions: name -> resolution at which the network sees images; None is that of the
            images.
        side: of the middle of each image that networks see, as a share; 1 is the whole image.
        probe: training images to look at.
        train: with batches of your own, those that students were trained on; None leaves out what
            is measured on them.
        classifiers: name -> the layer that gets the features, see `answers_and_features`.

    Raises:
        ValueError: there is no "teacher", or a network without such a layer.
    """
    checks.one_of("one of the networks", "teacher", networks)
    sides, layers = dict(resolutions or {}), dict(classifiers or {})
    data = as_batches(dataset)
    if isinstance(data, Dataset):
        test, seen = (
            {
                name: answers_and_features(
                    network, data, images, sides.get(name, min(data.size)), side, layers.get(name)
                )
                for name, network in networks.items()
            }
            for images in (data.x_test, data.x_train[:probe])
        )
        labels = data.y_test
    else:

        def look(name: str, inputs: Tensor) -> Answers:
            view = evaluation_view(inputs, sides[name], side) if name in sides else inputs
            return answers(networks[name], view, layers.get(name))

        check_labelled(data)
        test, labels = _every_answer(data, look, networks)
        if train is None:
            return {
                name: evaluate_student(one, test["teacher"], labels) for name, one in test.items()
            }
        shown = as_batches(train)
        if isinstance(shown, Dataset):
            raise ValueError("train must be batches where those to judge on are; got a Dataset")
        seen, _ = _every_answer(shown.without_labels(), look, networks, probe)
    return {
        name: evaluate_student(
            test[name],
            test["teacher"],
            labels,
            seen=(seen[name].logits, seen["teacher"].logits),
        )
        for name in networks
    }


def _every_answer(
    batches: Batches,
    look: Callable[[str, Tensor], Answers],
    networks: Mapping[str, nn.Module],
    most: int | None = None,
) -> tuple[dict[str, Answers], Tensor]:
    """Answers of all networks in one pass over batches, and the labels (n,)."""
    parts: dict[str, list[Answers]] = {name: [] for name in networks}
    labels: list[Tensor] = []
    for inputs, answer in batches:
        left = None if most is None else most - sum(map(len, labels))
        labels.append(answer[:left].cpu())
        for name, found in parts.items():
            found.append(look(name, inputs[:left]))
        if most is not None and sum(map(len, labels)) >= most:
            break
    return {name: _joined(found) for name, found in parts.items()}, torch.cat(labels)
