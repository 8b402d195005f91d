import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smallnets.data import Augmentation, cutmix, cutout, mixup, random_crop, random_flip

shapes = st.tuples(st.integers(1, 6), st.sampled_from([1, 3]), st.integers(5, 9), st.integers(5, 9))
seeds = st.integers(0, 1000)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(shape, seed=0):
    """Different positive values everywhere, so that every pixel can be traced to its origin."""
    count = torch.Size(shape).numel()
    return (torch.randperm(count, generator=generator(seed)) + 1.0).view(shape)


def one_hot(n, classes=4):
    return torch.eye(classes)[torch.arange(n) % classes]


CHANGES = {
    "crop": lambda x, g: random_crop(x, 3, g),
    "zero crop": lambda x, g: random_crop(x, 3, g, mode="constant"),
    "flip": random_flip,
    "cutout": lambda x, g: cutout(x, 4, g),
    "mixup": lambda x, g: mixup(x, one_hot(len(x)), g)[0],
    "cutmix": lambda x, g: cutmix(x, one_hot(len(x)), g)[0],
    "all": Augmentation(crop=3, flip=True, cutout=4),
}


@pytest.mark.parametrize("name", CHANGES)
@given(shape=shapes, seed=seeds, dtype=st.sampled_from([torch.float32, torch.float64]))
def test_shape_and_type_stay_and_the_input_is_left_alone(name, shape, seed, dtype):
    x = images(shape).to(dtype)
    before = x.clone()
    y = CHANGES[name](x, generator(seed))
    assert y.shape == x.shape
    assert y.dtype == dtype
    assert torch.equal(x, before)
    assert torch.equal(y, CHANGES[name](x, generator(seed)))


@pytest.mark.parametrize("name", CHANGES)
def test_half_precision_and_memory_format_stay(name):
    x = images((4, 3, 8, 8)).to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    y = CHANGES[name](x, generator())
    assert y.dtype == torch.bfloat16
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", CHANGES)
def test_another_seed_changes_something(name):
    x = images((16, 3, 8, 8))
    assert not torch.equal(CHANGES[name](x, generator(0)), CHANGES[name](x, generator(1)))


@given(shape=shapes, seed=seeds, padding=st.integers(0, 4))
def test_reflecting_crop_is_a_window_of_the_mirrored_image(shape, seed, padding):
    x = images(shape)
    y = random_crop(x, padding, generator(seed))
    padded = torch.nn.functional.pad(x, (padding,) * 4, mode="reflect")
    height, width = shape[2:]
    for image, source in zip(y, padded, strict=True):
        windows = source.unfold(1, height, 1).unfold(2, width, 1)
        same = (windows == image[:, None, None]).all(-1).all(-1).all(0)
        assert same.any()


@given(shape=shapes, seed=seeds)
def test_crop_without_padding_changes_nothing(shape, seed):
    x = images(shape)
    assert torch.equal(random_crop(x, 0, generator(seed)), x)


def test_constant_crop_brings_in_zeros_and_keeps_every_other_pixel():
    x = images((64, 1, 6, 7))
    y = random_crop(x, 2, generator(), mode="constant")
    for before, after in zip(x, y, strict=True):
        kept = after[after > 0]
        assert torch.isin(kept, before).all()
        rows, columns = (after[0] > 0).any(1).sum(), (after[0] > 0).any(0).sum()
        assert len(kept) == rows * columns
        assert rows >= 4
        assert columns >= 5


def test_crop_uses_every_shift_about_equally():
    x = torch.zeros(9000, 1, 5, 5)
    x[:, :, 2, 2] = 1
    places = random_crop(x, 1, generator(), mode="constant").sum((0, 1))
    assert places[1:4, 1:4].sum() == 9000
    assert (places[1:4, 1:4] - 1000).abs().max() < 150


def test_flip_mirrors_about_half_of_the_images_and_leaves_the_others():
    x = images((400, 3, 2, 5))
    y = random_flip(x, generator())
    same = (y == x).flatten(1).all(1)
    mirrored = (y == x.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 150 < same.sum() < 250


@given(shape=shapes, seed=seeds, size=st.integers(0, 12))
def test_cutout_blanks_one_rectangle_no_larger_than_the_square(shape, seed, size):
    x = images(shape)
    y = cutout(x, size, generator(seed))
    assert torch.equal(y[y > 0], x[y > 0])
    for image in y:
        blank = image == 0
        assert torch.equal(blank.any(0), blank.all(0))
        rows, columns = blank[0].any(1).sum(), blank[0].any(0).sum()
        assert blank[0].sum() == rows * columns
        assert rows <= size
        assert columns <= size
        assert (rows > 0) == (size > 0)


@pytest.mark.parametrize("mix", [mixup, cutmix])
@given(n=st.integers(1, 6), seed=seeds, alpha=st.sampled_from([0.01, 0.2, 1.0, 8.0]))
def test_mixed_targets_stay_probabilities(mix, n, seed, alpha):
    _, targets = mix(images((n, 3, 5, 7)), one_hot(n), generator(seed), alpha)
    torch.testing.assert_close(targets.sum(1), torch.ones(n))
    assert targets.min() >= 0
    assert targets.shape == (n, 4)


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_a_batch_of_one_is_mixed_with_itself(mix):
    x = images((1, 1, 4, 6))
    mixed, targets = mix(x, one_hot(1), generator())
    torch.testing.assert_close(mixed, x)
    torch.testing.assert_close(targets, one_hot(1))


def test_mixup_blends_images_as_it_blends_targets():
    n = 8
    x = torch.eye(n).view(n, 1, 1, n).expand(n, 3, 4, n)
    mixed, targets = mixup(x, torch.eye(n), generator(3))
    torch.testing.assert_close(mixed, targets.view(n, 1, 1, n).expand_as(x))
    assert (targets > 0).sum() > n


def test_cutmix_pastes_one_rectangle_and_weighs_targets_by_area():
    n, height, width = 32, 12, 20
    x = torch.arange(n, dtype=torch.float32).view(n, 1, 1, 1).expand(n, 1, height, width)
    mixed, targets = cutmix(x, torch.eye(n), generator(1))
    for i, (image, target) in enumerate(zip(mixed, targets, strict=True)):
        pasted = image[0] != i
        assert pasted.sum() == pasted.any(1).sum() * pasted.any(0).sum()
        shares = torch.bincount(image.long().flatten(), minlength=n) / (height * width)
        torch.testing.assert_close(target, shares)
    assert len(targets.amax(1).unique()) > 10


def test_alpha_decides_how_much_is_mixed():
    x, targets = images((500, 1, 2, 2)), torch.eye(500)
    little = mixup(x, targets, generator(), alpha=0.05)[1].amax(1).mean()
    much = mixup(x, targets, generator(), alpha=20.0)[1].amax(1).mean()
    assert little > 0.9
    assert much < 0.65


def test_augmentation_is_the_three_changes_in_turn():
    x = images((10, 3, 8, 8))
    g = generator(5)
    expected = cutout(random_flip(random_crop(x, 2, g), g), 3, g)
    assert torch.equal(Augmentation(2, True, 3)(x, generator(5)), expected)
    assert torch.equal(Augmentation(0)(x, generator()), x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, t, g: random_crop(x, -1, g), "padding must be at least 0; got -1"),
        (lambda x, t, g: random_crop(x, 5, g), r"less than height and width \(5x6\)"),
        (
            lambda x, t, g: random_crop(x, 1, g, mode="wrap"),
            "mode must be one of reflect, constant",
        ),
        (lambda x, t, g: cutout(x, -2, g), "size must be at least 0; got -2"),
        (lambda x, t, g: mixup(x, t, g, alpha=0), "alpha must be greater than 0; got 0"),
        (lambda x, t, g: cutmix(x, t, g, alpha=-1.0), "alpha must be greater than 0"),
        (lambda x, t, g: mixup(x, t.argmax(1), g), "targets must be probabilities"),
        (lambda x, t, g: cutmix(x, t.long(), g), "targets must be probabilities"),
        (lambda x, t, g: mixup(x, t[:1], g), r"targets must be probabilities \(2, classes\)"),
        (lambda x, t, g: Augmentation(crop=-1), "crop must be at least 0"),
        (lambda x, t, g: Augmentation(cutout=1.5), "cutout must be a whole number"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(images((2, 3, 5, 6)), one_hot(2), generator())
