"""The measurements: each is what it says, the same twice, and chosen without test images."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from smallnets.studies import condense as study
from smallnets.studies.condense import experiments
from smallnets.studies.seeds import member_seed
from smallnets.synthesize import condense as method


def as_bytes(images):
    return {image.numpy().tobytes() for image in images}


def leaves(found):
    for value in found.values():
        if isinstance(value, dict):
            yield from leaves(value)
        else:
            yield np.asarray(value, dtype=float)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def measured(digits, quick, kept):
    return study.measure(digits, quick, 0, kept)


@pytest.fixture(scope="module")
def others(digits):
    """The same data set with a test part of noise and of a single label."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, digits.x_test.shape, generator=generator, dtype=torch.uint8)
    return replace(digits, x_test=noise, y_test=torch.zeros_like(digits.y_test))


def test_a_repetition_measures_every_set(digits, quick, measured):
    main = set(study.core_recipes(quick))
    assert main == {f"{one}, {ipc}" for one in study.METHODS for ipc in (1, 2)}
    assert set(measured["accuracy"]) == main | {"whole"} | set(study.needed_recipes(quick))
    for name in ("plain accuracy", "label robustness", "augmentation robustness"):
        assert set(measured[name]) == main
    assert set(measured["loss"]) == {"DM, 1", "DM, 2"}
    assert set(measured["bands"]) == set(measured["band accuracy"])
    assert set(measured["bands"]) == {"band 1 of 2", "band 2 of 2", "all bands"}
    assert measured["band accuracy"]["band 1 of 2"] <= measured["band accuracy"]["band 2 of 2"]
    assert set(measured["transfer"]) == {"random", quick.network, *quick.learners}
    for row in measured["transfer"].values():
        assert set(row) == {quick.network, *quick.others}
    for name in ("accuracies", "correlation", "top", "chosen"):
        assert set(measured["search"][name]) == {"DM", "random", "early stopping", "whole"}
    every = np.concatenate([one.ravel() for one in leaves(measured)])
    assert np.isfinite(every).all()
    assert all(0 <= value <= 1 for value in measured["accuracy"].values())


def test_one_number_of_a_set_is_the_same_wherever_it_stands(quick, measured):
    accuracy, main = measured["accuracy"], quick.network
    assert measured["transfer"]["random"][main] == accuracy["random, 2"]
    assert measured["transfer"][main][main] == accuracy["DM, 2"]
    for name in study.LEARNED:
        assert measured["race"][name][-1] == accuracy[f"{name}, 2"]
        assert len(measured["race"][name]) == len(measured["cost"][name])
        assert measured["cost"][name] == sorted(measured["cost"][name])
    assert measured["equal cost"]["DM"] == accuracy["DM, 2"]


def test_the_race_is_compared_at_equal_cost(digits, quick, monkeypatch):
    worth = {"random": 0.1, "DC": 0.2, "DSA": 0.5, "DM": 0.4}
    monkeypatch.setattr(experiments, "judge", lambda made, *_, **__: worth[made])
    monkeypatch.setattr(experiments, "make_set", lambda *given, **_: given[3].method)

    class Stage:
        def __init__(self, name):
            self.set = name

    monkeypatch.setattr(experiments, "stages", lambda *given: [Stage(given[3].method)])
    monkeypatch.setattr(experiments, "looks_at", lambda iterations, looks: [iterations])
    monkeypatch.setattr(
        experiments, "passes_of_update", lambda *given: 10.0 if given[2].method == "DM" else 80.0
    )
    found = experiments.measure_race(digits, quick, 0)
    assert found["cost"] == {"DC": [80.0], "DSA": [80.0], "DM": [40.0]}
    assert found["equal cost"] == {"DM": 0.4, "DSA": pytest.approx(0.3)}


def test_a_run_that_was_stopped_ends_with_the_same_bits(
    digits, quick, measured, tmp_path, monkeypatch
):
    modest, real, calls = replace(quick, thorough=False), experiments.judge, []

    def stopping(*given, **named):
        calls.append(given)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*given, **named)

    monkeypatch.setattr(experiments, "judge", stopping)
    with pytest.raises(KeyboardInterrupt):
        study.measure(digits, modest, 0, tmp_path)
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert len(kept) > 4
    again = study.measure(digits, modest, 0, tmp_path)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert set(measured) - set(again) == {"bands", "band accuracy", "transfer", "search"}
    for name in again:
        expected = measured[name]
        if name == "accuracy":
            expected = {key: expected[key] for key in again[name]}
            assert set(measured[name]) - set(again[name]) == set(study.needed_recipes(quick))
        assert again[name] == expected


def test_what_decides_no_claim_has_the_same_measures(digits, quick, kept):
    found = study.measure_further(digits, quick, 0, kept)
    names = {*study.large_recipes(quick), *study.ablation_recipes(quick)}
    names |= {"random, 2, long schedule", "DM, 2, long schedule"}
    assert set(found["accuracy"]) == names
    assert set(found["memory"]) == {"random", "herding", "DM"}
    for steps in found["memory"].values():
        assert len(steps) == quick.steps == 5
        assert all(0 <= value <= 1 for value in steps)
    before = sorted(kept.iterdir())
    assert study.measure_further(digits, quick, 0, kept) == found
    assert sorted(kept.iterdir()) == before


def test_sets_are_judged_by_the_protocol_alone(digits, quick, tmp_path):
    images = study.make_set(digits, quick, 0, study.Recipe("random", 2))
    two = replace(quick, networks=2)
    found = study.judge(images, digits, two, 3, cache_dir=tmp_path)
    by_hand = [
        method.accuracy(
            method.train_on(
                images, lambda: study.build(digits, two.network), two.judging, member_seed(3, n)
            ).network,
            digits,
        )
        for n in range(2)
    ]
    assert found == pytest.approx(sum(by_hand) / 2)
    plain, wider = replace(quick.judging, strategy=None), "ConvNetW8"
    different = [{}, {"how": plain}, {"network": wider}]
    for count, changes in enumerate(different, start=1):
        study.judge(images, digits, two, 3, cache_dir=tmp_path, **changes)
        assert len(list(tmp_path.iterdir())) == count
    study.judge(images, digits, two, 4, cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
    assert study.judge(images, digits, two, 3, cache_dir=tmp_path) == found


def test_networks_that_diverge_are_worth_a_guess(digits, quick):
    images = study.make_set(digits, quick, 0, study.Recipe("random", 2))
    wild = replace(quick.judging, lr=1e30)
    assert study.judge(images, digits, quick, 0, how=wild, network="ConvNetW4NN") == 0.1
    search = replace(quick, searching=wild, space=(method.ConvNetSpec(1, 4, norm="none"),) * 2)
    with pytest.warns(UserWarning, match="constant"):
        found = study.rank_networks(digits, search, 0)
    assert found["accuracies"]["DM"] == [0.1, 0.1]
    assert found["correlation"]["DM"] == 0
    with pytest.raises(ValueError, match="normalised alike"):
        study.judge(replace(images, mean=images.mean + 1), digits, quick, 0)


def test_images_are_tested_on_the_test_part(digits, quick, others):
    images = study.make_set(digits, quick, 0, study.Recipe("random", 2))
    mine, theirs = (study.judge(images, one, quick, 0) for one in (digits, others))
    said = replace(digits, y_test=(digits.y_test + 1) % 10)
    assert mine != study.judge(images, said, quick, 0) or mine != theirs


def test_random_images_are_no_better_than_random_images():
    recipes = {"random, 1": study.Recipe("random", 1), "DM, 1": study.Recipe("DM", 1)}
    accuracy, plain = {"random, 1": 0.4, "DM, 1": 0.6}, {"random, 1": 0.3, "DM, 1": 0.2}
    found = study.robustness(recipes, accuracy, plain, 0.9)
    neutral = method.normalised_score(0.0)
    assert found["augmentation robustness"]["random, 1"] == pytest.approx(neutral)
    assert found["augmentation robustness"]["DM, 1"] == pytest.approx(
        method.normalised_score(0.5 * 0.2 - 0.5 * 0.1)
    )
    assert found["label robustness"]["DM, 1"] == pytest.approx(
        method.normalised_score(0.5 * 0.2 - 0.5 * 0.3)
    )


def test_networks_are_ranked_by_held_out_training_images(digits, quick, others, monkeypatch):
    seen, seeds, real = [], {}, method.rank_architectures

    def rank(space, images, judged, how, **named):
        seen.append((images, judged, how))
        seeds.setdefault(how == quick.searching_whole, set()).add(named["seed"])
        return real(space, images, judged, how, **named)

    monkeypatch.setattr(method, "rank_architectures", rank)
    found = study.rank_networks(digits, quick, 0)
    assert found == study.rank_networks(others, quick, 0), "test images had a say"
    assert seeds[True].isdisjoint(seeds[False]), "early stopping is a part of the whole training"
    known = as_bytes(digits.x_train)
    for images, judged, _ in seen:
        aside = as_bytes(judged.x_test)
        assert aside <= known
        assert len(judged.y_test) == quick.held_out
        if images is judged:
            assert as_bytes(images.x_train) == known - aside
        else:
            assert len(images) == 10 * quick.searched
            assert torch.equal(images.mean, judged.mean)
    dm, random, early, whole = (
        how for _, _, how in seen[: 4 * len(quick.space) : len(quick.space)]
    )
    assert dm == random == quick.searching
    assert early == replace(quick.searching_whole, iterations=quick.searching.steps(20))
    assert whole == quick.searching_whole
    assert all(len(row) == len(quick.space) for row in found["accuracies"].values())
    assert found["correlation"]["whole"] in (0.0, pytest.approx(1.0))
    assert found["chosen"]["whole"] == max(found["accuracies"]["whole"])


def test_a_correlation_with_a_constant_ranks_nothing():
    assert experiments.defined(float("nan")) == 0
    assert experiments.defined(-0.5) == -0.5


def test_a_memory_is_filled_from_the_images_of_its_step(digits, quick, monkeypatch):
    shown = []

    def select(images, name, ipc, **named):
        shown.append((images, named["only"], named["features"]))
        return real(images, name, ipc, **named)

    real = method.select
    monkeypatch.setattr(method, "select", select)
    study.remember(digits, quick, 0, "herding")
    assert len(shown) == quick.steps
    for images, classes, features in shown:
        assert set(images.labels.tolist()) == set(classes)
        assert len(features) == len(images)
    order = [label for _, classes, _ in shown for label in classes]
    assert order == method.class_orders(10, [member_seed(0, 0)])[0].tolist()
    first = study.remember(digits, quick, 0, "random")
    shown.clear()
    study.remember(digits, quick, 1, "random")
    order = [label for _, classes, _ in shown for label in classes]
    assert order == method.class_orders(10, [member_seed(1, 0)])[0].tolist()
    assert len(first) == 5


def test_rates_are_searched_on_held_out_training_images(digits, quick, others, kept):
    settings = replace(quick, factors=(0.5, 1.0), sizes=(2,), matched=(2,))
    found = study.search_rates(digits, settings, 0, kept)
    usual = {
        "DM": settings.rate(2),
        "DC": settings.gradients.lr * settings.from_noise,
        "DSA": settings.gradients.lr,
    }
    assert set(found) == {
        f"{name}, 2, lr {lr * factor:g}" for name, lr in usual.items() for factor in (0.5, 1)
    }
    before = sorted(kept.iterdir())
    assert found == study.search_rates(others, settings, 0, kept)
    assert sorted(kept.iterdir()) == before, "test images had a say"


def test_curves_are_thinned_to_means():
    assert experiments.thin([1.0, 2.0, 3.0]) == [1.0, 2.0, 3.0]
    long = experiments.thin(range(400))
    assert len(long) == experiments.POINTS
    assert long[0] == pytest.approx(4.5)
    assert np.mean(long) == pytest.approx(199.5)
