"""Looking at what the loss did: similarities of unseen images, and channels that they excite."""

from collections.abc import Mapping, Sequence
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
    """Output of a layer (the last stage by default) for uint8 images, in evaluation mode."""
    return _seen(network, dataset, images, layer or network.stage_names[-1])[1]


def _seen(
    network: nn.Module, dataset: Dataset, images: Tensor, layer: str
) -> tuple[Tensor, Tensor]:
    """Logits (images, classes) and the layer's output (images, ...), without a graph."""
    with measure.evaluating(network), torch.no_grad():
        parts = [observe(network, dataset.normalise(x), (layer,)) for x in images.split(250)]
    return torch.cat([p.logits for p in parts]), torch.cat([p.features[layer] for p in parts])


def measures(
    networks: Mapping[str, nn.Module], dataset: Dataset, batch_size: int
) -> dict[str, dict[str, float]]:
    """What students are judged by, on the test images.

    Args:
        networks: name -> network with `stage_names`; the one called "teacher" is what the others
            are compared with.
        dataset: its test part is used.
        batch_size: images a similarity matrix; at most the number of test images is taken.

    Returns:
        For every network "accuracy" and "agreement" with the teacher (shares of 1), "kl" from
        teacher to student (nats), "similarity loss" against the teacher and "contrast" within
        against between classes (means over full batches, drawn at random and always alike).
    """
    mixed = torch.randperm(len(dataset.y_test), generator=torch.Generator().manual_seed(0))
    images, labels = dataset.x_test[mixed], dataset.y_test[mixed]
    batch_size = min(batch_size, len(labels))
    full = len(labels) // batch_size * batch_size

    def seen(network: nn.Module) -> tuple[Tensor, Sequence[Tensor]]:
        logits, features = _seen(network, dataset, images, network.stage_names[-1])
        return logits, features[:full].split(batch_size)

    teacher_logits, teacher_features = seen(networks["teacher"])
    results = {}
    for name, network in networks.items():
        logits, features = seen(network)
        losses = [sp_loss(s, t).item() for s, t in zip(features, teacher_features, strict=True)]
        contrasts = [
            class_block_contrast(similarity_matrix(x), y)
            for x, y in zip(features, labels[:full].split(batch_size), strict=True)
        ]
        results[name] = {
            "accuracy": measure.accuracy(logits, labels),
            "agreement": measure.agreement(logits, teacher_logits),
            "kl": measure.predictive_kl(teacher_logits, logits),
            "similarity loss": sum(losses) / len(losses),
            "contrast": sum(contrasts) / len(contrasts),
        }
    return results
