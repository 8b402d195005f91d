"""scenes: drawn label maps, and the pictures that belong to them; domains of one's own."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from smallnets.data import scenes as module
from smallnets.data.scenes import (
    CLASSES,
    FIRST_THING,
    GROUND,
    HOUSE,
    PALETTE,
    SKY,
    TREE,
    WATER,
    coloured,
    load_translation,
    make_scenes,
    scenes,
)
from smallnets.data.translation import (
    Translation,
    as_levels,
    as_signed,
    one_hot_maps,
    sheet,
    translation_npz,
)

ONE_LINE = r"^[^\n]+$"


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SMALLNETS_CACHE", str(tmp_path / "cache"))


def made(count=6, size=(24, 24), part="train", seed=0, number=0, style="summer"):
    return make_scenes(part, count, size, seed, number, style)


def test_fewer_scenes_are_the_beginning_of_more_and_seeds_differ(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 4)
    images, maps = made(6)
    few, few_maps = made(3)
    assert torch.equal(images[:3], few)
    assert torch.equal(maps[:3], few_maps)
    assert not torch.equal(images, made(6, seed=1)[0])
    assert not torch.equal(maps, made(6, part="test")[1])
    assert not torch.equal(maps, made(6, number=1)[1])


def test_a_scene_is_the_same_at_every_size():
    small, large = (made(5, (side, 2 * side))[1][:, 0] for side in (16, 64))
    shrunk = large[:, 2::4, 2::4]
    assert (small == shrunk).float().mean() > 0.9


def test_scenes_hold_all_classes_in_sensible_places():
    _, maps = made(60, (32, 32))
    labels, instances = maps[:, 0], maps[:, 1]
    assert set(labels.unique().tolist()) == set(range(len(CLASSES)))
    assert (labels[:, 0] == SKY).float().mean() > 0.95
    assert (labels[:, -1] == SKY).sum() == 0
    assert (labels == GROUND).float().mean() > 0.15
    for thing in (TREE, HOUSE):
        assert (instances[labels == thing] >= FIRST_THING).all()
    stuff = (labels != TREE) & (labels != HOUSE)
    assert torch.equal(instances[stuff], labels[stuff])


def test_styles_show_the_same_scene_in_other_colours():
    summer, winter = (made(20, style=style) for style in ("summer", "winter"))
    assert torch.equal(summer[1], winter[1])
    ground = (summer[1][:, 0] == GROUND)[:, None].expand(-1, 3, -1, -1)
    assert winter[0][ground].float().mean() > summer[0][ground].float().mean() + 60
    both = made(20, style="both")[0]
    is_summer = (both == summer[0]).flatten(1).all(1)
    is_winter = (both == winter[0]).flatten(1).all(1)
    assert (is_summer ^ is_winter).all()
    assert 4 <= int(is_summer.sum()) <= 16
    water = (summer[1][:, 0] == WATER)[:, None].expand(-1, 3, -1, -1)
    blue = summer[0].float()
    assert blue[:, 2:][water[:, :1]].mean() > blue[:, :1][water[:, :1]].mean() + 40


def test_surfaces_of_test_pictures_come_from_other_parts_of_the_photographs():
    train, test = (module._texture("grass", part, 64) for part in ("train", "test"))
    assert train.shape[3] > 2 * test.shape[3]
    for one in (train, test):
        assert abs(float(one.mean())) < 0.05
        assert 0.9 < float(one.std()) < 1.05


def test_pairs_belong_together():
    data = scenes("paired", train=5, test=3, size=(16, 24))
    assert (data.size, data.a_channels, data.b_channels) == ((16, 24), 3, 3)
    assert data.paired
    assert data.flips
    assert torch.equal(data.a_train, coloured(data.labels_train))
    assert torch.equal(data.b_train, made(5, (16, 24))[0])
    assert {tuple(c) for c in data.a_test.movedim(1, -1).reshape(-1, 3).tolist()} <= {
        tuple(c) for c in PALETTE.tolist()
    }


def test_unpaired_sets_show_other_scenes_but_for_the_test():
    data = scenes("unpaired", train=5, test=3, size=16)
    assert not data.paired
    assert data.aligned
    assert torch.equal(data.a_test, made(3, (16, 16), "test")[0])
    assert torch.equal(data.b_test, made(3, (16, 16), "test", style="winter")[0])
    assert torch.equal(data.b_train, made(5, (16, 16), number=1, style="winter")[0])


def test_semantic_maps_are_one_hot_and_have_borders():
    data = scenes("semantic", train=5, test=3, size=16)
    assert data.one_hot
    assert data.a_channels == len(CLASSES) + 1
    assert (data.a_train[:, :-1].sum(1) == 1).all()
    assert torch.equal(data.a_train[:, :-1].argmax(1).to(torch.uint8), data.labels_train)
    assert 0 < float(data.a_train[:, -1].float().mean()) < 0.7
    assert set(data.a(data.a_train).unique().tolist()) == {0.0, 1.0}


def test_two_styles_mix_summer_and_winter():
    data = scenes("styles", train=40, test=8, size=16)
    assert not data.paired
    light = data.b_train.float().mean((1, 2, 3))
    assert float(light.std()) > 20
    assert torch.equal(data.a_test, coloured(data.labels_test))


def test_scenes_are_kept_and_not_made_again(monkeypatch):
    first = scenes(train=3, test=2, size=16)
    monkeypatch.setattr(module, "draw", None)
    again = scenes(train=3, test=2, size=16)
    assert torch.equal(first.b_train, again.b_train)
    assert first.key == again.key


@pytest.mark.parametrize(
    "call",
    [
        lambda: scenes("cubist"),
        lambda: scenes(train=0),
        lambda: scenes(size=0),
        lambda: scenes(size=16.0),
        lambda: scenes(size="16"),
        lambda: scenes(size=(3, 16, 16)),
        lambda: scenes(seed=-1),
        lambda: load_translation("horses"),
        lambda: load_translation("npz:x.npz", kind="semantic"),
        lambda: one_hot_maps(torch.tensor([[[0, 6]]]), None, 6),
        lambda: one_hot_maps(torch.tensor([[[0, 1]]]), torch.zeros(1, 2, 2), 6),
    ],
)
def test_bad_inputs_are_refused_in_one_line(call):
    with pytest.raises(ValueError, match=r"^[^\n]+; got [^\n]+$"):
        call()


def test_borders_lie_on_both_sides():
    instances = torch.tensor([[[1, 1, 2], [1, 1, 2], [1, 1, 1]]])
    border = one_hot_maps(torch.zeros_like(instances), instances, 1)[0, 1]
    assert border.tolist() == [[0, 1, 1], [0, 1, 1], [0, 0, 1]]


def noise(count, channels=3, side=8, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, side, side), generator=draw, dtype=torch.uint8)


def domains(**other):
    given = {"a_train": noise(6), "b_train": noise(6, seed=1), "paired": True}
    return Translation("noise", **given | {"a_test": noise(2), "b_test": noise(2)} | other)


@pytest.mark.parametrize(
    "other",
    [
        {"a_train": noise(6).float()},
        {"a_train": noise(6)[:0]},
        {"a_test": noise(2, 1)},
        {"a_train": noise(5)},
        {"b_train": noise(6, side=10), "b_test": noise(2, side=10)},
        {"a_test": noise(1)},
        {"one_hot": True},
        {"labels_train": torch.zeros(6, 9, 8, dtype=torch.uint8), "class_names": ("a",)},
        {"labels_train": torch.ones(6, 8, 8, dtype=torch.uint8), "class_names": ("a",)},
    ],
)
def test_domains_that_do_not_fit_are_refused(other):
    with pytest.raises(ValueError, match=ONE_LINE):
        domains(**other)


def test_held_out_images_are_not_trained_on():
    data = domains()
    chosen = data.held_out(2, seed=1)
    parts = [{one.numpy().tobytes() for one in x} for x in (chosen.a_train, chosen.a_test)]
    assert (len(parts[0]), len(parts[1])) == (4, 2)
    assert not parts[0] & parts[1]
    pairs = {a.numpy().tobytes(): b for a, b in zip(data.a_train, data.b_train, strict=True)}
    for a, b in zip(chosen.a_test, chosen.b_test, strict=True):
        assert torch.equal(pairs[a.numpy().tobytes()], b)
    apart = replace(data, paired=False, aligned=False, b_train=noise(4, seed=3)).held_out(1)
    assert (len(apart.a_train), len(apart.b_train), apart.aligned) == (5, 3, False)
    with pytest.raises(ValueError, match=r"^count must be between 1 and 5; got 6$"):
        data.held_out(6)
    assert len(data.take(3, 1).b_test) == 1


def test_levels_and_signs():
    images = noise(2)
    assert torch.equal(as_levels(as_signed(images)), images)
    assert as_signed(images).abs().max() <= 1
    assert sheet([images, images[:, :1]], gap=1).shape == (3, 17, 17)


@pytest.mark.parametrize("form", ["uint8", "float", "grey", "last"])
def test_a_file_of_ones_own(tmp_path, form):
    a, b = noise(5, 1 if form == "grey" else 3).numpy(), noise(5, seed=1).numpy()
    shown = {
        "uint8": a, "float": a / 255.0, "grey": a[:, 0], "last": a.transpose(0, 2, 3, 1)
    }[form]  # fmt: skip
    file = tmp_path / "own.npz"
    np.savez(file, a_train=shown, b_train=b, a_test=shown[:2], b_test=b[:2])
    data = load_translation(f"npz:{file}")
    assert np.array_equal(data.a_train, a)
    assert data.paired
    apart = load_translation(f"npz:{file}", kind="unpaired", train=3)
    assert not apart.paired
    assert len(apart.a_train) == 3


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^no data file .* a_train, b_train"):
        translation_npz(tmp_path / "none.npz")
    good = noise(3).numpy()
    for name, bad in (
        ("channels", noise(3, 2).numpy()),
        ("range", good.astype(float)),
        ("type", good.astype(np.int32)),
    ):
        file = tmp_path / f"{name}.npz"
        np.savez(file, a_train=bad, b_train=good, a_test=bad, b_test=good)
        with pytest.raises(ValueError, match=ONE_LINE):
            translation_npz(file)
