"""FID, KID and what they refuse."""

import math

import pytest
import torch
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from smallnets.measure.frechet import (
    as_published_pixels,
    fid,
    frechet_distance,
    gaussian,
    kid,
)


def drawn(n, d, seed=0, scale=1.0):
    return scale * torch.randn(
        n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def test_equal_sets_are_at_distance_zero_and_a_shift_counts_squared():
    x = drawn(50, 6)
    shift = drawn(1, 6, seed=1)
    assert fid(x, x) < 1e-9
    assert math.isclose(fid(x, x + shift), float(shift.square().sum()), rel_tol=1e-9)


def test_one_dimension_has_a_closed_form():
    a, b = drawn(40, 1), 1 + 3 * drawn(30, 1, seed=1)
    expected = (a.mean() - b.mean()) ** 2 + (a.std() - b.std()) ** 2
    assert math.isclose(fid(a, b), float(expected), rel_tol=1e-9)


def test_symmetric_invariant_to_rotation_and_quadratic_in_scale():
    a, b = drawn(60, 5), drawn(40, 5, seed=1, scale=2)
    rotation = torch.linalg.qr(drawn(5, 5, seed=2))[0]
    value = fid(a, b)
    assert math.isclose(fid(b, a), value, rel_tol=1e-9)
    assert math.isclose(fid(a @ rotation, b @ rotation), value, rel_tol=1e-9)
    assert math.isclose(fid(3 * a, 3 * b), 9 * value, rel_tol=1e-9)


def test_fewer_images_than_dimensions_do_no_harm():
    value = fid(drawn(4, 9), drawn(5, 9, seed=1))
    assert math.isfinite(value)
    assert value > 0


def test_torchmetrics_agrees():
    a, b = drawn(60, 5), drawn(40, 5, seed=1, scale=2)
    (m1, s1), (m2, s2) = gaussian(a), gaussian(b)
    expected = float(_compute_fid(m1, s1, m2, s2))
    assert math.isclose(frechet_distance(m1, s1, m2, s2), expected, rel_tol=1e-6)
    other = drawn(60, 5, seed=3)
    mean, spread = kid(a, other)
    assert math.isclose(mean, float(poly_mmd(a, other)), rel_tol=1e-9)
    assert spread == 0


def test_kernel_distance_does_not_depend_on_the_number_of_images():
    small = [kid(drawn(20, 4, seed=s), drawn(20, 4, seed=s + 500, scale=1.5))[0] for s in range(60)]
    large = [kid(drawn(80, 4, seed=s), drawn(80, 4, seed=s + 500, scale=1.5))[0] for s in range(60)]
    means = torch.tensor([small, large]).mean(1)
    errors = torch.tensor([small, large]).std(1) / 60**0.5
    assert abs(float(means[0] - means[1])) < 3 * float(errors.square().sum().sqrt())
    mean, spread = kid(drawn(80, 4), drawn(80, 4, seed=1), subsets=5, subset_size=20)
    assert spread > 0
    assert kid(drawn(80, 4), drawn(80, 4, seed=1), subsets=5, subset_size=20) == (mean, spread)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: fid(x[:1], x),
        lambda x: fid(x, x[:, :2]),
        lambda x: fid(x / 0, x),
        lambda x: fid(x.flatten(), x),
        lambda x: kid(x, x, subset_size=9),
        lambda x: kid(x, x, subset_size=1),
        lambda x: frechet_distance(x[0], x, x[0], x),
        lambda x: frechet_distance(x[0] / 0, x[:3, :3], x[0], x[:3, :3]),
    ],
)
def test_bad_inputs_are_refused_in_one_line(call):
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        call(torch.ones(5, 3))


def test_published_pixels_are_cut_off():
    assert as_published_pixels(torch.tensor([-1.0, 0.0, 0.999, 1.0, 2.0])).tolist() == [
        0, 127, 254, 255, 255,
    ]  # fmt: skip
