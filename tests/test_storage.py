import os
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest

from smallnets import storage
from smallnets.storage import (
    DIGEST,
    cache_directory,
    content_key,
    kept_arrays,
    one_line,
    source_digest,
    user_path,
)


def write_huge(file, names):
    """An archive whose arrays say that they have a million million numbers each."""
    header = BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
    )
    with ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(f"{name}.npy", header.getvalue())


def test_kept_arrays_come_back_as_they_were(tmp_path):
    made = {"images": np.arange(6.0).reshape(2, 3), "seconds": np.array(0.25)}
    first = kept_arrays(tmp_path / "one.npz", lambda: made)
    again = kept_arrays(tmp_path / "one.npz", lambda: pytest.fail("made twice"))
    assert set(first) == set(again) == set(made)
    for name, value in made.items():
        assert again[name].dtype == value.dtype
        assert np.array_equal(again[name], value)
        assert again[name].shape == value.shape


def test_nothing_is_kept_without_a_file():
    calls = []

    def make():
        calls.append(1)
        return {"count": np.array(len(calls))}

    assert [int(kept_arrays(None, make)["count"]) for _ in range(2)] == [1, 2]


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04"])
def test_a_file_that_cannot_be_read_is_made_again(tmp_path, content):
    file = tmp_path / "one.npz"
    file.write_bytes(content)
    with pytest.warns(UserWarning, match=r"one\.npz cannot be read .* making it again"):
        made = kept_arrays(file, lambda: {"a": np.ones(3)})
    assert made["a"].sum() == 3
    assert kept_arrays(file, lambda: pytest.fail("made twice"))["a"].sum() == 3


def test_a_key_changes_with_its_content():
    assert content_key(a=1, b=(2, 3)) == content_key(b=(2, 3), a=1)
    assert content_key(a=1) != content_key(a=2)


def flipped(raw, bit):
    data = bytearray(raw)
    data[bit // 8] ^= 1 << bit % 8
    return bytes(data)


@pytest.mark.filterwarnings("ignore")
def test_whatever_bit_of_a_kept_file_flips_its_arrays_are_those_that_were_made(tmp_path):
    """Also bits of names and headers, which a zip file has no checksum of."""
    file = tmp_path / "one.npz"
    made = {"a": np.arange(3, dtype=np.uint8), "b": np.array(0.25)}
    kept_arrays(file, lambda: made)
    raw = file.read_bytes()
    for bit in range(0, 8 * len(raw), 13):
        file.write_bytes(flipped(raw, bit))
        found = kept_arrays(file, lambda: made)
        assert set(found) == {"a", "b"}
        assert found["a"].tolist() == [0, 1, 2]
        assert found["b"].tolist() == 0.25


@pytest.mark.parametrize(
    "other",
    [
        {"b": np.arange(3, dtype=np.uint8)},
        {"a": np.arange(3, dtype=np.int8)},
        {"a": np.arange(3, dtype=np.uint8)[None]},
        {"a": np.arange(1, 4, dtype=np.uint8)},
        {"a": np.arange(3, dtype=np.uint8), "b": np.zeros(1)},
    ],
    ids=["name", "type", "shape", "bytes", "one more"],
)
def test_arrays_under_the_digest_of_others_are_made_again(tmp_path, other):
    file = tmp_path / "one.npz"
    made = {"a": np.arange(3, dtype=np.uint8)}
    kept_arrays(file, lambda: made)
    with np.load(file) as written:
        digest = written[DIGEST]
    np.savez(file, **other, **{DIGEST: digest})
    with pytest.warns(UserWarning, match="its digest differs"):
        assert set(kept_arrays(file, lambda: made)) == {"a"}


def test_a_header_that_claims_a_huge_array_is_a_damaged_file(tmp_path):
    file = tmp_path / "one.npz"
    write_huge(file, ["a", DIGEST])
    with pytest.warns(UserWarning, match=r"cannot be read .* making it again"):
        assert kept_arrays(file, lambda: {"a": np.ones(3)})["a"].sum() == 3


def test_where_nothing_can_be_written_the_arrays_are_returned(tmp_path):
    (tmp_path / "taken").write_text("a file, not a folder", encoding="utf-8")
    with pytest.warns(UserWarning, match=r"one\.npz cannot be kept \(.*\)") as warnings:
        made = kept_arrays(tmp_path / "taken" / "one.npz", lambda: {"a": np.ones(3)})
    assert made["a"].sum() == 3
    assert "\n" not in str(warnings[0].message)


def test_the_cache_folder_is_the_variable_s_or_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SMALLNETS_CACHE", "here")
    assert cache_directory() == tmp_path / "here"
    monkeypatch.setenv("SMALLNETS_CACHE", "~/there")
    assert cache_directory() == Path.home() / "there"
    monkeypatch.delenv("SMALLNETS_CACHE")
    assert cache_directory() == Path.home() / ".cache" / "smallnets"


def test_without_a_home_folder_one_line_says_what_to_set(monkeypatch):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("SMALLNETS_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", staticmethod(nowhere))
    with pytest.raises(ValueError, match="no home folder: set SMALLNETS_CACHE to a folder"):
        cache_directory()
    with pytest.raises(ValueError, match=r"the home folder of ~nobody-here/x\.npz is not known"):
        user_path("~nobody-here/x.npz")


def test_line_ends_of_a_checkout_do_not_change_the_digest(tmp_path, monkeypatch):
    digests = []
    for end in (b"\n", b"\r\n"):
        (tmp_path / "part.py").write_bytes(b"a = 1" + end + b"b = 2" + end)
        monkeypatch.setattr(storage, "SOURCE", tmp_path)
        digests.append(source_digest("part.py"))
    assert digests[0] == digests[1]
    (tmp_path / "part.py").write_bytes(b"a = 1\nb = 3\n")
    assert source_digest("part.py") != digests[0]


def test_a_file_that_was_written_after_the_import_has_a_digest_that_no_other_process_has(
    tmp_path, monkeypatch
):
    """The process may run the old text or, reloaded, the new one; a fresh process runs the new."""
    file = tmp_path / "part.py"
    file.write_text("a = 1")
    monkeypatch.setattr(storage, "SOURCE", tmp_path)
    monkeypatch.setattr(storage, "WRITTEN", {file: file.stat().st_mtime_ns})
    old = source_digest("part.py")
    file.write_text("a = 2")
    os.utime(file, ns=(0, 5))
    edited = source_digest("part.py")
    monkeypatch.setattr(storage, "WRITTEN", {file: 5})
    fresh = source_digest("part.py")
    assert len({old, edited, fresh}) == 3


def test_one_line_is_one_line():
    assert one_line(ValueError("a\n  b")) == "a b"
    assert one_line(MemoryError()) == "MemoryError"
