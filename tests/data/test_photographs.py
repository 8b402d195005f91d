import pytest
import torch

from smallnets.data import photograph, photograph_names
from smallnets.data.glyphs import BACKGROUNDS


def test_every_photograph_is_there_and_is_a_picture():
    for name in photograph_names():
        image = photograph(name)
        assert image.dtype == torch.uint8
        assert image.shape[0] == 3
        assert min(image.shape[1:]) >= 190
        assert image.float().std() > 5


def test_backgrounds_are_photographs():
    assert {name for part in BACKGROUNDS.values() for name in part} <= set(photograph_names())


def test_a_colour_photograph_has_its_published_size():
    assert photograph("astronaut").shape == (3, 512, 512)
    assert photograph("china").shape == (3, 427, 640)


def test_unknown_photograph():
    with pytest.raises(ValueError, match=r"photograph must be one of astronaut, .*; got 'lena'"):
        photograph("lena")
