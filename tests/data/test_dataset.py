from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smallnets.data import Dataset


def make(n_train=40, n_test=12, classes=4, channels=3, height=5, width=6, seed=0) -> Dataset:
    g = torch.Generator().manual_seed(seed)

    def images(n):
        shape = (n, channels, height, width)
        return torch.randint(0, 256, shape, generator=g, dtype=torch.uint8)

    return Dataset(
        "toy",
        images(n_train),
        torch.arange(n_train) % classes,
        images(n_test),
        torch.arange(n_test) % classes,
        tuple("abcdefghij"[:classes]),
        flips=False,
    )


@pytest.mark.parametrize("channels", [1, 2, 4, 12])
def test_images_have_any_number_of_channels(channels):
    data = make(channels=channels, height=1, width=7)
    assert data.mean.shape == data.std.shape == (channels,)
    assert data.held_out(8).take(5, 2).glance(3).shape == (3, channels, 1, 7)
    torch.testing.assert_close(data.glance(40), data.normalise(data.x_train))
    assert data.of_classes(9) is data


def test_describes_itself():
    data = make()
    assert (data.num_classes, data.channels, data.size) == (4, 3, (5, 6))
    assert repr(data) == "Dataset(toy: 40 training and 12 test images, 4 classes, 3x5x6)"


def test_mean_and_std_are_those_of_the_training_images():
    data = make()
    pixels = data.x_train.double() / 255
    torch.testing.assert_close(data.mean, pixels.mean((0, 2, 3)).float())
    torch.testing.assert_close(data.std, pixels.std((0, 2, 3), correction=0).float())


def test_std_of_a_constant_channel_is_one_grey_level():
    x, y = torch.full((2, 1, 3, 3), 7, dtype=torch.uint8), torch.tensor([0, 1])
    data = Dataset("flat", x, y, x, y, ("a", "b"), flips=False)
    torch.testing.assert_close(data.std, torch.tensor([1 / 255]))
    assert data.normalise(x).abs().max() < 1e-4


def test_normalise_gives_zero_mean_and_unit_deviation_and_takes_both_types():
    data = make()
    from_bytes = data.normalise(data.x_train)
    from_floats = data.normalise(data.x_train.double() / 255)
    assert from_bytes.dtype == from_floats.dtype == torch.float32
    torch.testing.assert_close(from_bytes, from_floats, atol=1e-5, rtol=0)
    torch.testing.assert_close(from_bytes.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        from_bytes.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0
    )


def test_normalise_keeps_the_memory_format():
    data = make()
    x = data.x_train.contiguous(memory_format=torch.channels_last)
    assert data.normalise(x).is_contiguous(memory_format=torch.channels_last)


def test_normalise_refuses_whole_numbers_other_than_bytes():
    with pytest.raises(ValueError, match=r"uint8 or floating point; got torch\.int64"):
        make().normalise(torch.zeros(1, 3, 5, 6, dtype=torch.int64))


def test_key_follows_the_content_and_not_the_name():
    data = make()
    assert data.key == make().key
    assert len(data.key) == 16
    assert data.key != make(seed=1).key
    assert data.key != data.take(39).key
    renamed = Dataset(
        "other", data.x_train, data.y_train, data.x_test, data.y_test, data.class_names, False
    )
    assert renamed.key == data.key


def test_what_is_written_in_place_is_seen():
    data, other = make(), make()
    key, mean = data.key, data.mean
    data.y_train[:4] = data.y_train[:4].flip(0)
    noisy = data.key
    data.x_train.zero_()
    assert len({key, noisy, data.key}) == 3
    assert not torch.equal(data.mean, mean)
    other.y_train.numpy()[:4] = 0
    assert other.key != key


def test_take_gives_prefixes_and_at_most_what_is_there():
    data = make()
    some = data.take(7, 3)
    assert torch.equal(some.x_train, data.x_train[:7])
    assert torch.equal(some.y_test, data.y_test[:3])
    assert some.class_names == data.class_names
    everything = data.take(10_000)
    assert torch.equal(everything.x_train, data.x_train)
    assert torch.equal(everything.x_test, data.x_test)


@pytest.mark.parametrize("count", [0, -3, 2.5, True])
def test_take_refuses_what_is_no_count(count):
    with pytest.raises(ValueError, match="train must be"):
        make().take(train=count)
    with pytest.raises(ValueError, match="test must be"):
        make().take(test=count)


@given(count=st.integers(1, 39), seed=st.integers(0, 5))
def test_held_out_splits_the_training_part_by_class(count, seed):
    data = make()
    split = data.held_out(count, seed)
    assert len(split.y_test) == count
    assert len(split.y_train) == 40 - count
    before = sorted(image.numpy().tobytes() for image in data.x_train)
    after = [image.numpy().tobytes() for image in (*split.x_train, *split.x_test)]
    assert sorted(after) == before
    shares = torch.bincount(split.y_test, minlength=4)
    assert shares.max() - shares.min() <= 1


def test_held_out_keeps_images_with_their_labels_and_depends_on_the_seed():
    data = make()
    label = {x.numpy().tobytes(): int(y) for x, y in zip(data.x_train, data.y_train, strict=True)}
    split = data.held_out(10, seed=3)
    for x, y in ((split.x_train, split.y_train), (split.x_test, split.y_test)):
        assert [label[image.numpy().tobytes()] for image in x] == y.tolist()
    assert data.held_out(10, seed=3).key == split.key
    assert data.held_out(10, seed=4).key != split.key


def test_divided_shares_out_the_training_part_and_keeps_the_test_part():
    data = make()
    others, drawn = data.divided(10, seed=3)
    split = data.held_out(10, seed=3)
    assert torch.equal(others.x_train, split.x_train)
    assert torch.equal(others.y_train, split.y_train)
    assert torch.equal(drawn.x_train, split.x_test)
    assert torch.equal(drawn.y_train, split.y_test)
    assert (len(others.y_train), len(drawn.y_train)) == (30, 10)
    for part in (others, drawn):
        assert torch.equal(part.x_test, data.x_test)
        assert torch.equal(part.y_test, data.y_test)


def test_changed_images_keep_their_labels():
    data = make()
    darker = data.changed(lambda images: images // 2)
    assert torch.equal(darker.x_train, data.x_train // 2)
    assert torch.equal(darker.x_test, data.x_test // 2)
    assert torch.equal(darker.y_test, data.y_test)


def test_held_out_gives_rare_classes_their_share():
    x = torch.randint(0, 256, (100, 1, 2, 2), dtype=torch.uint8)
    y = (torch.arange(100) >= 90).long()
    data = Dataset("uneven", x, y, x, y, ("often", "rare"), flips=False)
    assert torch.bincount(data.held_out(20).y_test).tolist() == [18, 2]


@pytest.mark.parametrize("count", [0, 40, 100])
def test_held_out_refuses_to_take_nothing_or_everything(count):
    with pytest.raises(ValueError, match="count must be"):
        make().held_out(count)


def test_classes_keeps_and_relabels_in_the_order_given():
    data = make()
    part = data.classes([3, 1])
    assert part.class_names == ("d", "b")
    assert torch.equal(part.x_train, data.x_train[data.y_train % 2 == 1])
    old = data.y_test[data.y_test % 2 == 1]
    assert torch.equal(part.y_test, (old == 1).long())


@pytest.mark.parametrize("keep", [[0, 0], [4], [-1]])
def test_classes_refuses_repeated_and_unknown_classes(keep):
    with pytest.raises(ValueError, match="different classes from 0 to 3; got"):
        make().classes(keep)


def test_classes_refuses_to_keep_none():
    with pytest.raises(ValueError, match="number of classes to keep must be at least 1"):
        make().classes([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_train": torch.zeros(2, 3, 4, 4)}, "x_train must be uint8"),
        ({"x_test": torch.zeros(2, 2, 4, 4, dtype=torch.uint8)}, "images of one shape"),
        ({"x_test": torch.zeros(0, 3, 4, 4, dtype=torch.uint8)}, "not empty"),
        ({"x_test": torch.zeros(2, 3, 4, 5, dtype=torch.uint8)}, "images of one shape"),
        ({"y_train": torch.tensor([0])}, "a label per image"),
        ({"y_train": torch.tensor([0, 1], dtype=torch.int32)}, "y_train must be int64"),
        ({"y_test": torch.tensor([0, 2])}, "from 0 to 1; got 0 to 2"),
        ({"y_test": torch.tensor([-1, 1])}, "from 0 to 1; got -1 to 1"),
    ],
)
def test_refuses_inconsistent_parts(change, message):
    x, y = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 1])
    parts = {"x_train": x, "y_train": y, "x_test": x, "y_test": y} | change
    with pytest.raises(ValueError, match=message):
        Dataset(name="bad", class_names=("a", "b"), flips=False, **parts)


def test_images_may_be_normalised_like_another_set():
    data, other = make(seed=1), make(seed=2)
    like = data.normalised_like(other)
    assert torch.equal(like.normalise(data.x_test), other.normalise(data.x_test))
    assert torch.equal(like.x_train, data.x_train)
    assert like.key not in (data.key, other.key)
    assert not torch.equal(data.normalise(data.x_test), other.normalise(data.x_test))


def test_another_number_of_channels_cannot_lend_its_statistics():
    with pytest.raises(ValueError, match="both sets must have the same channels; got 3 and 1"):
        make().normalised_like(make(channels=1))


def test_given_moments_stand_in_for_those_of_the_images():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 1, 4, 4), generator=generator, dtype=torch.uint8)
    labels = torch.arange(40) % 2
    whole = Dataset("whole", images, labels, images, labels, ("a", "b"), flips=False)
    part = whole.take(train=10)
    assert not torch.equal(part.mean, whole.mean)
    scaled = replace(part, moments=(whole.mean, whole.std))
    assert torch.equal(scaled.mean, whole.mean)
    assert torch.equal(scaled.normalise(images), whole.normalise(images))
    assert len({whole.key, part.key, scaled.key}) == 3
    assert torch.equal(scaled.held_out(2).std, whole.std)
