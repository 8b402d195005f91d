"""The patch generator: what is drawn, and what is made of it."""

from dataclasses import fields, replace
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch.nn import functional as F

from smallnets.distill import single_image as si
from smallnets.distill.single_image import colour
from smallnets.distill.single_image.chance import normals, uniforms
from smallnets.distill.single_image.geometry import inverse_affine

WHOLE = si.PatchSettings(
    size=16, initial_crop=1.0, degrees=0.0, shear=0.0, inverse_scale=(1.0, 1.0), aspect=(1.0, 1.0),
    jitter_probability=0.0,
)  # fmt: skip


def test_random_numbers_are_uniform_independent_and_named_by_their_place():
    drawn = uniforms(3, np.arange(4000), range(6))
    assert stats.kstest(drawn.ravel(), "uniform").pvalue > 0.01
    for one in (drawn, drawn.T):
        step = np.corrcoef(one[:-1].ravel(), one[1:].ravel())[0, 1]
        assert abs(step) < 0.03
    assert np.abs(np.corrcoef(drawn.T) - np.eye(6)).max() < 0.06
    assert (uniforms(3, np.array([77, 5]), range(4, 6)) == drawn[[77, 5], 4:]).all()
    assert not (uniforms(4, np.arange(50), range(6)) == drawn[:50]).any()
    bell = normals(0, np.arange(400), range(20)).ravel()
    assert stats.kstest(bell, "norm").pvalue > 0.01


def test_a_patch_depends_on_seed_and_number_alone(picture):
    settings = si.PatchSettings(size=16, vertical_flip=True, interpolation="random")
    made = si.PatchGenerator(picture, settings, seed=5)
    pool = made.take(range(150))
    order = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    again = si.PatchGenerator(picture, settings, seed=5)  # as in another process
    assert torch.equal(again.take(order), pool[order])
    parts = [again.take(range(start, min(start + 7, 150))) for start in range(0, 150, 7)]
    assert torch.equal(torch.cat(parts), pool)
    assert torch.equal(torch.cat([again.take([n]) for n in (149, 3)]), pool[[149, 3]])
    others = si.PatchGenerator(picture, settings, seed=6).take(range(150))
    assert (others != pool).flatten(1).any(1).all()


def test_patches_do_not_depend_on_the_number_of_threads(picture):
    made, before = si.PatchGenerator(picture), torch.get_num_threads()
    one = made.take(range(64))
    try:
        torch.set_num_threads(3)
        assert torch.equal(made.take(range(64)), one)
    finally:
        torch.set_num_threads(before)


def test_without_any_change_a_patch_is_the_middle_of_the_resized_photograph(picture):
    square = picture[:, :, :96]
    patches = si.patch_pool(square, 3, WHOLE)
    assert (patches == patches[:1]).all()
    small = F.interpolate(square[None].float(), (22, 22), mode="bicubic", antialias=True)
    expected = small.round().clamp(0, 255)[:, :, 3:19, 3:19]
    assert (patches[:1].float() - expected).abs().mean() < 8
    exact = si.render_patch_reference(
        square, si.sample_patch_parameters([0], (96, 96), WHOLE), 0, WHOLE
    )
    gap = (exact.patch.float() - expected[0]).abs()  # PIL rounds between its two passes
    assert gap.max() <= 8
    assert gap.mean() < 0.5


def test_a_photograph_of_one_colour_gives_patches_of_it_and_of_fill():
    colour_of = torch.tensor([200, 90, 20], dtype=torch.uint8)[:, None, None]
    settings = si.PatchSettings(jitter_probability=0.0, fill=7)
    patches = si.patch_pool(colour_of.expand(3, 64, 80), 300, settings).movedim(1, -1)
    flat = patches.reshape(-1, 3)
    plain = (flat == colour_of.flatten()).all(1)
    filled = (flat == 7).all(1)
    assert (plain | filled).all()
    some = filled.view(300, -1).any(1).float().mean()
    assert 0.18 < some < 0.33  # a quarter, as published
    assert 0.0005 < filled.float().mean() < 0.004


@pytest.mark.parametrize("degrees", [10.0, 30.0])
def test_a_pure_rotation_leaves_no_fill(degrees):
    white = torch.full((3, 64, 64), 255, dtype=torch.uint8)
    settings = si.PatchSettings(degrees=degrees, shear=0.0, jitter_probability=0.0)
    assert (si.patch_pool(white, 400, settings) == 255).all()
    more = si.PatchSettings(degrees=45.0, shear=0.0, jitter_probability=0.0)
    filled = (si.patch_pool(white, 400, more) == 0).flatten(1).any(1).float().mean()
    assert 0.08 < filled < 0.25


def test_boxes_have_the_published_areas_and_uniform_places():
    drawn = si.sample_patch_parameters(range(20_000), (300, 200))
    side = drawn.initial[0, 2]
    assert side == 100
    assert (drawn.initial[:, 2:] == side).all()
    share = (drawn.box[:, 2] * drawn.box[:, 3]).double() / side**2
    assert share.mean() == pytest.approx(0.443, abs=0.01)
    quantiles = share.quantile(torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64))
    expected = torch.tensor([0.04, 0.22, 0.44, 0.66, 0.86], dtype=torch.float64)
    torch.testing.assert_close(quantiles, expected, rtol=0, atol=0.02)
    assert (drawn.box[:, :2] + drawn.box[:, 2:] <= side).all()
    room = side - drawn.box[:, 2] + 1
    place = (drawn.box[:, 0] + 0.5) / room
    assert stats.kstest(place[room > 30].numpy(), "uniform").statistic < 0.03
    for axis, length in ((0, 300), (1, 200)):
        corner = (drawn.initial[:, axis] + 0.5) / (length - 100 + 1)
        assert stats.kstest(corner.numpy(), "uniform").statistic < 0.02
    aspect = (drawn.box[:, 3] / drawn.box[:, 2]).log2()
    assert aspect[share > 0.1].abs().max() < 0.5
    assert drawn.jitter.double().mean() == pytest.approx(0.5, abs=0.02)
    assert len(drawn.order.unique(dim=0)) == 24
    assert (drawn.factors[:, :3] - 1).abs().max() <= 0.4
    assert drawn.factors[:, 3].abs().max() <= 0.1
    assert not drawn.flip.any()
    assert (drawn.shear[:, 1] == 0).all()


def test_the_whole_photograph_takes_the_place_of_the_first_square():
    settings = si.PatchSettings(initial_crop=None)
    drawn = si.sample_patch_parameters(range(500), (40, 90), settings)
    assert (drawn.initial == torch.tensor([0, 0, 40, 90])).all()
    assert drawn.box[:, 3].max() > 40


@given(st.floats(-80, 80), st.floats(-40, 40), st.floats(-10, 10))
def test_rotation_and_shear_keep_areas_and_a_rotation_back_undoes_one(angle, sx, sy):
    turn, shear = torch.tensor([angle, -angle]), torch.tensor([[sx, sy], [0.0, 0.0]])
    one = inverse_affine(turn, shear)
    torch.testing.assert_close(one.det().abs(), torch.ones(2, dtype=torch.float64))
    there, back = inverse_affine(turn, torch.zeros(2, 2))
    torch.testing.assert_close(there @ back, torch.eye(2, dtype=torch.float64))


def test_upside_down_is_what_the_reference_says(picture):
    settings = replace(WHOLE, vertical_flip=True, size=32)
    drawn = si.sample_patch_parameters(range(8), (96, 128), settings)
    assert set(drawn.flip.tolist()) == {True, False}
    ours = si.render_patches(picture, drawn, settings).float()
    theirs = torch.stack(
        [si.render_patch_reference(picture, drawn, n, settings).patch for n in range(8)]
    ).float()
    assert (ours - theirs).abs().mean() < 6
    assert (ours.flip(2) - theirs).abs().mean() > 20


def test_many_patches_are_close_to_the_reference(picture):
    settings = si.PatchSettings(interpolation="random", vertical_flip=True, fill=128)
    drawn = si.sample_patch_parameters(range(200), (96, 128), settings, seed=1)
    ours = si.render_patches(picture, drawn, settings).float()
    theirs = torch.stack(
        [si.render_patch_reference(picture, drawn, n, settings).patch for n in range(200)]
    ).float()
    smooth = drawn.interpolation > 0
    assert (ours - theirs)[smooth].abs().mean() < 3.5
    assert F.avg_pool2d(ours - theirs, 4)[smooth].abs().mean() < 1.5
    assert (ours - theirs)[~smooth].abs().mean() < 8  # single pixels jump


def test_small_patches_of_fine_stripes_are_grey():
    """Without antialiasing they would be stripes again."""
    stripes = (255 * (torch.arange(256) % 2)).to(torch.uint8).expand(3, 256, 256).contiguous()
    patches = si.patch_pool(stripes, 4, replace(WHOLE, size=24)).float()
    assert patches.std() < 6
    assert patches.mean() == pytest.approx(127.5, abs=3)


def test_many_photographs_are_patchified_together():
    shades = torch.arange(40, 240, 20, dtype=torch.uint8)
    images = shades[:, None, None, None].expand(10, 3, 32, 32)
    settings = si.PatchSettings(jitter_probability=0.0, degrees=0.0, shear=0.0)
    for size in (32, 160):  # copied for each patch, and one after the other
        large = images[:, :, :1, :1].expand(10, 3, size, size)
        made = si.PatchGenerator(large, settings)
        source = made.parameters(range(300)).source
        assert (made.take(range(300)) == shades[source][:, None, None, None]).all()
        assert torch.bincount(source).min() > 10


@pytest.mark.parametrize("count", [1, 2])
def test_large_photographs_are_not_copied_to_be_read(picture, count, monkeypatch):
    from smallnets.distill.single_image import render

    plain, read = F.grid_sample, []

    def watched(images, *args, **kwargs):
        read.append(images)
        return plain(images, *args, **kwargs)

    large = F.interpolate(picture[None].float(), (192, 256)).to(torch.uint8)
    made = si.PatchGenerator(large.repeat(count, 1, 1, 1))
    monkeypatch.setattr(render.F, "grid_sample", watched)
    made.take(range(40))
    own = {one.untyped_storage().data_ptr() for one in made.pyramid.levels.values()}
    assert {one.untyped_storage().data_ptr() for one in read} <= own


def test_the_photograph_itself_is_kept_once(picture):
    pyramid = si.Pyramid(picture)
    first = pyramid.level(0, "bicubic")
    assert pyramid.level(0, "bilinear") is first
    assert pyramid.level(0, "nearest") is first
    assert pyramid.level(3, "nearest") is first
    assert pyramid.level(3, "bilinear") is not first
    assert pyramid.level(3, "bilinear") is not pyramid.level(3, "bicubic")


def test_grey_patches_are_the_luma_of_coloured_ones(picture):
    coloured = si.patch_pool(picture, 20)
    grey = si.patch_pool(picture, 20, si.PatchSettings(channels=1))
    assert grey.shape == (20, 1, 32, 32)
    luma = colour.grey(coloured.float())
    assert (grey[:, 0].float() - luma).abs().max() <= 1.5


def test_colours_are_changed_as_torchvision_changes_them(picture):
    from torchvision.transforms import functional as TF

    images = picture.float()[None].repeat(6, 1, 1, 1)
    factors = torch.tensor([0.6, 0.9, 1.0, 1.1, 1.4, 0.0]).view(-1, 1, 1, 1)
    for name, theirs in (
        ("brightness", TF.adjust_brightness),
        ("contrast", TF.adjust_contrast),
        ("saturation", TF.adjust_saturation),
    ):
        ours = getattr(colour, name)(images.clone(), factors) / 255
        for one, factor in zip(ours, factors.flatten().tolist(), strict=True):
            assert (one - theirs(picture.float() / 255, factor)).abs().max() < 0.01, name
    turns = torch.tensor([-0.5, -0.1, 0.0, 0.05, 0.1, 0.5]).view(-1, 1, 1, 1)
    ours = colour.hue(images.clone(), turns) / 255
    for one, turn in zip(ours, turns.flatten().tolist(), strict=True):
        torch.testing.assert_close(
            one, TF.adjust_hue(picture.float() / 255, turn), atol=2e-4, rtol=0
        )
    assert (colour.hue(images.clone(), 0 * turns) - images).abs().max() < 1e-3


def test_the_order_of_colour_changes_is_each_patch_s_own():
    images = torch.rand(24, 3, 5, 5) * 255
    factors = torch.tensor([1.4, 0.6, 1.3, 0.1]).expand(24, 4)
    orders = torch.tensor([list(p) for p in permutations(range(4))])
    together = colour.jitter(images.clone(), factors, orders)
    for n in range(24):
        alone = images[n : n + 1].clone()
        for step in orders[n].tolist():
            alone = colour.OPERATIONS[step](alone, factors[n : n + 1, step].view(1, 1, 1, 1))
        assert torch.equal(together[n], alone[0])


def test_parameters_can_be_cut():
    drawn = si.sample_patch_parameters(range(10), (64, 64))
    part = drawn[torch.tensor([3, 1])]
    assert len(part) == 2
    for field in fields(drawn):
        assert torch.equal(getattr(part, field.name), getattr(drawn, field.name)[[3, 1]])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 0}, "size must be at least 1; got 0"),
        ({"size": -3}, "size must be at least 1; got -3"),
        ({"initial_crop": 0.0}, "initial_crop must be greater than 0"),
        ({"initial_crop": 1.5}, "initial_crop must be between 0 and 1; got 1.5"),
        ({"degrees": 181}, "degrees must be between 0 and 180; got 181"),
        ({"shear": 90}, "shear must be less than 90; got 90"),
        ({"shear": 120}, "shear must be between 0 and 90; got 120"),
        ({"inverse_scale": (1.0, 500.0)}, r"r0 >= r1 >= 1.*got \(1.0, 500.0\)"),
        ({"inverse_scale": (2.0, 0.5)}, r"r0 >= r1 >= 1.*got \(2.0, 0.5\)"),
        ({"inverse_scale": (float("inf"), 1.0)}, "inverse_scale must be finite"),
        ({"aspect": (0.0, 1.0)}, "aspect must be greater than 0"),
        ({"aspect": (2.0, 1.0)}, "upper end of aspect must be between 2.0"),
        ({"jitter": (1.1, 0, 0, 0)}, "jitter of brightness must be between 0 and 1; got 1.1"),
        ({"jitter": (0, 0, 0, 0.6)}, "jitter of hue must be between 0 and 0.5; got 0.6"),
        ({"jitter": (0.4, 0.4)}, "jitter must be .brightness, contrast, saturation, hue."),
        ({"jitter_probability": 1.2}, "jitter_probability must be between 0 and 1; got 1.2"),
        ({"fill": 256}, "fill must be between 0 and 255; got 256"),
        ({"interpolation": "cubic"}, "interpolation must be one of nearest"),
        ({"channels": 4}, "channels must be 1 or 3; got 4"),
        ({"trials": 0}, "trials must be at least 1; got 0"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(changes, words):
    with pytest.raises(ValueError, match=words) as error:
        si.PatchSettings(**changes)
    assert "\n" not in str(error.value)


def test_photographs_that_are_too_small_or_too_long_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"too small.* 0\.5 of its shorter side; got 3x9"):
        si.PatchGenerator(torch.zeros(3, 3, 9, dtype=torch.uint8))
    long = si.PatchSettings(initial_crop=None, inverse_scale=(1.0, 1.0), trials=20)
    with pytest.raises(
        ValueError, match=r"no box fitted into 4x400.*20 trials.*0.00% of the boxes"
    ):
        si.sample_patch_parameters(range(5), (4, 400), long)
    with pytest.raises(ValueError, match="numbers of patches must be 0 or more"):
        si.sample_patch_parameters([-1], (64, 64))
    with pytest.raises(ValueError, match="seed must be at least 0; got -1"):
        si.sample_patch_parameters([1], (64, 64), seed=-1)
