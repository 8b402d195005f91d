"""Settings and recipes: what a reader asks for arrives, and what cannot be is refused."""

from dataclasses import replace

import pytest

from smallnets.studies.condense import (
    METHODS,
    PRESETS,
    Options,
    Recipe,
    ablation_recipes,
    band_recipes,
    core_recipes,
    large_recipes,
    looks_at,
    needed_recipes,
    prepare,
)
from smallnets.synthesize.condense import DIGITS, FULL


def test_presets_hold_the_papers_settings():
    paper = PRESETS["paper"]
    assert (paper.network, paper.resolution, paper.networks) == ("ConvNet", 32, 20)
    matching, gradients, judging = paper.matching, paper.gradients, paper.judging
    assert (matching.iterations, matching.lr, matching.momentum) == (20_000, 1.0, 0.5)
    assert (matching.batch_real, matching.init, matching.batch_syn) == (256, "real", None)
    assert (gradients.iterations, gradients.lr, gradients.lr_network) == (1000, 0.1, 0.01)
    assert (gradients.outer, gradients.inner) == (None, None)
    assert (judging.epochs, judging.lr, judging.batch_size) == (1000, 0.01, 256)
    assert [paper.rate(ipc) for ipc in (1, 10, 50, 100, 1250)] == [1, 1, 1, 10, 10]
    assert (len(paper.space), paper.top) == (720, 0.05)
    assert (paper.memory, paper.orders, paper.held_out) == (20, 5, 5000)


def test_evidence_has_every_question_of_the_chapter():
    evidence, small = PRESETS["evidence"], PRESETS["small"]
    assert (evidence.seeds, evidence.thorough, evidence.further) == (8, True, True)
    assert (small.thorough, small.further) == (False, False)
    assert replace(small.judging, epochs=evidence.judging.epochs) == evidence.judging
    assert {(one.method, one.ipc) for one in core_recipes(evidence).values()} == {
        (method, ipc) for method in METHODS for ipc in (1, 10, 50)
    }
    assert set(core_recipes(small)) < set(core_recipes(evidence))
    assert 12 <= len(evidence.space) <= 24
    assert len(set(evidence.space)) == len(evidence.space)
    assert max(evidence.large) > evidence.largest


@pytest.mark.parametrize("scale", PRESETS)
def test_every_set_has_a_name_of_its_own_and_changes_what_it_says(scale):
    settings = PRESETS[scale]
    parts = [make(settings) for make in (core_recipes, needed_recipes, band_recipes,
                                         ablation_recipes, large_recipes)]  # fmt: skip
    every = {name: recipe for part in parts for name, recipe in part.items()}
    for part in parts:  # a name that stands in two lists is of one set
        assert all(every[name] == recipe for name, recipe in part.items())
        assert len(set(part.values())) == len(part)
    for name, recipe in every.items():
        assert name.startswith(f"{recipe.method}, {recipe.ipc}") or "band" in name
    changed = ablation_recipes(replace(settings, sizes=(10, 50), matched=(10,), ipc=10))
    plain = Recipe(ipc=50)
    assert changed["DM, 50, corners aligned"] == replace(plain, align_corners=True)
    assert changed["DM, 50, rate / 10"].rate == 0.1
    assert changed["DM, 50, rate x 10"].rate == 10
    assert changed["DM, 50, twice the updates"].length == 2
    assert changed["DM, 50, batch norm"].network == settings.batch_norm
    assert changed["DM, 50, few at a time"].few == 10


def test_preparing_puts_what_was_asked_for_in_place():
    data, settings = prepare(
        "digits", "small", Options(seeds=3, iterations=30, epochs=10, train=1000, device="cpu")
    )
    assert settings.train == len(data.y_train) == 1000
    assert settings.seeds == 3
    usual = PRESETS["small"]
    assert settings.matching.iterations == 30
    share = 30 / usual.matching.iterations
    assert settings.gradients.iterations == max(1, round(usual.gradients.iterations * share))
    assert (settings.judging.epochs, settings.judging.device) == (10, "cpu")
    assert settings.whole.epochs == max(1, round(usual.whole.epochs * 10 / usual.judging.epochs))
    for one in (settings.matching, settings.gradients, settings.judging, settings.whole,
                settings.searching, settings.long):  # fmt: skip
        assert one.strategy == DIGITS
        assert one.device == "cpu"
    _, mirrored = prepare("digits", "smoke", Options(flips=True, precision="32-true"))
    assert mirrored.judging.strategy == mirrored.matching.strategy == FULL
    assert mirrored.matching.precision == "32-true"
    assert prepare("digits", "smoke", Options(network="ConvNetW8"))[1].network == "ConvNetW8"


def test_sizes_fit_the_data():
    _, settings = prepare("digits", "evidence")
    assert settings.large == (5, 20)  # the smallest class has fewer than 200 images
    assert settings.steps == 5
    with pytest.raises(ValueError, match="smallest class must be at least 100; got"):
        prepare("digits", "evidence", Options(train=700))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "iterations must be at least 1; got 0"),
        ({"epochs": 0}, "epochs must be at least 1; got 0"),
        ({"seeds": 0}, "seeds must be at least 1; got 0"),
        ({"resolution": 12}, "resolution must be a multiple of 8; got 12"),
        ({"train": 50}, "number of training images must be at least 100; got 50"),
    ],
)
def test_what_cannot_be_run_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        prepare("digits", "smoke", Options(**options))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "magic"}, "method must be one of random, .*, DM; got 'magic'"),
        ({"ipc": 0}, "ipc must be at least 1; got 0"),
        ({"init": "zero"}, "init must be one of real, noise; got 'zero'"),
        ({"embedding": "best"}, "embedding must be one of fresh, one, ten, trained; got 'best'"),
        ({"rate": 0}, "rate must be greater than 0; got 0"),
        ({"few": 11}, "few must be between 1 and 10; got 11"),
    ],
)
def test_sets_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**changes)


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match=r"ipc and matched must be among the sizes \(1, 10, 50\)"):
        replace(PRESETS["evidence"], ipc=20)
    with pytest.raises(ValueError, match="bands must be at least 1; got 0"):
        replace(PRESETS["evidence"], bands=0)


def test_sets_are_looked_at_where_their_learning_is_halved():
    assert looks_at(300, 4) == [38, 75, 150, 300]
    assert looks_at(2, 5) == [1, 2]
    assert looks_at(1, 3) == [1]


def test_the_rate_grows_with_the_images_of_a_class_where_it_should():
    settings = replace(PRESETS["evidence"], scaled=True)
    assert settings.rate(10) == settings.matching.lr
    assert settings.rate(50) == 5 * settings.matching.lr
