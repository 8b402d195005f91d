"""Data sets that need no download: glyphs, and scikit-learn's digits."""

from functools import partial
from importlib.metadata import version
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from smallnets.checks import whole
from smallnets.data.dataset import Dataset
from smallnets.data.glyphs import CHARACTERS, DIGITS, make_glyphs
from smallnets.data.kept import kept
from smallnets.storage import source_digest

# Name: characters, training images, test images, roughness. Sixty-two classes are hard enough with
# half the variation of pose and noise: a ConvNet 32-64-128 reads about 70 % of them, 35 % with all.
GLYPHS = {
    "glyphs10": (DIGITS, 10_000, 2_000, 1.0),
    "glyphs62": (CHARACTERS, 20_000, 4_000, 0.5),
}
_MAKERS = ("numpy", "torch", "pillow", "matplotlib", "scikit-image", "scikit-learn")
_DIGITS_TEST = 360  # of 1,797 images: a fifth


def glyphs(name: str, train: int | None = None, test: int | None = None, seed: int = 0) -> Dataset:
    """`glyphs10` or `glyphs62` with any number of images, made once and kept on disk.

    Args:
        name: "glyphs10" (10,000 training and 2,000 test images unless told otherwise) or "glyphs62"
            (20,000 and 4,000).
        train, test: how many images; fewer are the beginning of more.
        seed: which glyphs are drawn.
    """
    characters, usual_train, usual_test, roughness = GLYPHS[name]
    train = usual_train if train is None else whole("train", train, 1)
    test = usual_test if test is None else whole("test", test, 1)
    whole("seed", seed, 0)
    decides: dict[str, Any] = {
        "source": source_digest("data/glyphs.py", "data/photographs.py"),
        "versions": [version(package) for package in _MAKERS],
    }

    def made(part: str, count: int) -> tuple[Tensor, Tensor]:
        what = (characters, part, count, seed, roughness)
        return kept(f"{name}-{part}", partial(make_glyphs, *what), what=what, **decides)

    class_names = tuple(characters)
    return Dataset(name, *made("train", train), *made("test", test), class_names, flips=False)


def digits() -> Dataset:
    """scikit-learn's 1,797 handwritten digits (8x8, 17 grey levels), enlarged to 1x16x16.

    A fixed fifth of them, the same share of every class, is the test part. The origin is the
    optical recognition of handwritten digits set of the UCI repository (E. Alpaydin and C. Kaynak,
    1998).
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = torch.from_numpy(bunch.images).float().unsqueeze(1) / 16
    large = F.interpolate(small, size=(16, 16), mode="bilinear", align_corners=False)
    images = (large * 255).round().to(torch.uint8)
    labels = torch.from_numpy(bunch.target).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    images, labels = images[order], labels[order]
    everything = Dataset("digits", images, labels, images, labels, tuple(DIGITS), flips=False)
    return everything.held_out(_DIGITS_TEST, seed=0)
