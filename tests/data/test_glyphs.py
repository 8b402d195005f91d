import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from smallnets.data import glyphs
from smallnets.data.glyphs import BACKGROUNDS, CHARACTERS, DIGITS, FACES, glyph_masks, make_glyphs

LUMA = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)


def family(face: str) -> str:
    return face.split("-")[0].removesuffix("Italic").removesuffix("BolIta").removesuffix("Bol")


def test_test_faces_and_photographs_are_not_those_of_training():
    families = {part: {family(face) for face in FACES[part]} for part in FACES}
    assert families["train"].isdisjoint(families["test"])
    assert len(families["test"]) == 3
    assert set(BACKGROUNDS["train"]).isdisjoint(BACKGROUNDS["test"])
    assert len(FACES["train"]) + len(FACES["test"]) == 22


@pytest.mark.parametrize("part", ["train", "test"])
def test_every_face_draws_every_character_whole_and_differently(part):
    masks = glyph_masks(FACES[part], CHARACTERS)
    assert masks.shape == (len(FACES[part]), 62, 48, 48)
    assert masks.amax((2, 3)).min() == 1
    edge = torch.cat([masks[..., 0, :], masks[..., -1, :], masks[..., 0], masks[..., -1]], dim=-1)
    assert edge.max() == 0
    flat = masks.flatten(2)
    for face in flat:
        assert len(torch.unique(face, dim=0)) == 62
    assert len(torch.unique(flat.flatten(1), dim=0)) == len(FACES[part])


def test_shipped_typefaces_are_matplotlibs_with_their_licence():
    """matplotlib has had cmti10 since 3.11 only; from any version come the same images."""
    from matplotlib import get_data_path

    shipped = sorted(glyphs.TYPEFACES.glob("*.ttf"))
    assert [file.stem for file in shipped] == ["cmti10"]
    assert hashlib.sha256(shipped[0].read_bytes()).hexdigest().startswith("f9f1f9f654308ae8")
    assert "Basil K. Malyshev" in (glyphs.TYPEFACES / "LICENCE.txt").read_text()
    theirs = Path(get_data_path()) / "fonts" / "ttf" / "cmti10.ttf"
    assert not theirs.exists() or theirs.read_bytes() == shipped[0].read_bytes()


def test_every_face_has_a_file():
    for face in FACES["train"] + FACES["test"]:
        assert glyphs.typeface(face).is_file(), face


def test_capitals_have_one_height_in_all_faces():
    rows = glyph_masks(FACES["train"] + FACES["test"], "H")[:, 0].amax(2) > 0.5
    assert (rows.sum(1) - 24).abs().max() <= 1


def test_images_and_labels_have_the_promised_types_and_shares():
    images, labels = make_glyphs(DIGITS, "train", 200, seed=0)
    assert images.shape == (200, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64
    assert torch.bincount(labels).tolist() == [20] * 10
    shares = torch.bincount(make_glyphs(CHARACTERS, "test", 100, seed=0)[1], minlength=62)
    assert shares.max() - shares.min() == 1


@pytest.mark.parametrize("count", [1, 3, 499, 500, 501])
def test_a_smaller_set_is_the_beginning_of_a_larger_one(count):
    images, labels = make_glyphs(DIGITS, "train", 1010, seed=7)
    fewer_images, fewer_labels = make_glyphs(DIGITS, "train", count, seed=7)
    assert torch.equal(fewer_images, images[:count])
    assert torch.equal(fewer_labels, labels[:count])


def test_threads_do_not_change_a_bit():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one, _ = make_glyphs(DIGITS, "test", 300, seed=2)
        torch.set_num_threads(2)
        two, _ = make_glyphs(DIGITS, "test", 300, seed=2)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one, two)


def test_seed_and_part_change_the_images():
    images = [make_glyphs(DIGITS, part, 50, seed)[0] for part in FACES for seed in (0, 1)]
    for i, first in enumerate(images):
        assert not any(torch.equal(first, second) for second in images[:i])


def test_smooth_glyphs_stand_upright_in_the_middle():
    """With no roughness the images of one character and face differ in colours alone."""
    images, _ = make_glyphs("I", "train", 400, seed=0, roughness=0)
    rough, _ = make_glyphs("I", "train", 400, seed=0, roughness=1)

    def strength(x):
        grey = (x.float() * LUMA).sum(1) / 255
        return grey.diff(dim=2).abs().mean((0, 1))

    smooth, uneven = strength(images), strength(rough)
    assert smooth[13:18].max() > 2 * smooth[:8].mean()
    assert smooth[13:18].max() / smooth[:8].mean() > uneven[13:18].max() / uneven[:8].mean()


def test_images_are_neither_blank_nor_saturated():
    images, _ = make_glyphs(DIGITS, "train", 1000, seed=0)
    grey = (images.float() * LUMA).sum(1) / 255
    assert 0.35 < grey.mean() < 0.65
    assert (grey.std((1, 2)) > 0.02).all()
    assert ((images == 0) | (images == 255)).float().mean() < 0.1


def test_characters_can_be_told_apart_across_faces_and_photographs():
    """A linear classifier on edge directions reads unseen faces far better than chance."""

    def features(images):
        grey = (images.float() * LUMA).sum(1, keepdim=True)
        across, down = F.pad(grey.diff(dim=3), (0, 1)), F.pad(grey.diff(dim=2), (0, 0, 0, 1))
        angle = (torch.arange(8) * torch.pi / 8).view(1, 8, 1, 1)
        strength = (across * angle.cos() + down * angle.sin()).abs()
        pooled = F.normalize(F.avg_pool2d(strength, 6, 4).flatten(1))
        return F.pad(pooled, (0, 1), value=1.0)

    images, labels = make_glyphs(DIGITS, "train", 2000, seed=0)
    unseen, truth = make_glyphs(DIGITS, "test", 500, seed=0)
    x = features(images)
    gram = x.T @ x + 0.3 * torch.eye(x.shape[1])
    weights = torch.linalg.solve(gram, x.T @ F.one_hot(labels, 10).float())
    assert ((features(unseen) @ weights).argmax(1) == truth).float().mean() > 0.3


def test_colours_stand_out_by_the_gap_wherever_there_is_room():
    rng = np.random.default_rng(0)
    n = 2000
    colour = torch.from_numpy(rng.random((n, 3, 1, 1), dtype=np.float32))
    behind, gap, where = torch.from_numpy(rng.random((3, n, 1, 1, 1), dtype=np.float32))
    gap = gap / 2
    result = glyphs._standing_out(colour, behind, gap, where)
    assert result.min() >= 0
    assert result.max() <= 1
    difference = ((result * LUMA).sum(1, keepdim=True) - behind).abs()
    assert (difference > gap - 1e-3).all()
