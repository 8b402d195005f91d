"""What a student is judged by: how often it is right, and how close it is to its teacher's
function, on images of the training and where nobody looked.
"""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from smallnets import measure
from smallnets.data import Dataset
from smallnets.distill.matching.losses import agreement, logit_distance
from smallnets.distill.matching.views import evaluation_view
from smallnets.losses import entropy
from smallnets.models import StagedNetwork


class Answers(NamedTuple):
    """A network's answers to a set of images."""

    logits: Tensor  # (images, classes)
    features: Tensor  # (images, features): what the classifier gets


def answers_and_features(
    network: StagedNetwork, dataset: Dataset, images: Tensor, resolution: int, side: float = 1.0
) -> Answers:
    """Answers and pooled features for uint8 images at a resolution.

    Args:
        network: a sequence whose last part is the classifier.
        dataset: for its normalisation.
        images: uint8 (n, channels, height, width).
        resolution: at which the network sees them.
        side: of the middle that it sees, as a share of the image's; 1 is the whole image.
    """

    def view(part: Tensor) -> Tensor:
        return evaluation_view(dataset.normalise(part), resolution, side)

    features = measure.predict(network[:-1], images, view)
    logits = measure.predict(network[-1], features, lambda part: part)
    return Answers(logits, features)


def evaluate_student(
    student: Answers, teacher: Answers, labels: Tensor, seen: tuple[Tensor, Tensor]
) -> dict[str, float]:
    """Measures of a student.

    Args:
        student, teacher: answers to the test images.
        labels: of the test images.
        seen: the student's and the teacher's logits for images of the training.

    Returns:
        "accuracy", "agreement" and "agreement@5" with the teacher (shares of 1), "kl" from the
        teacher, "l2" to it and "entropy" (nats) on the test images, "kl train", "l2 train" and
        "entropy train" on those of the training, and "cka" of the features.
    """
    five = min(5, student.logits.shape[1])
    return {
        "accuracy": measure.accuracy(student.logits, labels),
        "agreement": measure.agreement(student.logits, teacher.logits),
        "agreement@5": agreement(student.logits, teacher.logits, five).double().mean().item(),
        "kl": measure.predictive_kl(teacher.logits, student.logits),
        "kl train": measure.predictive_kl(seen[1], seen[0]),
        "l2": logit_distance(student.logits, teacher.logits, "l2").mean().item(),
        "l2 train": logit_distance(*seen, "l2").mean().item(),
        "entropy": entropy(student.logits).mean().item(),
        "entropy train": entropy(seen[0]).mean().item(),
        "cka": _alignment(student.features, teacher.features),
    }


def _alignment(student: Tensor, teacher: Tensor) -> float:
    """Linear CKA; nothing in common where one says the same of all images."""
    if any(bool((features == features[0]).all()) for features in (student, teacher)):
        return 0.0
    return measure.cka(student, teacher, "linear")


def measures(
    networks: Mapping[str, StagedNetwork],
    dataset: Dataset,
    resolutions: Mapping[str, int],
    side: float = 1.0,
    probe: int = 1000,
) -> dict[str, dict[str, float]]:
    """`evaluate_student` for every network against the one called "teacher".

    Args:
        networks: name -> network.
        dataset: its test images are judged on, and its first `probe` training images are what
            students were trained on.
        resolutions: name -> resolution at which the network sees images.
        side: of the middle of each image that networks see, as a share; 1 is the whole image.
        probe: training images to look at.
    """

    def answers(images: Tensor) -> dict[str, Answers]:
        return {
            name: answers_and_features(network, dataset, images, resolutions[name], side)
            for name, network in networks.items()
        }

    test, train = answers(dataset.x_test), answers(dataset.x_train[:probe])
    return {
        name: evaluate_student(
            test[name], test["teacher"], dataset.y_test,
            (train[name].logits, train["teacher"].logits),
        )
        for name in networks
    }  # fmt: skip
