"""Looking at what the loss did: similarities of unseen images, and channels that they excite."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from smallnets import checks, measure
from smallnets.batches import check_labelled, moved_to
from smallnets.data import Batches, Dataset, TrainingData, as_batches
from smallnets.distill.similarity.losses import class_block_contrast, similarity_matrix, sp_loss
from smallnets.training import observe


class Portrait(NamedTuple):
    """How a network sees a batch of images sorted by class."""

    activations: Tensor  # (images, channels): mean over positions of the last stage
    similarity: Tensor  # (images, images): G of the last stage
    labels: Tensor  # (images,), ascending


def portrait(
    network: nn.Module, dataset: TrainingData, images: int = 128, layer: str | None = None
) -> Portrait:
    """Channel activations and similarity matrix of the first test images, sorted by class (the
    paper's figures).

    Args:
        network: with `stage_names`, or name the `layer`.
        dataset: its test images are looked at; or the first of batches (inputs, labels) of your
            own.
        images: how many.
        layer: whose output (batch, channels, ...) is looked at; the last stage by default.
    """
    data = as_batches(dataset)
    if isinstance(data, Batches):
        check_labelled(data)
        inputs, labels = data.take_with_labels(checks.whole("images", images, 1))
        order = labels.argsort(stable=True)
        features = _looked(network, [inputs[order]], _layer(network, layer))[1]
        return Portrait(_channels(features), similarity_matrix(features), labels[order])
    dataset = data
    order = dataset.y_test[:images].argsort(stable=True)
    features = last_features(network, dataset, dataset.x_test[:images][order], layer)
    return Portrait(
        _channels(features), similarity_matrix(features), dataset.y_test[:images][order]
    )


def _channels(features: Tensor) -> Tensor:
    """Mean over positions, where there are any: (images, channels)."""
    return features.flatten(2).mean(dim=2) if features.dim() > 2 else features


def _layer(network: nn.Module, layer: str | None) -> str:
    if layer is None and not hasattr(network, "stage_names"):
        raise ValueError(
            f"layer must be named for a network without stage_names; got {type(network).__name__}"
        )
    return layer or network.stage_names[-1]


def last_features(
    network: nn.Module, dataset: Dataset, images: Tensor, layer: str | None = None
) -> Tensor:
    """Output of a layer (the last stage by default) for uint8 images, in evaluation mode."""
    parts = (dataset.normalise(x) for x in images.split(250))
    return _looked(network, parts, _layer(network, layer))[1]


def _looked(network: nn.Module, parts: Iterable[Tensor], layer: str) -> tuple[Tensor, Tensor]:
    """Logits (images, classes) and the layer's output (images, ...), without a graph."""
    with measure.evaluating(network), torch.no_grad():
        seen = [observe(network, moved_to(network, x), (layer,)) for x in parts]
    logits = torch.cat([measure.one_tensor(one.logits) for one in seen])
    return logits.cpu(), torch.cat([one.features[layer] for one in seen]).cpu()


def measures(
    networks: Mapping[str, nn.Module],
    dataset: TrainingData,
    batch_size: int = 128,
    layers: Mapping[str, str] | None = None,
) -> dict[str, dict[str, float]]:
    """What students are judged by, on the test images.

    Args:
        networks: name -> network with `stage_names`; the one called "teacher" is what the others
            are compared with.
        dataset: its test part is used; or batches (inputs, labels) of your own to judge on.
        batch_size: images a similarity matrix; at most the number of test images is taken. Batches
            of your own are as large as they are, and smaller ones than the first do not count in
            the last two measures.
        layers: name -> the layer that is compared, for networks without `stage_names`.

    Returns:
        For every network "accuracy" and "agreement" with the teacher (shares of 1), "kl" from
        teacher to student (nats), "similarity loss" against the teacher and "contrast" within
        against between classes (means over full batches, of a `Dataset` drawn at random and always
        alike).

    Raises:
        ValueError: there is no "teacher", a network without `stage_names` and layer, or one that
            returns no tensor; or a batch whose labels are all alike or all different, as of a
            loader that is sorted by class.
    """
    checks.one_of("one of the networks", "teacher", networks)
    named = {name: _layer(one, (layers or {}).get(name)) for name, one in networks.items()}
    data = as_batches(dataset)
    check_labelled(data)
    if isinstance(data, Batches):
        return _measures_of_batches(networks, data, named)
    dataset = data
    mixed = torch.randperm(len(dataset.y_test), generator=torch.Generator().manual_seed(0))
    images, labels = dataset.x_test[mixed], dataset.y_test[mixed]
    batch_size = min(batch_size, len(labels))
    full = len(labels) // batch_size * batch_size

    def seen(name: str) -> tuple[Tensor, Sequence[Tensor]]:
        parts = (dataset.normalise(x) for x in images.split(250))
        logits, features = _looked(networks[name], parts, named[name])
        return logits, features[:full].split(batch_size)

    teacher_logits, teacher_features = seen("teacher")
    results = {}
    for name in networks:
        logits, features = seen(name)
        losses = [sp_loss(s, t).item() for s, t in zip(features, teacher_features, strict=True)]
        contrasts = [
            class_block_contrast(similarity_matrix(x), y)
            for x, y in zip(features, labels[:full].split(batch_size), strict=True)
        ]
        results[name] = _judged(logits, teacher_logits, labels, losses, contrasts)
    return results


def _measures_of_batches(
    networks: Mapping[str, nn.Module], batches: Batches, layers: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """`measures` in one pass over batches; of every batch the logits and two numbers stay."""
    logits: dict[str, list[Tensor]] = {name: [] for name in networks}
    losses: dict[str, list[float]] = {name: [] for name in networks}
    contrasts: dict[str, list[float]] = {name: [] for name in networks}
    answers: list[Tensor] = []
    for inputs, labels in batches:
        answers.append(labels.cpu())
        found = {name: _looked(one, [inputs], layers[name]) for name, one in networks.items()}
        for name, (said, features) in found.items():
            logits[name].append(said)
            if len(labels) >= len(answers[0]):
                losses[name].append(sp_loss(features, found["teacher"][1]).item())
                contrasts[name].append(
                    class_block_contrast(similarity_matrix(features), answers[-1])
                )
    every = {name: torch.cat(parts) for name, parts in logits.items()}
    labels = torch.cat(answers)
    return {
        name: _judged(every[name], every["teacher"], labels, losses[name], contrasts[name])
        for name in networks
    }


def _judged(
    logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    losses: Sequence[float],
    contrasts: Sequence[float],
) -> dict[str, float]:
    return {
        "accuracy": measure.accuracy(logits, labels),
        "agreement": measure.agreement(logits, teacher_logits),
        "kl": measure.predictive_kl(student_logits=logits, teacher_logits=teacher_logits),
        "similarity loss": sum(losses) / len(losses),
        "contrast": sum(contrasts) / len(contrasts),
    }
