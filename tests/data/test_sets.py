from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from smallnets.data import load, sets


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SMALLNETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SMALLNETS_DATA", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def published(monkeypatch):
    """Let a class of torchvision.datasets be played by a function of its arguments."""

    def replace(name, make):
        monkeypatch.setattr(f"torchvision.datasets.{name}", make)

    return replace


def picture(label: int, size: tuple[int, int] = (30, 20), mode: str = "RGB") -> Image.Image:
    """A picture that shows its label as a grey level."""
    return Image.new("L", size, 40 * label).convert(mode)


class Pictures(list):
    """Like a torchvision set: index it for (picture, label)."""

    classes = ("ant", "bee", "cat")


def folder_set(root: Path, parts=("train", "val"), classes=("ant", "bee"), each=4) -> None:
    for part in parts:
        for label, name in enumerate(classes):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(each):
                mode = ("RGB", "L", "RGBA")[i % 3]
                picture(label + 1, (20 + i, 30 - i), mode).save(folder / f"{i}.png")


# --- arrays


def test_cifar_like_set(published, cache):
    x = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    asked = []

    def cifar(root, train, download):
        asked.append((Path(root), train, download))
        return SimpleNamespace(data=x, targets=[0, 1, 1, 0, 1, 0], classes=["a", "b"])

    published("CIFAR10", cifar)
    data = load("cifar10", train=4)
    assert asked == [(cache / "torchvision", True, True), (cache / "torchvision", False, True)]
    assert (len(data.y_train), len(data.y_test)) == (4, 6)
    assert np.array_equal(data.x_test.permute(0, 2, 3, 1).numpy(), x)
    assert data.class_names == ("a", "b")
    assert data.flips
    assert not load("cifar10", flips=False).flips


def test_mnist_like_set(published):
    x = torch.randint(0, 256, (3, 28, 28), dtype=torch.uint8)
    published(
        "MNIST",
        lambda root, train, download: SimpleNamespace(
            data=x, targets=torch.tensor([2, 0, 1]), classes=["0 - zero", "1 - one", "2 - two"]
        ),
    )
    data = load("mnist")
    assert torch.equal(data.x_train, x.unsqueeze(1))
    assert data.y_train.tolist() == [2, 0, 1]
    assert not data.flips


def test_svhn_like_set(published):
    x = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    published(
        "SVHN",
        lambda root, split, download: SimpleNamespace(data=x, labels=np.array([9, 0])),
    )
    data = load("svhn")
    assert np.array_equal(data.x_train.numpy(), x)
    assert data.y_test.tolist() == [9, 0]
    assert data.class_names == tuple("0123456789")


# --- pictures


def test_pictures_of_any_size_become_squares_in_a_mixed_order(published):
    def flowers(root, split, download):
        count = {"train": 60, "test": 9}[split]
        sizes = [(40, 90), (90, 40), (33, 33)]
        return Pictures(
            (picture(i * 3 // count, sizes[i % 3]), i * 3 // count) for i in range(count)
        )

    published("Flowers102", flowers)
    data = load("flowers102", size=32)
    assert data.x_train.shape == (60, 3, 32, 32)
    assert torch.equal(data.x_train[:, 0, 5, 5].long(), 40 * data.y_train)
    assert len(data.y_train[:12].unique()) == 3
    assert torch.bincount(data.y_test).tolist() == [3, 3, 3]
    assert data.class_names == ("ant", "bee", "cat")


def test_only_what_is_asked_for_is_decoded_and_only_once(published):
    decoded = Counter()

    class Counted(Pictures):
        def __getitem__(self, index):
            decoded[index] += 1
            return super().__getitem__(index)

    published(
        "Food101",
        lambda root, split, download: Counted((picture(i % 3), i % 3) for i in range(50)),
    )
    first = load("food101", train=5, test=3)
    assert first.x_train.shape == (5, 3, 64, 64)
    assert decoded.total() == 8
    assert load("food101", train=5, test=3).key == first.key
    assert decoded.total() == 8
    more = load("food101", train=20, test=3)
    assert torch.equal(more.x_train[:5], first.x_train)


def test_resizing_keeps_the_middle(published):
    wide = Image.new("RGB", (96, 32))
    wide.paste((255, 0, 0), (32, 0, 64, 32))
    published(
        "OxfordIIITPet",
        lambda root, split, download: Pictures([(wide, 0), (wide, 1), (wide, 2)]),
    )
    data = load("pets", size=16)
    assert (data.x_train[:, 0, 1:-1, 1:-1] == 255).all()
    assert data.x_train[:, 0].min() > 200  # the outermost pixels see a little of what is cut off
    assert (data.x_train[:, 1:] == 0).all()


def test_caltech_gives_thirty_training_pictures_a_class(published):
    labels = [0] * 31 + [1] * 45
    pictures = Pictures((picture(label), label) for label in labels)
    pictures.y, pictures.categories = labels, ["accordion", "airplanes"]
    published("Caltech101", lambda root, download: pictures)
    data = load("caltech101", size=8)
    assert torch.bincount(data.y_train).tolist() == [30, 30]
    assert torch.bincount(data.y_test).tolist() == [1, 15]
    assert data.class_names == ("accordion", "airplanes")


@pytest.mark.parametrize("size", [0, 7, 32.0])
def test_refuses_what_is_no_size(size):
    with pytest.raises(ValueError, match="size must be"):
        load("pets", size=size)


def test_size_is_only_for_pictures():
    with pytest.raises(ValueError, match=r"size can be given for flowers102, .*got it for 'mnist'"):
        load("mnist", size=32)


# --- folders


@pytest.mark.parametrize("name", sets.FOLDERS)
def test_folder_set(cache, name):
    folder_set(cache / "folders" / name)
    data = load(name, size=16)
    assert data.x_train.shape == data.x_test.shape == (8, 3, 16, 16)
    assert data.class_names == ("ant", "bee")
    assert torch.equal(data.x_test[:, 0, 0, 0].long(), 40 * (data.y_test + 1))
    assert data.flips


def test_folder_set_elsewhere_and_in_part(tmp_path, monkeypatch):
    monkeypatch.setenv("SMALLNETS_DATA", str(tmp_path / "mine"))
    folder_set(tmp_path / "mine" / "cub200")
    data = load("cub200", train=3, test=2)
    assert (len(data.y_train), len(data.y_test), data.size) == (3, 2, (64, 64))


def test_changed_folder_is_read_anew(cache):
    folder = cache / "folders" / "cub200"
    folder_set(folder)
    load("cub200")
    picture(1).save(folder / "train" / "ant" / "new.png")
    assert len(load("cub200").y_train) == 9


def test_absent_folder_says_what_to_put_where(cache):
    with pytest.raises(FileNotFoundError) as error:
        load("imagenet")
    text = str(error.value)
    assert f"imagenet needs train/ and val/ in {cache / 'folders' / 'imagenet'}" in text
    assert "SMALLNETS_DATA" in text
    assert "\n" not in text
    folder_set(cache / "folders" / "imagenet", parts=("train",))
    with pytest.raises(FileNotFoundError, match="imagenet needs val/ in"):
        load("imagenet")


def test_folders_with_different_classes(cache):
    folder = cache / "folders" / "tinyimagenet"
    folder_set(folder, parts=("train",))
    folder_set(folder, parts=("val",), classes=("ant", "images"))
    with pytest.raises(ValueError, match="same class subfolders; only one of them has bee"):
        load("tinyimagenet")


# --- no network


@pytest.mark.parametrize("name", [*sets.ARRAYS, *sets.PICTURES])
def test_without_a_network_the_error_says_what_to_copy_where(cache, monkeypatch, name):
    def offline(*arguments, **keywords):
        raise OSError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(ConnectionError) as error:
        load(name)
    text = str(error.value)
    assert text.startswith(f"{name} is not complete in {cache / 'torchvision'}")
    assert {**sets.ARRAYS, **sets.PICTURES}[name].stored in text
    assert "\n" not in text


# --- damaged files


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", None])
def test_a_damaged_picture_is_named_in_one_line(tmp_path, monkeypatch, content):
    folder_set(tmp_path / "imagenet")
    monkeypatch.setenv("SMALLNETS_DATA", str(tmp_path))
    file = tmp_path / "imagenet" / "train" / "bee" / "2.png"
    file.write_bytes(file.read_bytes()[:60] if content is None else content)
    with pytest.raises(ValueError, match=r"picture .*bee/2\.png cannot be read: .") as error:
        load("imagenet", size=16)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", [AssertionError(), KeyError(3), EOFError("cut\nshort")])
def test_a_damaged_published_file_is_one_line_that_says_what_to_remove(published, cache, wrong):
    def mnist(root, train, download):
        raise wrong

    published("MNIST", mnist)
    with pytest.raises(ValueError, match=r"mnist in .* is damaged .*: remove MNIST/raw") as error:
        load("mnist")
    assert "\n" not in str(error.value)
