import pytest
import torch
from sklearn.datasets import load_digits

from smallnets.data import load
from smallnets.data.glyphs import CHARACTERS, make_glyphs


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SMALLNETS_CACHE", str(tmp_path))
    return tmp_path / "data"


def test_glyphs_are_as_many_as_asked_for_and_the_same_again(cache):
    data = load("glyphs62", train=70, test=30)
    assert (len(data.y_train), len(data.y_test), data.num_classes) == (70, 30, 62)
    assert "".join(data.class_names) == CHARACTERS
    assert not data.flips
    assert torch.equal(data.x_test, make_glyphs(CHARACTERS, "test", 30, 0, 0.5)[0])
    assert load("glyphs62", train=70, test=30).key == data.key
    assert len(list(cache.iterdir())) == 2


def test_seed_draws_other_glyphs_and_parts_are_kept_apart():
    data = load("glyphs10", train=20, test=20)
    assert load("glyphs10", train=20, test=20, seed=1).key != data.key
    assert not torch.equal(data.x_train, data.x_test)
    assert torch.equal(load("glyphs10", train=20, test=10).x_train, data.x_train)


def test_usual_number_of_glyphs():
    data = load("glyphs10")
    assert (len(data.y_train), len(data.y_test)) == (10_000, 2_000)


@pytest.mark.parametrize("arguments", [{"train": 0}, {"test": -1}, {"seed": -1}, {"train": 1.5}])
def test_refuses_what_is_no_number_of_glyphs(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"{name} must be"):
        load("glyphs10", **arguments)


def test_digits_are_all_there_once_and_split_by_class():
    data = load("digits")
    assert data.x_train.shape == (1437, 1, 16, 16)
    assert data.x_test.shape == (360, 1, 16, 16)
    everything = torch.cat([data.y_train, data.y_test])
    published = torch.from_numpy(load_digits().target).long()
    assert torch.equal(torch.bincount(everything), torch.bincount(published))
    fifth = torch.bincount(published) * (360 / 1797)
    assert (torch.bincount(data.y_test) - fifth).abs().max() <= 1
    assert load("digits", seed=5).key == data.key


def test_digits_prefix():
    data = load("digits", train=100, test=50)
    assert torch.equal(data.x_train, load("digits").x_train[:100])
    assert len(data.y_train.unique()) == len(data.y_test.unique()) == 10
