import numpy as np
import pytest

from smallnets.storage import cached_arrays, content_key


def test_kept_arrays_come_back_as_they_were(tmp_path):
    made = {"images": np.arange(6.0).reshape(2, 3), "seconds": np.array(0.25)}
    first = cached_arrays(tmp_path / "one.npz", lambda: made)
    again = cached_arrays(tmp_path / "one.npz", lambda: pytest.fail("made twice"))
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

    assert [int(cached_arrays(None, make)["count"]) for _ in range(2)] == [1, 2]


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04"])
def test_a_file_that_cannot_be_read_is_made_again(tmp_path, content):
    file = tmp_path / "one.npz"
    file.write_bytes(content)
    with pytest.warns(UserWarning, match=r"one\.npz cannot be read .* making it again"):
        made = cached_arrays(file, lambda: {"a": np.ones(3)})
    assert made["a"].sum() == 3
    assert cached_arrays(file, lambda: pytest.fail("made twice"))["a"].sum() == 3


def test_a_key_changes_with_its_content():
    assert content_key(a=1, b=(2, 3)) == content_key(b=(2, 3), a=1)
    assert content_key(a=1) != content_key(a=2)
