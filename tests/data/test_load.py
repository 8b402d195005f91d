import subprocess
import sys

import pytest

from smallnets.data import load, names


def test_names():
    assert names() == (
        *("glyphs10", "glyphs62", "digits", "npz:FILE"),
        *("cifar10", "cifar100", "fashion_mnist", "mnist", "svhn"),
        *("flowers102", "pets", "food101", "caltech101"),
        *("imagenet", "tinyimagenet", "cub200"),
    )


@pytest.mark.parametrize("name", ["", "cifar", "Glyphs10", "mine.npz"])
def test_unknown_name_lists_the_known_ones(name):
    with pytest.raises(
        ValueError, match=r"dataset must be one of glyphs10, .*cub200; got"
    ) as error:
        load(name, size=32)
    assert repr(name) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["digits", "glyphs10"])
def test_count_is_checked(name, tmp_path, monkeypatch):
    monkeypatch.setenv("SMALLNETS_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="train must be at least 1; got 0"):
        load(name, train=0)


def test_importing_needs_none_of_the_packages_that_single_sets_need():
    heavy = "{'torchvision', 'sklearn', 'skimage', 'matplotlib', 'PIL'}"
    code = f"import sys, smallnets.data; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("flips", ["no", "false", 2])
def test_flips_are_a_truth_value(flips):
    with pytest.raises(ValueError, match=f"flips must be True, False or None; got {flips!r}"):
        load("digits", flips=flips)
