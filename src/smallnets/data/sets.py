"""Published data sets: torchvision's, downloaded by name, and folders of pictures.

Two kinds. *Arrays* (CIFAR, MNIST, SVHN) have one size and their published order, which is mixed.
*Pictures* (flowers, pets, food, folders) come in many sizes and sorted by class: they are put into
one fixed random order, only as many as asked for are decoded, and the result is kept on disk.
Memory is 3 x size x size bytes a picture: all of ImageNet at size 64 takes 15 GiB, so ask for part
of it.
"""

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from smallnets.checks import whole
from smallnets.data.dataset import Dataset
from smallnets.data.kept import kept
from smallnets.storage import cache_directory, one_line, source_digest

SIZE = 64  # pixels, height and width of pictures unless told otherwise


@dataclass(frozen=True)
class _Source:
    torchvision: str  # class in torchvision.datasets
    stored: str  # what torchvision leaves in its folder
    flips: bool
    train: dict[str, Any] = field(default_factory=lambda: {"split": "train"})
    test: dict[str, Any] = field(default_factory=lambda: {"split": "test"})


_TRAIN, _TEST = {"train": True}, {"train": False}
ARRAYS = {
    "cifar10": _Source("CIFAR10", "cifar-10-batches-py", True, _TRAIN, _TEST),
    "cifar100": _Source("CIFAR100", "cifar-100-python", True, _TRAIN, _TEST),
    "fashion_mnist": _Source("FashionMNIST", "FashionMNIST/raw", True, _TRAIN, _TEST),
    "mnist": _Source("MNIST", "MNIST/raw", False, _TRAIN, _TEST),
    "svhn": _Source("SVHN", "train_32x32.mat and test_32x32.mat", False),
}
PICTURES = {
    "flowers102": _Source("Flowers102", "flowers-102", True),
    "pets": _Source("OxfordIIITPet", "oxford-iiit-pet", True, {"split": "trainval"}),
    "food101": _Source("Food101", "food-101", True),
    "caltech101": _Source("Caltech101", "caltech101", True, {}, {}),
}
FOLDERS = ("imagenet", "tinyimagenet", "cub200")
RESIZED = (*PICTURES, *FOLDERS)
CALTECH_TRAIN = 30  # training images a class, the usual protocol; the rest is the test part


def array_set(name: str) -> Dataset:
    """CIFAR-10, CIFAR-100, Fashion-MNIST, MNIST or SVHN as published.

    Raises:
        ConnectionError: if it is not on disk and cannot be downloaded.
        ValueError: if a file on disk is damaged.
    """
    source = ARRAYS[name]
    train = _published(name, source, source.train)
    test = _published(name, source, source.test)
    class_names = tuple(getattr(train, "classes", "0123456789"))  # SVHN names none
    return Dataset(name, *_tensors(train), *_tensors(test), class_names, source.flips)


def _tensors(published: Any) -> tuple[Tensor, Tensor]:
    """Images (n, c, h, w) and labels (n,) of a torchvision set that holds arrays."""
    images = torch.as_tensor(published.data)
    labels = published.labels if hasattr(published, "labels") else published.targets
    if images.ndim == 3:
        images = images.unsqueeze(1)
    elif images.shape[-1] == 3:
        images = images.permute(0, 3, 1, 2)
    return images.contiguous(), torch.as_tensor(labels).long()


def picture_set(
    name: str, size: int | None = None, train: int | None = None, test: int | None = None
) -> Dataset:
    """A set of pictures of many sizes, brought to size x size: resized, and the middle cut out.

    Args:
        name: a torchvision set in `PICTURES` or a folder in `FOLDERS`.
        size: height and width in pixels, 64 unless given.
        train, test: pictures to decode, a sample in a fixed random order; None is all.

    A folder set lies in $SMALLNETS_DATA/NAME or in `cache_directory()`/folders/NAME: one subfolder
    a class, each full of image files, below both train/ and val/.

    Raises:
        ConnectionError: if a torchvision set is not on disk and cannot be downloaded.
        FileNotFoundError: if a folder set is not there.
        ValueError: if train/ and val/ of a folder set hold different classes, or a picture or file
            is damaged.
    """
    size = SIZE if size is None else whole("size", size, 8)
    sources, class_names, flips = _folder(name) if name in FOLDERS else _pictures(name)

    def decoded(part: str, source: _Part, count: int | None) -> tuple[Tensor, Tensor]:
        pictures, order = source
        order = order[: None if count is None else whole(part, count, 1)]
        return kept(
            f"{name}-{part}",
            partial(_decode, name, pictures, order, size),
            source=source_digest("data/sets.py"),
            name=name,
            part=part,
            size=size,
            order=order,
            files=getattr(pictures, "samples", None),  # a folder may change, a published set not
        )

    train_part = decoded("train", sources[0], train)
    test_part = decoded("test", sources[1], test)
    return Dataset(name, *train_part, *test_part, class_names, flips)


# Pictures that can be indexed, giving (PIL image, label), and the order in which to take them.
_Part = tuple[Any, list[int]]


def _pictures(name: str) -> tuple[tuple[_Part, _Part], tuple[str, ...], bool]:
    source = PICTURES[name]
    pictures = _published(name, source, source.train)
    if name == "caltech101":
        train, test = _split_by_class(_mixed(len(pictures)), pictures.y)
        return ((pictures, train), (pictures, test)), tuple(pictures.categories), source.flips
    others = _published(name, source, source.test)
    parts = (pictures, _mixed(len(pictures))), (others, _mixed(len(others)))
    return parts, tuple(pictures.classes), source.flips


def _folder(name: str) -> tuple[tuple[_Part, _Part], tuple[str, ...], bool]:
    from torchvision.datasets import ImageFolder

    given = os.environ.get("SMALLNETS_DATA")
    folder = (Path(given) if given else cache_directory() / "folders") / name
    missing = [f"{part}/" for part in ("train", "val") if not (folder / part).is_dir()]
    if missing:
        raise FileNotFoundError(
            f"{name} needs {' and '.join(missing)} in {folder}, with a subfolder of images "
            "for every class; put them there, or set SMALLNETS_DATA to the folder that holds "
            f"{name}/train and {name}/val"
        )
    train, test = ImageFolder(folder / "train"), ImageFolder(folder / "val")
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))
        raise ValueError(
            f"{folder}: train/ and val/ must have the same class subfolders; "
            f"only one of them has {odd[0]}"
        )
    return ((train, _mixed(len(train))), (test, _mixed(len(test)))), tuple(train.classes), True


def _published(name: str, source: _Source, arguments: dict[str, Any]) -> Any:
    """A torchvision data set, downloaded and checked by torchvision if it is not there yet."""
    from torchvision import datasets

    root = cache_directory() / "torchvision"
    root.mkdir(parents=True, exist_ok=True)
    try:
        return getattr(datasets, source.torchvision)(str(root), download=True, **arguments)
    except (OSError, RuntimeError) as error:
        raise ConnectionError(
            f"{name} is not complete in {root} and could not be downloaded ({one_line(error)}); "
            f"load it once on a machine with a network and copy {source.stored} "
            f"from there into {root}"
        ) from error
    except Exception as error:  # a damaged file ends in whatever its bytes happen to mean
        raise ValueError(
            f"{name} in {root} is damaged ({one_line(error)}): remove {source.stored} from there, "
            "and it is downloaded again"
        ) from error


def _mixed(count: int) -> list[int]:
    return torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()


def _split_by_class(order: list[int], labels: Sequence[int]) -> tuple[list[int], list[int]]:
    """The first `CALTECH_TRAIN` of every class along `order`, and the rest."""
    train: list[int] = []
    test: list[int] = []
    seen: Counter[int] = Counter()
    for index in order:
        seen[labels[index]] += 1
        (train if seen[labels[index]] <= CALTECH_TRAIN else test).append(index)
    return train, test


def _decode(name: str, pictures: Any, order: list[int], size: int) -> tuple[Tensor, Tensor]:
    """Read, resize and cut the pictures `order`: uint8 (n, 3, size, size), labels int64 (n,)."""
    from PIL import Image, ImageOps

    images = torch.empty(len(order), 3, size, size, dtype=torch.uint8)
    labels = torch.empty(len(order), dtype=torch.int64)

    def read(place: int) -> None:
        try:
            picture, labels[place] = pictures[order[place]]
            square = ImageOps.fit(picture.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
        except Exception as error:  # a damaged picture ends in whatever its bytes happen to mean
            files = getattr(pictures, "samples", None)  # of a folder
            which = files[order[place]][0] if files else f"number {order[place]} of {name}"
            raise ValueError(f"picture {which} cannot be read: {one_line(error)}") from error
        images[place] = torch.from_numpy(np.array(square)).permute(2, 0, 1)

    with ThreadPoolExecutor() as threads:  # decoding and resizing run outside Python's lock
        for _ in tqdm(threads.map(read, range(len(order))), name, len(order), leave=False):
            continue
    return images, labels
