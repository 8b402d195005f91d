"""A pool in memory, patches without end, and both as batches of a training."""

from itertools import islice

import numpy as np
import pytest
import torch

from smallnets.data import Batches, load
from smallnets.distill import single_image as si
from smallnets.distill.single_image import streams

SMALL = si.PatchSettings(size=12)


def test_pool_and_stream_hold_the_same_patches(picture):
    pool = si.patch_pool(picture, 50, SMALL, seed=2)
    assert pool.dtype == torch.uint8
    assert pool.shape == (50, 3, 12, 12)
    batches = list(islice(si.patch_stream(picture, 20, SMALL, seed=2), 3))
    assert torch.equal(torch.cat(batches)[:50], pool)
    later = next(si.patch_stream(picture, 5, SMALL, seed=2, start=30))
    assert torch.equal(later, pool[30:35])
    assert torch.equal(si.patch_pool(picture, 9, SMALL, seed=2), pool[:9])
    assert not torch.equal(si.patch_pool(picture, 50, SMALL, seed=3), pool)


def test_pools_are_made_in_parts_of_so_many_bytes(picture, monkeypatch):
    asked = []

    class Counted(si.ClipGenerator):
        def take(self, numbers):
            asked.append(len(numbers))
            return super().take(numbers)

    made = Counted(picture, SMALL, frames=2)
    monkeypatch.setattr(streams, "AHEAD", 3 * made.take(range(1)).nbytes)
    asked.clear()
    pool = si.pool_of(made, 7)
    assert max(asked) == 3
    assert torch.equal(pool, made.take(range(7)))


def test_jpeg_changes_a_little(picture):
    plain = si.patch_pool(picture, 30)
    through = si.patch_pool(picture, 30, jpeg=True)
    errors = (plain.double() - through.double()).square().mean()
    assert 25 < 10 * torch.log10(255**2 / errors) < 40
    better = si.jpeg_round_trip(plain, 95)
    assert (plain.double() - better.double()).square().mean() < errors / 2
    grey = si.jpeg_round_trip(plain[:, :1])
    assert grey.shape == (30, 1, 32, 32)
    with pytest.raises(ValueError, match="quality must be between 1 and 95; got 0"):
        si.jpeg_round_trip(plain, 0)
    with pytest.raises(ValueError, match="patches must be uint8"):
        si.jpeg_round_trip(plain.float())


def test_pools_are_kept_in_files(picture, tmp_path):
    pool = si.patch_pool(picture, 10, SMALL)
    si.save_pool(tmp_path / "pool.npz", pool)
    assert torch.equal(si.load_pool(tmp_path / "pool.npz", SMALL), pool)
    si.save_pool(tmp_path / "pool", pool)
    assert torch.equal(si.load_pool(tmp_path / "pool"), pool)
    clips = si.pool_of(si.ClipGenerator(picture, SMALL, frames=2), 4)
    si.save_pool(tmp_path / "clips.npz", clips)
    assert torch.equal(si.load_pool(tmp_path / "clips.npz", SMALL), clips)
    with pytest.raises(
        ValueError, match=r"pool.npz: patches must be \(3, 32, 32\); got \(3, 12, 12"
    ):
        si.load_pool(tmp_path / "pool.npz", si.PatchSettings())
    with pytest.raises(FileNotFoundError, match=r"no pool .*none.npz"):
        si.load_pool(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    (tmp_path / "broken.npz").write_bytes(b"PK")
    for name in ("other.npz", "broken.npz"):
        with pytest.raises(ValueError, match=f"{name} is no pool of patches"):
            si.load_pool(tmp_path / name)
    np.savez(tmp_path / "flat.npz", patches=np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"flat.npz: patches must be uint8"):
        si.load_pool(tmp_path / "flat.npz")


def test_pools_of_nothing_are_refused_in_one_line(picture):
    with pytest.raises(ValueError, match="number of patches must be at least 1; got 0"):
        si.patch_pool(picture, 0)
    with pytest.raises(ValueError, match="batch must be at least 1; got 0"):
        next(si.patch_stream(picture, 0))
    with pytest.raises(ValueError, match=r"batch \(without steps\) must be between 1 and 5; got 6"):
        si.pool_batches(torch.zeros(5, 3, 8, 8, dtype=torch.uint8), 6)
    with pytest.raises(ValueError, match="a pool must be uint8"):
        si.pool_batches(torch.zeros(5, 3, 8, 8))
    with pytest.raises(ValueError, match="steps must be at least 1; got 0"):
        si.pool_batches(torch.zeros(5, 3, 8, 8, dtype=torch.uint8), 2, 0)


def test_the_official_script_leaves_fewer_files_than_asked_for():
    assert si.published_pool_size(4_000, 2) == 3_968
    assert si.published_pool_size(50_000, 20) == 49_920


def test_batches_of_a_pool_hold_each_patch_once(picture):
    pool = si.patch_pool(picture, 30, SMALL)
    batches = si.pool_batches(pool, 10)
    assert isinstance(batches, Batches)
    assert batches.steps == 3
    seen = []
    for epoch in range(2):
        torch.manual_seed(epoch)
        inputs = torch.cat([x for x, _ in batches])
        assert inputs.dtype == torch.float32
        assert inputs.max() <= 1
        seen.append((255 * inputs).round().to(torch.uint8))
    assert not torch.equal(*seen)
    for one in seen:
        assert sorted(one.flatten(1).float().sum(1).tolist()) == sorted(
            pool.flatten(1).float().sum(1).tolist()
        )
    assert all(label == 0 for _, labels in batches for label in labels)


@pytest.mark.parametrize("shape", [(5, 1, 1, 1), (5, 1, 1, 1, 1)])
def test_passes_over_a_small_pool_run_on_into_each_other(shape):
    pool = torch.arange(5, dtype=torch.uint8).view(shape)
    batches = si.pool_batches(pool, 8, steps=5)
    assert batches.steps == 5
    seen = [(255 * x).round() for x, _ in batches]
    assert [x.shape for x in seen] == [(8, *shape[1:])] * 5
    passes = torch.cat(seen).flatten().view(8, 5)
    assert (passes.sort(dim=1).values == torch.arange(5)).all()
    assert len(passes.unique(dim=0)) > 1


def test_fresh_batches_never_repeat_and_follow_the_global_seed(picture):
    batches = si.fresh_batches(si.PatchGenerator(picture, SMALL), 8, steps=3)
    torch.manual_seed(1)
    first = torch.cat([x for x, _ in batches])
    second = torch.cat([x for x, _ in batches])
    assert first.shape == (24, 3, 12, 12)
    assert len(torch.cat([first, second]).flatten(1).unique(dim=0)) == 48
    torch.manual_seed(1)
    batches.glance()  # takes no random numbers from the training
    assert torch.equal(torch.cat([x for x, _ in batches]), first)


@pytest.mark.parametrize("ahead", [1, 20_000, 2**30])
def test_batches_that_are_made_ahead_are_the_same(picture, monkeypatch, ahead):
    monkeypatch.setattr(streams, "AHEAD", ahead)
    made = si.PatchGenerator(picture, SMALL)
    torch.manual_seed(3)
    start = int(torch.randint(2**52, ()))
    torch.manual_seed(3)
    batches = [(255 * x).round() for x, _ in si.fresh_batches(made, 5, steps=9)]
    assert [len(x) for x in batches] == [5] * 9
    assert torch.equal(torch.cat(batches), made.take(range(start, start + 45)).float())


def test_batches_have_a_name_that_says_what_is_in_them(picture, monkeypatch):
    made = si.PatchGenerator(picture, SMALL)
    keys = {
        str(si.fresh_batches(made, 8).key),
        str(si.fresh_batches(made, 9).key),
        str(si.fresh_batches(si.PatchGenerator(picture, SMALL, seed=1), 8).key),
        str(si.fresh_batches(si.PatchGenerator(picture.flip(1), SMALL), 8).key),
        str(si.fresh_batches(si.PatchGenerator(picture, si.PatchSettings(size=11)), 8).key),
        str(si.pool_batches(made.take(range(8)), 8).key),
        str(si.pool_batches(made.take(range(9)), 8).key),
    }
    assert len(keys) == 7
    monkeypatch.setattr(streams, "source_digest", lambda *parts: "other code")
    assert str(si.fresh_batches(made, 8).key) not in keys
    assert si.fresh_batches(made, 8).key == si.fresh_batches(made, 8).key
    assert si.fresh_batches(made, 8).without_labels().key == si.fresh_batches(made, 8).key


def test_a_few_real_images_whole_and_as_patches():
    digits = load("digits")
    few = si.real_images(digits, 20, seed=1)
    assert len(few.x_train) == 20
    assert torch.bincount(few.y_train).tolist() == [2] * 10
    assert torch.equal(few.mean, digits.mean)
    assert torch.equal(few.x_test, digits.x_test)
    everything = si.real_images(digits, len(digits.x_train))
    assert torch.equal(everything.x_train, digits.x_train)
    made = si.patchified(few, si.PatchSettings(size=16), seed=1)
    patches = made.take(range(100))
    assert patches.shape == (100, 1, 16, 16)
    assert len(made.parameters(range(500)).source.unique()) == 20
    with pytest.raises(ValueError, match="count must be between 1 and"):
        si.real_images(digits, 10_000)
