"""The chapter's experiments in small, and what a reader may ask of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from smallnets.data import load
from smallnets.measure import Timing
from smallnets.search.lana.pool import Pool, build_pool
from smallnets.studies.lana.experiments import (
    SHARES,
    after_tuning,
    before_tuning,
    budgets,
    check_latency,
    choose_table,
    learning_curve,
    search,
    share,
    train_and_evaluate,
    train_family,
    train_member,
    train_pool,
    train_pools,
    tune_all,
    tuning_plans,
)
from smallnets.studies.lana.networks import build_arguments, replaceable
from smallnets.studies.lana.plan import PRESETS, TUNED, Options, prepare, stored_table
from smallnets.studies.networks import build_network
from smallnets.studies.seeds import teacher_seed
from smallnets.training import fit


@pytest.fixture(scope="module")
def prepared():
    """Half-size digits and a teacher of three blocks."""
    dataset, settings = prepare(
        "digits", "smoke", Options(train=96, seeds=1, device="cpu", precision="32-true")
    )
    pool = ("skip", "dwsep3")
    return dataset.take(test=60), replace(settings, pool=pool, sibling="resnet-8", sampled=3)


@pytest.fixture(scope="module")
def table(prepared):
    """Latencies in the order of their cost, the same in every run."""
    dataset, settings = prepared
    measured, _ = check_latency(dataset, replace(settings, rounds=1), {})
    entries = {
        key: Timing(*[1.0 if key.startswith(("teacher", "fixed")) else 0.3] * 3)
        for key in measured.entries
    }
    return replace(measured, entries=entries)


@pytest.fixture(scope="module")
def found(prepared, table, tmp_path_factory):
    cache_dir = tmp_path_factory.mktemp("kept")
    return search(*prepared, 0, table, cache_dir), cache_dir


def test_budgets_are_shares_and_the_siblings_without_the_fixed_part(prepared, table):
    limits, fixed, total = budgets(*prepared, table)
    assert (fixed, total) == (1.0, 7.0)  # six blocks and the rest
    assert limits == {
        "three quarters": 4.25,
        "half": 2.5,
        "third": pytest.approx(4 / 3),
        "as the sibling": 3.0,
    }
    assert set(SHARES) < set(limits)


def test_every_method_keeps_the_budget(prepared, table, found):
    result, _ = found
    limits, _, _ = budgets(*prepared, table)
    for name, methods in result["found"].items():
        for method, one in methods.items():
            if method not in ("diverse", "by MACs", "skip only", "small pool"):
                assert one["latency"] <= limits[name] * (1 + 1e-9), (name, method)
        first, best = methods["first"], methods["best of K"]
        assert best["loss"] == min(methods["diverse"]["loss"]) <= first["loss"]
        if name not in ("half", "third"):
            assert set(methods) == {"best of K", "first", "diverse"}
            continue
        assert first["predicted"] <= methods["greedy"]["predicted"] + 1e-9
        assert set(np.unique(methods["skip only"]["choices"])) <= {0, 1}


def test_judgements_are_also_on_test_images_before_and_after_recalibration(found):
    one = found[0]["found"]["half"]["best of K"]
    for start, end in (("", ""), ("test ", ""), ("test ", " as stitched")):
        assert 0 <= one[f"{start}accuracy{end}"] <= 1
        assert one[f"{start}loss{end}"] > 0
    assert one["test loss as stitched"] != one["test loss"] != one["loss"]


def test_additivity_is_exact_for_one_replacement(found):
    added = found[0]["added"]
    single = [i for i, replaced in enumerate(added["replaced"]) if replaced == 1]
    assert single
    for i in single:
        assert added["by loss"][i] == pytest.approx(added["loss"][i], abs=1e-4)
        assert added["by accuracy"][i] == pytest.approx(added["accuracy lost"][i], abs=1e-9)
    assert all(value >= 0 for kind in ("by kl", "by mse") for value in added[kind])


def test_all_searches_get_as_many_evaluations(found):
    race = found[0]["race"]
    assert len({len(values) for values in race.values()}) == 1
    scorings = sum(len(names) - 1 for names in found[0]["names"])
    assert np.isnan(race["programme"][:scorings]).all()
    assert np.isfinite(race["programme"][scorings:]).all()


def test_the_same_search_twice(prepared, table, found):
    again = search(*prepared, 0, table, found[1])
    assert again["found"] == found[0]["found"]
    assert again["added"] == found[0]["added"]


def test_tuning_goes_on_from_the_candidates_and_is_kept(prepared, found):
    dataset, settings = prepared
    result, cache_dir = found
    choices = result["found"]["half"]["best of K"]["choices"]
    plan = {"tuned": (choices, None), "without": (choices, 0.0)}
    first = tune_all([plan], dataset, settings, cache_dir)
    files = sorted(cache_dir.iterdir())
    assert tune_all([plan], dataset, settings, cache_dir) == first
    assert sorted(cache_dir.iterdir()) == files
    assert first[0]["tuned"]["macs"] == first[0]["without"]["macs"]
    assert first[0]["tuned"]["loss"] != first[0]["without"]["loss"]


def test_plans_name_what_was_found(prepared, found):
    (plan,) = tuning_plans([found[0]], prepared[1])
    assert tuple(plan) == TUNED
    assert plan["half, labels only"] == (plan["half"][0], 0.0)
    assert plan["teacher, longer"][0] == (0,) * 6
    tight = found[0]["found"]["third"]
    assert plan["third, small pool"][0] == tight["small pool"]["choices"]
    few = replace(prepared[1], tuned=("third", "half"))
    assert tuning_plans([found[0]], few) == [{name: plan[name] for name in few.tuned}]
    with pytest.raises(
        ValueError, match=r"tuned must be one of teacher, longer, .*; got 'quarter'"
    ):
        replace(few, tuned=("quarter",))


def test_shares_are_of_the_whole_teacher(found):
    result, _ = found
    assert share(result, (0,) * 6) == pytest.approx(1)
    tight = result["found"]["third"]["first"]
    expected = (result["fixed"] + tight["latency"]) / result["total"]
    assert share(result, tight["choices"]) == pytest.approx(expected)
    assert expected <= 1 / 3 + 1e-9


def test_measurements_have_a_value_a_seed(prepared, table, found):
    dataset, _ = prepared
    settings = replace(prepared[1], seeds=1, tuned=("half", "third, skip only"))
    results, cache_dir = [found[0]], found[1]
    tuned = tune_all(tuning_plans(results, settings), dataset, settings, cache_dir)
    family = train_family(dataset, settings, cache_dir)
    limits = budgets(dataset, settings, table)[0]
    measured = before_tuning(results, limits) | after_tuning(
        family, results, tuned, settings, limits
    )
    names = {"teacher", "sibling, from scratch", "half", "third, skip only"}
    assert set(measured["accuracy"]) == set(measured["share"]) == names
    assert measured["accuracy"]["half"] == [tuned[0]["half"]["accuracy"]]
    assert measured["share"]["teacher"] == [1.0]
    assert measured["share"]["sibling, from scratch"] == pytest.approx([4 / 7])
    assert measured["budget"]["half"] == pytest.approx([0.5])
    one = results[0]["found"]["third"]["greedy"]
    assert measured["accuracy before"]["third"]["greedy"] == [one["test accuracy"]]
    assert measured["loss before"]["third"]["greedy"] == [one["test loss"]]
    assert measured["share before"]["third"]["greedy"] == [share(results[0], one["choices"])]
    assert measured["lowest loss"]["programme"] == [np.nanmin(results[0]["race"]["programme"])]
    assert set(measured["kendall"]) == {"loss", "accuracy", "kl", "mse"}


def test_a_curve_has_a_point_an_epoch_and_looking_changes_no_training(prepared, tmp_path):
    dataset, settings = prepared
    longer = replace(settings, teaching=replace(settings.teaching, epochs=3))
    curve = learning_curve(settings.teacher, dataset, longer, 0, tmp_path)
    assert {part: len(values) for part, values in curve.items()} == {"train": 3, "test": 3}
    assert all(0 <= value <= 1 for values in curve.values() for value in values)
    network = train_member(settings.teacher, dataset, longer, 0, tmp_path)
    plain = build_network(
        settings.teacher, dataset, teacher_seed(0), **build_arguments(settings.teacher)
    )
    fit(plain, dataset, longer.teaching, seed=teacher_seed(0))
    for one, other in zip(network.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)


def test_whole_networks_are_timed_beside_their_predictions(prepared):
    dataset, settings = prepared
    choices = {"teacher": (0,) * 6, "short": (1, 1, 0, 1, 0, 1)}
    table, found = check_latency(dataset, replace(settings, rounds=3), choices)
    assert set(found) == set(choices)
    assert found["short"][0] < found["teacher"][0]
    # That fewer layers take less time is for a quiet machine to show, not for a test.
    assert all(0 < one.low <= one.median <= one.high for _, one in found.values())
    assert found["teacher"][0] > max(t.median for t in table.entries.values())


def test_the_table_is_the_stored_one_where_it_fits(prepared):
    glyphs, small = prepare("glyphs10", "smoke")
    assert choose_table(glyphs, small) == choose_table(glyphs, small, "stored") == stored_table()
    dataset, settings = prepared
    brief = replace(settings, rounds=1)
    assert choose_table(dataset, brief) != stored_table()
    with pytest.raises(ValueError, match="latency must be auto or measured: the stored table"):
        choose_table(dataset, brief, "stored")
    with pytest.raises(ValueError, match="latency must be one of auto, stored, measured; got 'x'"):
        choose_table(dataset, brief, "x")


def test_a_sibling_is_trained_as_long_as_teacher_and_tuning(prepared, monkeypatch):
    dataset, settings = prepared
    seen = []
    monkeypatch.setattr(
        "smallnets.studies.lana.experiments.train_watched",
        lambda *args, **kwargs: seen.append(args[2].epochs),
    )
    longer = replace(
        settings,
        teaching=replace(settings.teaching, epochs=5),
        tuning=replace(settings.tuning, epochs=2),
    )
    for name in ("resnet-14", "resnet-8"):
        train_member(name, dataset, longer, 0)
    assert seen == [5, 7]


def test_measures_of_a_family_member(prepared, found):
    measures = train_and_evaluate(*prepared, 0, "resnet-8", found[1])
    assert set(measures) == {"loss", "accuracy", "parameters", "macs"}


def test_pools_start_from_the_seed(prepared, found):
    dataset, settings = prepared
    layered, pool = train_pool(dataset, settings, 0, cache_dir=found[1])
    assert len(layered.names) == 6
    assert pool.names[0] == ("teacher", "skip", "dwsep3")
    assert not pool.training


def test_parts_of_a_pool_are_trained_once_each(prepared, tmp_path):
    dataset, settings = prepared
    train_member(settings.teacher, dataset, settings, 0, tmp_path)
    train_pools(dataset, replace(settings, at_once=4), tmp_path)
    files = set(tmp_path.glob("candidates-*"))
    assert len(files) == 2  # six layers, four at once
    _, pool = train_pool(dataset, replace(settings, at_once=4), 0, cache_dir=tmp_path)
    assert set(tmp_path.glob("candidates-*")) == files
    _, again = train_pool(dataset, replace(settings, at_once=6), 0)
    for one, other in zip(pool.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_the_stored_table_covers_the_chapter():
    dataset = load("glyphs10", train=64, test=10)
    for scale in ("smoke", "small", "evidence"):
        settings = PRESETS[scale]
        for name in (settings.teacher, settings.sibling):
            layered = replaceable(name, dataset)
            assert stored_table().covers(layered, Pool([{} for _ in layered.names]))
        limits, fixed, total = budgets(dataset, settings, stored_table())
        assert limits["half"] == pytest.approx(total / 2 - fixed)
        assert 0 < limits["third"] < limits["half"] < limits["three quarters"]
        fitting = build_pool(replaceable(settings.teacher, dataset), settings.pool)
        rows = stored_table().rows(replaceable(settings.teacher, dataset), fitting)
        assert sum(row.min() for row in rows) < limits["third"]


@pytest.mark.parametrize("name", ["mobile-4", "mobilenet-2", "efficientnet_b0"])
def test_other_families_are_layered_by_their_blocks(name):
    dataset = load("digits").take(4, 4)
    layered = replaceable(name, dataset)
    expected = {"mobile-4": 3, "mobilenet-2": 17, "efficientnet_b0": 16}
    assert len(layered.names) == expected[name]
    assert len(layered.shapes) == expected[name]


def test_the_papers_teacher_has_the_papers_space():
    from torchvision.models import efficientnet_b6

    with torch.device("meta"):
        blocks = sum(len(stage) for stage in efficientnet_b6().features[1:8])
    assert blocks == 45


def test_published_weights_are_read(tmp_path, prepared):
    dataset, settings = prepared
    network = build_network(settings.teacher, dataset, 7, **build_arguments(settings.teacher))
    torch.save(network.state_dict(), tmp_path / "teacher.pt")
    given = replace(settings, published=str(tmp_path / "teacher.pt"))
    read = train_member(settings.teacher, dataset, given, 0)
    assert torch.equal(read.conv.weight, network.conv.weight)
    assert not read.training


def test_networks_without_blocks_are_refused(prepared):
    with pytest.raises(ValueError, match=r"network must have blocks, as resnet-DEPTH, .*; got"):
        replaceable("convnet-8", prepared[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": "huge"}, "scale must be one of smoke, small, evidence, paper; got 'huge'"),
        ({"seeds": 0}, "seeds must be at least 1; got 0"),
        ({"epochs": 0}, "epochs must be at least 1; got 0"),
        ({"solutions": 0}, "solutions must be at least 1; got 0"),
        ({"overlap": 1.5}, "overlap must be between 0 and 1; got 1.5"),
        ({"train": 8}, "number of training images must be at least 32; got 8"),
    ],
)
def test_what_cannot_be_prepared_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        prepare("digits", change.pop("scale", "smoke"), Options(**change))


def test_a_missing_file_of_weights_is_named():
    with pytest.raises(FileNotFoundError, match=r"published must be a file .*; got 'no.pt'"):
        prepare("digits", "smoke", Options(published="no.pt"))


def test_epochs_scale_every_training():
    _, settings = prepare("digits", "evidence", Options(train=200, epochs=20))
    trainings = (settings.teaching, settings.distilling, settings.tuning)
    assert [one.epochs for one in trainings] == [20, 1, 7]
    assert settings.teaching.warmup_epochs == pytest.approx(2)
