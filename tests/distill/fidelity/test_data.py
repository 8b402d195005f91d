"""What students are shown: each policy does what its name says, and only that."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smallnets.data import Augmentation, load
from smallnets.distill.fidelity import (
    ClassGaussian,
    Policy,
    colour_jitter,
    flip_upside_down,
    foreign_images,
    halves,
    mixup_inputs,
    policies,
    real_and_synthetic,
    rotate,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(n=16, channels=3, side=12, seed=0):
    return torch.rand(n, channels, side, side, generator=generator(seed))


def test_mixed_images_are_pairs_of_images_with_uniform_shares():
    images = torch.eye(4).view(4, 1, 2, 2)
    shares = []
    for seed in range(200):
        mixed = mixup_inputs(images, generator(seed)).flatten(1)
        assert torch.allclose(mixed.sum(1), torch.ones(4))
        assert int((mixed > 0).sum(1).max()) <= 2
        shares.append(mixed.max(1).values.median().item())
    assert min(shares) >= 0.5 - 1e-6
    assert np.mean(shares) == pytest.approx(0.8, abs=0.08)
    tight = mixup_inputs(pictures(), generator(), alpha=1e-4)
    assert tight.isfinite().all()


def test_rotation_turns_by_the_angle_and_keeps_the_middle():
    images = torch.zeros(64, 1, 15, 15)
    images[:, :, 7, 7] = 1
    turned = rotate(images, 90, generator())
    assert torch.allclose(turned[:, :, 7, 7], torch.ones(64, 1), atol=1e-5)
    assert torch.allclose(rotate(images, 0, generator()), images, atol=1e-5)
    bar = torch.zeros(256, 1, 15, 15)
    bar[:, :, 7, :] = 1
    small = rotate(bar, 20, generator())
    assert small[:, 0, 7, 5:10].min() > 0.2  # two pixels out, 20 degrees are 0.7 pixels
    assert not torch.allclose(small[0], small[1], atol=0.01)


def test_rotation_of_an_oblong_image_does_not_shear():
    ramp = torch.arange(20.0).view(1, 1, 1, 20).expand(8, 1, 10, 20)
    turned = rotate(ramp.clone(), 20, generator())[:, 0, 3:7, 6:14]
    across = turned.diff(dim=2).mean((1, 2))
    down = turned.diff(dim=1).mean((1, 2))
    assert torch.allclose(across.square() + down.square(), torch.ones(8), atol=0.02)


def test_about_half_of_the_images_are_turned_upside_down():
    images = pictures(200)
    flipped = flip_upside_down(images, generator())
    same = (flipped == images).flatten(1).all(1)
    assert 70 < int(same.sum()) < 130
    assert torch.equal(flipped[~same], images[~same].flip(2))


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_changes_colours_within_their_range(channels):
    images = pictures(channels=channels)
    changed = colour_jitter(images, 0.2, generator())
    assert changed.shape == images.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert 0.01 < (changed - images).abs().mean() < 0.3
    assert torch.allclose(colour_jitter(images, 0.0, generator()), images, atol=1e-5)
    if channels == 3:
        grey = pictures(channels=1).expand(-1, 3, -1, -1) * 0.5 + 0.2
        stays = colour_jitter(grey, 0.2, generator())
        assert (stays.amax(1) - stays.amin(1)).max() < 0.01  # grey has no hue


def test_noise_replaces_a_fifth_of_the_images_within_the_range_of_pixels():
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    view = Policy(crop=0, noise=0.2, mean=mean, std=std)
    images = torch.zeros(1000, 3, 4, 4)
    seen = view(images, generator())
    changed = (seen != 0).flatten(1).any(1)
    assert 150 < int(changed.sum()) < 250
    shape = (-1, 1, 1)
    pixels = seen[changed] * torch.tensor(std).view(shape) + torch.tensor(mean).view(shape)
    assert pixels.min() >= -1e-5
    assert pixels.max() <= 1 + 1e-5
    assert pixels.mean() == pytest.approx(0.5, abs=0.02)


def test_extra_images_take_the_last_rows_of_a_batch():
    extra = torch.full((3, 3, 4, 4), 255, dtype=torch.uint8)
    view = Policy(crop=0, extra=extra, share=0.2, mean=(0.0,) * 3, std=(0.5,) * 3)
    seen = view(torch.zeros(128, 3, 4, 4), generator())
    assert len(seen) == 128
    assert torch.equal(seen[:103], torch.zeros(103, 3, 4, 4))
    assert torch.equal(seen[103:], torch.full((25, 3, 4, 4), 2.0))


def test_policies_are_the_papers(digits):
    base = Augmentation(crop=1, flip=True)
    found = policies(digits, base, digits.x_train[:5], digits.x_train[:7], 0.25)
    assert list(found) == [
        "none", "baseline", "rotation", "vertical flip", "colour jitter", "CombAug", "MixUp",
        "noise", "generated", "out of domain",
    ]  # fmt: skip
    assert (found["none"].crop, found["none"].flip) == (0, False)
    assert all(view.crop == 1 and view.flip for name, view in found.items() if name != "none")
    combined = found["CombAug"]
    assert (combined.rotation, combined.vertical, combined.jitter) == (20, True, 0.2)
    assert found["noise"].noise == 0.2
    assert len(found["generated"].extra) == 5
    assert found["generated"].share == 0.25
    assert "generated" not in policies(digits, base)
    batch = digits.normalise(digits.x_train[:16])
    for name, view in found.items():
        seen = view(batch, generator())
        assert seen.shape == batch.shape
        assert torch.equal(seen, batch) == (name == "none")
        assert torch.equal(seen, view(batch, generator()))


def test_generated_images_have_the_means_of_their_classes(digits):
    made = ClassGaussian.fitted(digits, components=8).sample(2000, generator())
    assert made.dtype == torch.uint8
    assert made.shape[1:] == digits.x_train.shape[1:]
    for label in (0, 5):
        real = digits.x_train[digits.y_train == label].double().mean(0)
        assert (made[label::10].double().mean(0) - real).abs().mean() < 12
    assert not torch.equal(made[0], made[10])
    again = ClassGaussian.fitted(digits, components=8).sample(2000, generator())
    assert torch.equal(made, again)


def test_a_generator_keeps_no_more_components_than_images_allow(digits):
    few = digits.take(train=60)
    counts = torch.bincount(few.y_train)
    axes = ClassGaussian.fitted(few, components=50).axes
    assert axes.shape[1] == 50
    assert (axes.abs().sum(2) > 1e-6).sum(1).tolist() == (counts - 1).tolist()
    rows = few.x_train[few.y_train == 3].flatten(1).double()
    assert torch.allclose(axes[3].T @ axes[3], torch.cov(rows.T), atol=1e-6)
    alone = ClassGaussian.fitted(load("digits").take(12, 5))  # some classes have one image only
    assert len(alone.means) < 10
    assert alone.sample(5, generator()).shape == (5, *few.x_train.shape[1:])


def test_foreign_images_fit_and_share_no_class(digits):
    colour = load("glyphs10", train=10, test=5)
    letters = foreign_images(colour, load("glyphs62", train=200, test=1))
    assert letters.shape[1:] == colour.x_train.shape[1:]
    assert letters.dtype == torch.uint8
    assert 100 < len(letters) < 200  # digits are left out
    assert (
        foreign_images(digits, load("glyphs62", train=20, test=1)).shape[1:]
        == digits.x_train.shape[1:]
    )


@given(st.integers(0, 100))
def test_halves_have_every_image_once_and_every_class_evenly(seed):
    data = load("digits").take(61, 10)
    first, second = halves(data, seed)
    assert (len(first.y_train), len(second.y_train)) == (31, 30)
    both = torch.cat([first.x_train, second.x_train]).flatten(1).long().sum(1).sort().values
    assert torch.equal(both, data.x_train.flatten(1).long().sum(1).sort().values)
    counts = [torch.bincount(part.y_train, minlength=10) for part in (first, second)]
    assert (counts[0] - counts[1]).abs().max() <= 2
    assert torch.equal(first.x_test, data.x_test)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: foreign_images(load("digits"), load("digits", train=50)),
            "must have classes of their own; 'digits' has none",
        ),
        (lambda: real_and_synthetic(10, 1.0, 4), "less than 1; got 1.0"),
        (lambda: real_and_synthetic(10, -0.1, 4), "at least 0 and less than 1; got -0.1"),
        (lambda: rotate(pictures(), 200, generator()), "degrees must be between 0 and 180"),
        (lambda: colour_jitter(pictures(), 0.7, generator()), "strength must be between 0 and 0.5"),
        (lambda: mixup_inputs(pictures(), generator(), 0), "alpha must be greater than 0; got 0"),
        (lambda: Policy(rotation=-1), "rotation must be between 0 and 180; got -1"),
        (lambda: Policy(jitter=0.6), "jitter must be between 0 and 0.5; got 0.6"),
        (lambda: Policy(noise=2), "noise must be between 0 and 1; got 2"),
        (lambda: Policy(share=0.2), "share needs extra images; got share 0.2 and no images"),
        (lambda: Policy(extra=pictures()), "got share 0.0 and 16 images"),
        (
            lambda: ClassGaussian.fitted(load("digits").take(1, 5)),
            "training images of some class must be at least 2; got 1",
        ),
        (
            lambda: ClassGaussian.fitted(load("digits").take(100, 5), 0),
            "components must be at least 1; got 0",
        ),
    ],
)
def test_wrong_inputs_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
