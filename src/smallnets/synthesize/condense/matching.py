"""The loss of distribution matching (section 3.2): squared distances of mean embeddings.

    L = sum_c | mean_{x in T_c} psi(A(x)) - mean_{s in S_c} psi(A(s)) |^2

It is summed over embedding dimensions and over classes, never averaged: a mean would change the
step of the pixels by the number of dimensions. Its gradient at the embedding of a synthetic image
is (2 / ipc) (mean_S - mean_T), the same for all images of a class.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.synthesize.condense.augmentation import DSAParams, apply_dsa
from smallnets.synthesize.condense.closed import suits, sum_of_embeddings
from smallnets.synthesize.condense.convnets import ConvNet

Embed = Callable[[Tensor], Tensor]
IN_CACHE = 4 * 2**20  # bytes of the largest map of the images that pass through a network together
TOGETHER = 16  # images, where the size of the maps is not known


def dm_loss(real: Tensor, synthetic: Tensor) -> Tensor:
    """The term of one class: |mean_B - mean_M|^2, a scalar.

    Args:
        real: embeddings (B, D) of real images, a constant.
        synthetic: embeddings (M, D).

    Raises:
        ValueError: embeddings of another form.
    """
    if real.dim() != 2 or synthetic.dim() != 2 or real.shape[1] != synthetic.shape[1]:
        raise ValueError(
            "embeddings must be (images, D) of one D; "
            f"got {tuple(real.shape)} and {tuple(synthetic.shape)}"
        )
    return (real.detach().mean(0) - synthetic.mean(0)).square().sum()


def class_mean_loss(
    embed: Embed,
    real: Sequence[Tensor],
    synthetic: Tensor,
    *,
    joint: bool = False,
    params: Sequence[DSAParams | None] | None = None,
    align_corners: bool = False,
) -> Tensor:
    """The loss of all classes, a scalar.

    Args:
        embed: images -> embeddings (n, D).
        real: of every class a batch (B, channels, height, width); their sizes may differ.
        synthetic: (K, ipc, channels, height, width).
        joint: whether all real images pass through the network together, and then all synthetic
            ones, as batch norm needs; otherwise class by class. Without batch norm both are equal.
        params: of every class the transform of both of its batches; None for no augmentation.
        align_corners: see `apply_dsa`.

    Raises:
        ValueError: numbers of classes that differ, or a batch norm that sees one image.
    """
    classes = len(real)
    chosen = [None] * classes if params is None else list(params)
    if len(synthetic) != classes or len(chosen) != classes:
        raise ValueError(
            "real, synthetic and params must be of equally many classes; "
            f"got {classes}, {len(synthetic)} and {len(chosen)}"
        )
    pairs = zip(real, synthetic, chosen, strict=True)
    changed = [
        (apply_dsa(x, p, align_corners), apply_dsa(s, p, align_corners)) for x, s, p in pairs
    ]
    if not joint:
        terms = []
        for x, s in changed:
            with torch.no_grad():
                found = embed(x)
            terms.append(dm_loss(found, embed(s)))
        return torch.stack(terms).sum()
    check_joint(sum(len(s) for _, s in changed))
    with torch.no_grad():
        real_means = _means(embed, [x for x, _ in changed])
    return (real_means - _means(embed, [s for _, s in changed])).square().sum()


def check_joint(images: int) -> None:
    """Check that batch norm has something to average.

    Raises:
        ValueError: it would see one image.
    """
    if images < 2:
        raise ValueError("batch norm needs at least 2 images in a joint batch; got 1")


def _means(embed: Embed, batches: Sequence[Tensor]) -> Tensor:
    """Mean embeddings (K, D) of batches that pass through the network together."""
    parts = embed(torch.cat(list(batches))).split([len(batch) for batch in batches])
    return torch.stack([part.mean(0) for part in parts])


def in_cache(network: nn.Module, size: tuple[int, int], device: torch.device) -> int:
    """How many images to pass through a network at a time, so that its largest map stays in the
    cache of a processor; a GPU takes them all.
    """
    if device.type != "cpu":
        return 2**30
    if not isinstance(network, ConvNet):
        return TOGETHER
    return max(1, IN_CACHE // (4 * network.spec.width * size[0] * size[1]))


def mean_embedding(
    network: nn.Module, x: Tensor, precision: str = "32-true", together: int | None = None
) -> Tensor:
    """Mean embedding (D,) float32 of one batch, without a graph, a few images at a time.

    A map of 128 channels of 32x32 takes half a megabyte an image: norm, activation and pooling of
    256 of them read it from memory again and again, and of eight from the cache.

    Args:
        network: whose `embed` treats every image by itself, so no batch norm in training.
        x: (B, channels, height, width).
        precision: "32-true", or "bf16-mixed" for autocast: the mean of many embeddings hides the
            rounding of one.
        together: images at a time; None asks `in_cache`.
    """
    checks.one_of("precision", precision, ("32-true", "bf16-mixed"))
    step = together or in_cache(network, (x.shape[2], x.shape[3]), x.device)
    autocast = torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16-mixed")
    total: Tensor | None = None
    if suits(network, x):
        return sum_of_embeddings(cast(ConvNet, network), x.split(step), precision) / len(x)
    with torch.inference_mode(), autocast:
        for part in x.split(step):
            found = network.embed(part).float().sum(0)  # type: ignore[operator]
            total = found if total is None else total + found
    assert total is not None
    return total / len(x)


def groups(classes: Sequence[int], ipc: int, together: int) -> Iterator[Sequence[int]]:
    """Classes in groups whose synthetic images pass through a network together."""
    step = max(1, together // ipc)
    for start in range(0, len(classes), step):
        yield classes[start : start + step]
