"""What all studies share: a data set that is opened for them, and grids of conditions and seeds."""

from dataclasses import dataclass, replace

import pytest

from smallnets.data import Augmentation
from smallnets.studies.study import (
    Options,
    SizedOptions,
    SizedSettings,
    StudySettings,
    best_setting,
    by_seed,
    every,
    open_study,
    run_grid,
    with_seeds,
)
from smallnets.training import TrainSettings


@dataclass(frozen=True, kw_only=True)
class Plain(StudySettings):
    training: TrainSettings
    exact: TrainSettings
    side_seeds: int = 3
    held_out: int = 100


@dataclass(frozen=True, kw_only=True)
class Sized(SizedSettings):
    training: TrainSettings


TRAINING = TrainSettings(epochs=2, batch_size=32, lr=0.1, augmentation=Augmentation(crop=6))
EXACT = replace(TRAINING, precision="32-true")
PLAIN = {"small": Plain(train=200, test=50, seeds=4, training=TRAINING, exact=EXACT)}
SIZED = {
    "small": Sized(
        train=64, test=50, seeds=2, network="convnet-4", resolution=30, training=TRAINING
    )
}


def test_a_preset_is_made_to_fit_the_data():
    dataset, settings = open_study("digits", "small", PLAIN, Options(device="cpu"))
    assert (len(dataset.y_train), len(dataset.y_test)) == (200, 50)
    assert (settings.train, settings.test, settings.seeds) == (200, 50, 4)
    assert settings.held_out == 40, "a fifth of the training images at most"
    assert settings.training.augmentation == Augmentation(crop=4, flip=False)
    assert settings.training.device == settings.exact.device == "cpu"
    assert (settings.training.precision, settings.exact.precision) == ("auto", "32-true")


def test_options_take_the_place_of_the_preset():
    asked = Options(seeds=2, train=100, test=20, flips=True, precision="bf16-mixed")
    dataset, settings = open_study("digits", "small", PLAIN, asked)
    assert (settings.train, settings.test, settings.seeds, settings.side_seeds) == (100, 20, 2, 2)
    assert dataset.flips
    assert settings.training.augmentation.flip
    assert settings.training.precision == settings.exact.precision == "bf16-mixed"


def test_sized_studies_have_a_resolution():
    dataset, settings = open_study("glyphs10", "small", SIZED, SizedOptions(), multiple=4)
    assert dataset.size == (28, 28)
    assert (settings.network, settings.resolution) == ("convnet-4", 28)
    asked = SizedOptions(resolution=12, network="resnet-8-4")
    dataset, settings = open_study("glyphs10", "small", SIZED, asked, multiple=4)
    assert dataset.size == (12, 12)
    assert (settings.network, settings.resolution) == ("resnet-8-4", 12)
    assert settings.training.augmentation.crop == 3


@pytest.mark.parametrize(
    ("scale", "options", "message"),
    [
        ("large", SizedOptions(), "scale must be one of small; got 'large'"),
        ("small", SizedOptions(seeds=0), "seeds must be at least 1; got 0"),
        ("small", SizedOptions(resolution=10), "resolution must be a multiple of 4; got 10"),
        ("small", SizedOptions(resolution=64), "resolution must be between 8 and 32; got 64"),
        ("small", SizedOptions(flips="yes"), "flips must be True, False or None; got 'yes'"),
    ],
)
def test_what_cannot_be_is_refused(scale, options, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011, the whole message is compared
        open_study("glyphs10", scale, SIZED, options, multiple=4)
    assert str(error.value) == message


def test_repetitions_are_checked_and_capped():
    assert with_seeds(PLAIN["small"], None) is PLAIN["small"]
    more = with_seeds(PLAIN["small"], 9)
    assert (more.seeds, more.side_seeds) == (9, 3)
    with pytest.raises(ValueError, match="side_seeds must be at least 1; got 0"):
        replace(PLAIN["small"], side_seeds=0)


def test_a_grid_has_every_condition_with_its_seeds():
    cells = every({"low": {"base": 0.0}, "high": {"base": 10.0}}, {"low": 1, "high": 3})
    assert list(cells) == [("low", 0), ("high", 0), ("high", 1), ("high", 2)]

    def experiment(seed, base, slope):
        return {"value": base + slope * seed}

    grid = run_grid(experiment, cells, description="grid", slope=2.0)
    assert grid == {"low": [{"value": 0.0}], "high": [{"value": v} for v in (10.0, 12.0, 14.0)]}
    turned = by_seed(grid)
    assert turned[0] == {"low": {"value": 0.0}, "high": {"value": 10.0}}
    assert turned[2] == {"high": {"value": 14.0}}


def test_the_best_setting_has_the_best_mean():
    seeds = [
        {"lr 0.1": {"accuracy": 0.5}, "lr 1": {"accuracy": 0.6}, "alone": {"accuracy": 0.9}},
        {"lr 0.1": {"accuracy": 0.9}, "lr 1": {"accuracy": 0.6}, "alone": {"accuracy": 0.9}},
    ]
    assert best_setting(seeds, "lr") == 0.1
    with pytest.raises(ValueError, match="kind must be one of lr; got 'wd'"):
        best_setting(seeds, "wd")
