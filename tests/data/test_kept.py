import warnings

import numpy as np
import pytest
import torch

from smallnets.data.kept import kept
from smallnets.storage import content_key


@pytest.fixture
def calls(tmp_path, monkeypatch):
    monkeypatch.setenv("SMALLNETS_CACHE", str(tmp_path))
    return []


def maker(calls):
    def make():
        calls.append(1)
        return torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2), torch.tensor([5])

    return make


def test_makes_once_and_reads_the_same_again(calls, tmp_path):
    first = kept("toy", maker(calls), seed=1)
    second = kept("toy", maker(calls), seed=1)
    assert len(calls) == 1
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(first, second, strict=True))
    assert [file.name[:4] for file in (tmp_path / "data").iterdir()] == ["toy-"]


def test_other_content_is_made_anew(calls):
    kept("toy", maker(calls), seed=1)
    kept("toy", maker(calls), seed=2)
    assert len(calls) == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign"])
def test_a_damaged_file_is_made_again_with_a_warning(calls, tmp_path, damage):
    expected, _ = kept("toy", maker(calls), seed=1)
    (file,) = (tmp_path / "data").iterdir()
    content = bytearray(file.read_bytes())
    place = content.index(bytes(range(12))) + 3
    content[place] ^= 255
    damaged = {"flip": content, "cut": content[:80], "empty": b"", "foreign": b"hello"}
    file.write_bytes(damaged[damage])
    with pytest.warns(UserWarning, match=r"cannot be read .* making it again") as said:
        again, _ = kept("toy", maker(calls), seed=1)
    assert len(said) == 1
    assert "\n" not in str(said[0].message)
    assert torch.equal(again, expected)
    assert len(calls) == 2
    kept("toy", maker(calls), seed=1)
    assert len(calls) == 2


def test_a_failing_maker_leaves_nothing_behind(calls, tmp_path):
    def fail():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        kept("toy", fail, seed=1)
    assert not (tmp_path / "data").exists()


def test_a_file_of_a_version_that_kept_no_digest_is_not_met(calls, tmp_path):
    images, labels = maker(calls)()
    old = tmp_path / "data" / f"toy-{content_key(seed=1)}.npz"
    old.parent.mkdir()
    np.savez(old, images=images.numpy(), labels=labels.numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept("toy", maker(calls), seed=1)
    assert len(calls) == 2
