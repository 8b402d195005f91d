"""Siamese augmentation: identities, sharing, gradients, ranges, strategies."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smallnets.synthesize import condense as dm

NEUTRAL = {
    "color": (0.0, 1.0, 1.0), "crop": (0, 0), "flip": (0,), "scale": (1.0, 1.0), "rotate": (0.0,)
}  # fmt: skip
SOME = {
    "color": (0.3, 1.7, 0.6), "crop": (1, -2), "cutout": (3, 4, 5, 4), "flip": (1,),
    "scale": (0.87, 1.13), "rotate": (0.21,),
}  # fmt: skip


def params(family, *rows):
    return dm.DSAParams(family, torch.tensor(rows, dtype=torch.float32))


def images(n=3, channels=3, size=(8, 9), dtype=torch.float32):
    return torch.randn(n, channels, *size, generator=torch.Generator().manual_seed(n), dtype=dtype)


@pytest.mark.parametrize("family", NEUTRAL)
@pytest.mark.parametrize("corners", [False, True])
def test_neutral_parameters_change_nothing(family, corners):
    x = images()
    found = dm.apply_dsa(x, params(family, NEUTRAL[family]), corners)
    torch.testing.assert_close(found, x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", dm.FAMILIES)
@pytest.mark.parametrize("corners", [False, True])
def test_shared_parameters_treat_every_image_alike(family, corners):
    a, b = images(2), images(3)
    shared = params(family, SOME[family])
    together = dm.apply_dsa(torch.cat([a, b]), shared, corners)
    apart = torch.cat([dm.apply_dsa(one, shared, corners) for one in (a, b)])
    torch.testing.assert_close(together, apart)
    own = dm.apply_dsa(a, params(family, SOME[family], SOME[family]), corners)
    torch.testing.assert_close(own, together[:2])


@pytest.mark.parametrize("family", dm.FAMILIES)
def test_parameters_of_images_move_with_them(family):
    x = images(6)
    drawn = dm.sample_dsa(family, 6, (8, 9), torch.Generator().manual_seed(1))
    order = torch.tensor([4, 0, 5, 1, 3, 2])
    moved = dm.apply_dsa(x[order], drawn[order])
    torch.testing.assert_close(moved, dm.apply_dsa(x, drawn)[order])
    assert len({tuple(row.tolist()) for row in drawn.values}) > 1


@pytest.mark.parametrize("family", dm.FAMILIES)
@pytest.mark.parametrize("corners", [False, True])
def test_gradients_flow_to_the_pixels(family, corners):
    x = images(2, 2, (5, 6), torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: dm.apply_dsa(x, params(family, SOME[family]), corners), x
    )


def test_flip_twice_is_the_identity_and_turning_back_nearly():
    x = images()
    mirrored = params("flip", (1,))
    assert torch.equal(dm.apply_dsa(dm.apply_dsa(x, mirrored), mirrored), x)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 33), torch.linspace(-1, 1, 33), indexing="ij")
    smooth = (torch.sin(2 * x) + torch.cos(3 * y))[None, None]
    turned = dm.apply_dsa(smooth, params("rotate", (0.2,)))
    back = dm.apply_dsa(turned, params("rotate", (-0.2,)))
    inside = (slice(None), slice(None), slice(8, 25), slice(8, 25))
    torch.testing.assert_close(back[inside], smooth[inside], rtol=0, atol=0.02)
    assert (turned - smooth)[inside].abs().max() > 0.2


@given(st.integers(-12, 12), st.integers(-12, 12))
def test_crop_moves_and_zeros_enter(dy, dx):
    x = images(1) + 10
    found = dm.apply_dsa(x, params("crop", (dy, dx)))
    expected = torch.zeros_like(x)
    for r in range(8):
        for q in range(9):
            if 0 <= r + dy < 8 and 0 <= q + dx < 9:
                expected[:, :, r, q] = x[:, :, r + dy, q + dx]
    assert torch.equal(found, expected)
    if abs(dy) >= 8 or abs(dx) >= 9:
        assert not found.any()


@given(st.integers(0, 8), st.integers(0, 9), st.integers(1, 8), st.integers(1, 9))
def test_cutout_clears_no_more_than_its_area(cy, cx, height, width):
    x = torch.ones(1, 2, 8, 9)
    cleared = int((dm.apply_dsa(x, params("cutout", (cy, cx, height, width))) == 0).sum())
    assert cleared <= 2 * height * width


def test_saturation_does_nothing_to_grey():
    grey = images(channels=1)
    assert torch.equal(dm.saturation(grey, torch.tensor([0.1])), grey)
    assert not torch.equal(dm.saturation(images(), torch.tensor([0.1])), images())


def test_drawn_parameters_stay_in_their_ranges_and_reach_them():
    draws, n, size = torch.Generator().manual_seed(0), 4000, (16, 13)
    bounds = {
        "color": ((-0.5, 0.5), (0, 2), (0.5, 1.5)),
        "crop": ((-2, 2), (-2, 2)),
        "cutout": ((0, 16), (0, 12), (8, 8), (7, 7)),  # even 8 of 16, odd 7 of 13
        "flip": ((0, 1),),
        "scale": ((1 / 1.2, 1.2), (1 / 1.2, 1.2)),
        "rotate": ((-math.pi / 12, math.pi / 12),),
    }
    for family, expected in bounds.items():
        values = dm.sample_dsa(family, n, size, draws).values
        assert values.shape == (n, len(expected))
        for column, (low, high) in zip(values.T, expected, strict=True):
            span = 0.01 * (high - low)
            assert low <= float(column.min()) <= low + span
            assert high - span <= float(column.max()) <= high
    whole = dm.sample_dsa("crop", n, size, draws).values
    assert torch.equal(whole, whole.round())


def test_families_are_drawn_alike_and_a_seed_repeats_them():
    draws = torch.Generator().manual_seed(0)
    drawn = [dm.sample_dsa(dm.FULL, None, (8, 8), draws) for _ in range(1200)]
    counts = [sum(one.family == family for one in drawn) for family in dm.FAMILIES]
    assert min(counts) > 150
    assert all(len(one.values) == 1 for one in drawn)
    again = torch.Generator().manual_seed(0)
    for one in drawn[:20]:
        other = dm.sample_dsa(dm.FULL, None, (8, 8), again)
        assert one.family == other.family
        assert torch.equal(one.values, other.values)
    assert "flip" not in dm.DIGITS.split("_")


def test_strategies_and_images_are_checked_in_one_line():
    draws = torch.Generator()
    for strategy, words in (
        ("color_blur", "must be one of color, crop.*got 'blur'"),
        ("color__crop", "must not have an empty family; got 'color__crop'"),
        ("", "empty family"),
        ("crop_color_crop", "must name every family once"),
        (7, "strategy must be a text"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            dm.sample_dsa(strategy, 2, (8, 8), draws)
        assert "\n" not in str(caught.value)
    assert dm.sample_dsa(None, 2, (8, 8), draws) is None
    x = images()
    assert dm.apply_dsa(x, None) is x
    with pytest.raises(ValueError, match="params must be for 1 or 3 images; got 2"):
        dm.apply_dsa(x, params("flip", (1,), (0,)))
    with pytest.raises(ValueError, match="floating-point"):
        dm.apply_dsa(x.to(torch.uint8), params("flip", (1,)))
    with pytest.raises(ValueError, match="n must be at least 1"):
        dm.sample_dsa("flip", 0, (8, 8), draws)
    for bad in ({"scale": 0.5}, {"rotate": -1}, {"flip": 2}, {"brightness": -1}, {"crop": 1.5}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            dm.DSARanges(**bad)
