"""Sets of images: what they check, keep and show."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from smallnets.data import load
from smallnets.synthesize import condense as dm


def synthetic(real, ipc=2, seed=0):
    return dm.select(real, "random", ipc, seed=seed)


def test_bytes_are_normalised_as_the_data_set_does_it():
    digits = load("digits", train=50, test=20)
    train, test = dm.training_set(digits), dm.test_set(digits)
    assert train.images.dtype == torch.uint8  # a quarter of the memory
    torch.testing.assert_close(train.take(slice(5)), digits.normalise(digits.x_train[:5]))
    torch.testing.assert_close(test.normalised().images, digits.normalise(digits.x_test))
    assert dm.training_set(train) is train


def test_bytes_of_your_own_get_measured_constants():
    pixels = torch.randint(0, 256, (6, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    made = dm.image_set(pixels.to(torch.uint8), torch.tensor([0, 1, 2, 0, 1, 2]))
    found = made.normalised().images
    torch.testing.assert_close(found.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std((0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)
    exact = pixels.transpose(0, 1).flatten(1).double() / 255
    torch.testing.assert_close(made.mean, exact.mean(1).float())
    torch.testing.assert_close(made.std, exact.std(1).float())
    black = dm.image_set(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]))
    assert (float(black.mean), float(black.std)) == (0, pytest.approx(1 / 255))
    mean, std = dm.PUBLISHED_MOMENTS["CIFAR-10"]
    known = dm.image_set(made.images, made.labels, mean, std, ("a", "b", "c"))
    expected = (made.images[0, 1, 0, 0] / 255 - 0.4822) / 0.1994
    assert float(known.take(slice(1))[0, 1, 0, 0]) == pytest.approx(float(expected), rel=1e-5)


def test_a_saved_set_is_the_same_with_its_constants(real, tmp_path):
    one = synthetic(real)
    one = dm.SyntheticSet(one.images, one.labels, one.mean + 0.5, one.std / 4, one.classes)
    file = tmp_path / "set"
    one.save(file)
    two = dm.SyntheticSet.load(file)
    for name in ("images", "labels", "mean", "std"):
        assert torch.equal(getattr(one, name), getattr(two, name))
    assert one.classes == two.classes
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_pictures_are_clipped_and_learning_pixels_are_not(real):
    one = synthetic(real)
    wild = replace(one, images=one.images * 10, mean=one.mean + 0.5, std=one.std / 4)
    assert wild.images.abs().max() > 4
    pixels = wild.pixels()
    assert 0 <= float(pixels.min()) < float(pixels.max()) <= 1
    assert wild.to_uint8().dtype == torch.uint8
    grey = replace(wild, images=torch.zeros_like(wild.images))
    assert (grey.to_uint8() == 128).all()  # the mean, 0.5


def test_grids_have_a_row_a_class(real):
    before, after = synthetic(real), synthetic(real, seed=1)
    grid = dm.picture_grid(before, gap=1)
    assert grid.shape == (4 * 9 - 1, 2 * 9 - 1, 3)
    torch.testing.assert_close(grid[9:17, :8], before.pixels()[2].permute(1, 2, 0))
    assert (grid[8] == 1).all()
    assert dm.picture_grid(before, most=1).shape == (35, 8, 3)
    same = dm.difference_grid(before, before)
    assert (same[:8, :8] == 0.5).all()
    change = dm.difference_grid(before, after)
    extremes = (change[change != 1].min(), change.max())
    assert min(float(extremes[0]), 1 - float(extremes[1])) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="both sets must be of one size"):
        dm.difference_grid(before, synthetic(real, 1))


def test_maps_of_features():
    draws = torch.Generator().manual_seed(0)
    points = torch.randn(30, 6, generator=draws) * torch.tensor([9.0, 3, 1, 1, 1, 1])
    plane = dm.feature_map(points)
    assert plane.shape == (30, 2)
    assert float(plane.var(0)[0]) > float(plane.var(0)[1]) > 3
    torch.testing.assert_close(plane.mean(0), torch.zeros(2).double(), atol=1e-6, rtol=0)
    moved = dm.feature_map(points + 5, fitted_on=points + 5)
    torch.testing.assert_close(moved, plane, rtol=0, atol=1e-4)
    torch.testing.assert_close(dm.feature_map(-points), -plane)
    assert dm.feature_map(points, "tsne").shape == (30, 2)
    with pytest.raises(ValueError, match="method must be one of pca, tsne"):
        dm.feature_map(points, "umap")
    with pytest.raises(ValueError, match="at least 3"):
        dm.feature_map(points[:2])


def test_sets_of_different_classes_are_put_together(real):
    parts = [dm.select(real, "random", 2, only=[c]) for c in (3, 0, 2)]
    together = dm.merged(parts)
    assert together.labels.tolist() == [0, 0, 2, 2, 3, 3]
    assert torch.equal(together.images[4:], parts[0].images)
    for given, words in (
        ([], "at least one set"),
        ([parts[0], parts[0]], "a class twice"),
        ([parts[0], replace(parts[1], mean=parts[1].mean + 1)], "must be normalised alike"),
        ([parts[0], replace(parts[1], classes=tuple("abcd"))], "the same classes and sizes"),
    ):
        with pytest.raises(ValueError, match=words):
            dm.merged(given)


def test_images_that_are_none_are_refused_in_one_line(tmp_path):
    x, y = torch.randn(4, 3, 2, 2), torch.tensor([0, 0, 1, 1])
    nan = x.clone()
    nan[0, 0, 0, 0] = torch.nan
    constants = torch.zeros(3), torch.ones(3)
    for call, words in (
        (lambda: dm.image_set(x[0], y), r"\(n, channels, height, width\)"),
        (lambda: dm.image_set(x.long(), y), "images must be uint8 or floating-point"),
        (lambda: dm.image_set(x[:0], y[:0]), "labels must be whole numbers"),
        (lambda: dm.image_set(nan, y), "images must be finite; got nan or inf"),
        (lambda: dm.image_set(x.abs() * 200, y), "look like grey levels: pass uint8"),
        (lambda: dm.image_set(x, y[:3]), r"labels must be int64 \(4,\), one an image"),
        (lambda: dm.image_set(x, y.float()), "labels must be whole numbers"),
        (lambda: dm.image_set(x, y - 1), "labels must be from 0 to 0; got -1 to 0"),
        (lambda: dm.image_set(x, y, classes=["a"]), "labels must be from 0 to 0; got 0 to 1"),
        (lambda: dm.image_set(x, y, [0.5] * 3), "given together"),
        (lambda: dm.image_set(x, y, [0.5], [0.5]), "mean must have one number a channel"),
        (lambda: dm.image_set(x, y, [0.5] * 3, [0.0] * 3), "std must be greater than 0"),
        (lambda: dm.SyntheticSet(x, y.flip(0), *constants, ("a", "b")), "ordered by class"),
        (
            lambda: dm.SyntheticSet((x * 0).to(torch.uint8), y, *constants, ("a", "b")),
            "normalised float32; got uint8",
        ),
        (
            lambda: dm.SyntheticSet(x, torch.tensor([0, 1, 1, 1]), *constants, ("a", "b")).ipc,
            r"equally many images; got \[1, 3\]",
        ),
        (lambda: dm.image_set(x, y).of_classes([2]), "class must be between 0 and 1; got 2"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="no set"):
        dm.SyntheticSet.load(tmp_path / "none.npz")
    (tmp_path / "bad.npz").write_bytes(b"PK not a set")
    np.savez(tmp_path / "half.npz", images=np.zeros((1, 1, 2, 2), np.float32))
    np.savez(
        tmp_path / "odd.npz", images=np.full((1, 1, 2, 2), np.nan, np.float32),
        labels=np.zeros(1, np.int64), mean=np.zeros(1, np.float32), std=np.ones(1, np.float32),
        classes=np.array(["a"]),
    )  # fmt: skip
    for name in ("bad", "half", "odd"):
        with pytest.raises(ValueError, match="is no synthetic set") as caught:
            dm.SyntheticSet.load(tmp_path / f"{name}.npz")
        assert "\n" not in str(caught.value)


def test_images_of_ones_own_are_contiguous():
    """A network that is trained in contiguous memory must not meet channels-last images."""
    images = torch.rand(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    made = dm.image_set(images, torch.arange(4))
    assert made.images.is_contiguous()
    assert torch.equal(made.images, images)
