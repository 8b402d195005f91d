"""Looking at what the loss did: similarities on unseen images, and which channels an image excites.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from smallnets import measure
from smallnets.data import Dataset
from smallnets.distill.similarity.losses import class_block_contrast, similarity_matrix, sp_loss
from smallnets.training import observe


class Portrait(NamedTuple):
    """How a network sees a batch of images sorted by class."""

    activations: Tensor  # (images, channels): mean over positions of the last stage
    similarity: Tensor  # (images, images): G of the last stage
    labels: Tensor  # (images,), ascending


def portrait(
    network: nn.Module, dataset: Dataset, images: int = 128, layer: str | None = None
) -> Portrait:
    """Channel activations and similarity matrix of the first test images, sorted by class (the
    paper's figures).

    Args:
        network: with `stage_names`, or name the `layer`.
        dataset: its test images are looked at.
        images: how many.
        layer: whose output (batch, channels, height, width) is looked at; the last stage by
            default.
    """
    order = dataset.y_test[:images].argsort(stable=True)
    features = last_features(network, dataset, dataset.x_test[:images][order], layer)
    return Portrait(
        features.flatten(2).mean(dim=2), similarity_matrix(features), dataset.y_test[:images][order]
    )


def last_features(
    network: nn.Module, dataset: Dataset, images: Tensor, layer: str | None = None
) -> Tensor:
    """Output of a layer (the last stage by default) for uint8 images, in evaluation mode and
    without a graph.
    """
    layer = layer or network.stage_names[-1]
    with measure.evaluating(network), torch.no_grad():
        return observe(network, dataset.normalise(images), (layer,)).features[layer]


def measures(
    student: nn.Module, teacher: nn.Module, dataset: Dataset, batch_size: int
) -> dict[str, float]:
    """What a student is judged by, on the test images.

    Args:
        student, teacher: networks with `stage_names`.
        dataset: its test part is used.
        batch_size: images a similarity matrix.

    Returns:
        "accuracy" and "agreement" with the teacher (shares of 1), "kl" from teacher to student
        (nats), "similarity loss" and "contrast" between and within classes (means over full
        batches).
    """
    logits = {
        name: measure.predict(net, dataset.x_test, dataset.normalise)
        for name, net in (("s", student), ("t", teacher))
    }
    losses, contrasts = [], []
    batch_size = min(batch_size, len(dataset.y_test))
    for start in range(0, len(dataset.y_test) - batch_size + 1, batch_size):
        images = dataset.x_test[start : start + batch_size]
        seen_by_student = last_features(student, dataset, images)
        losses.append(sp_loss(seen_by_student, last_features(teacher, dataset, images)).item())
        contrasts.append(
            class_block_contrast(
                similarity_matrix(seen_by_student), dataset.y_test[start : start + batch_size]
            )
        )
    return {
        "accuracy": measure.accuracy(logits["s"], dataset.y_test),
        "agreement": measure.agreement(logits["s"], logits["t"]),
        "kl": measure.predictive_kl(logits["t"], logits["s"]),
        "similarity loss": sum(losses) / len(losses),
        "contrast": sum(contrasts) / len(contrasts),
    }
