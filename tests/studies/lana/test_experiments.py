"""The chapter's experiments in small, and what a reader may ask of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from smallnets.data import load
from smallnets.measure import Timing
from smallnets.search.lana.pool import Pool
from smallnets.studies.lana.experiments import (
    SHARES,
    budgets,
    check_latency,
    choose_table,
    search,
    train_and_evaluate,
    train_member,
    train_pool,
    train_pools,
    tune_all,
    tuning_plans,
)
from smallnets.studies.lana.networks import build_arguments, replaceable
from smallnets.studies.lana.plan import PRESETS, Options, prepare, stored_table
from smallnets.studies.networks import build_network


@pytest.fixture(scope="module")
def prepared():
    """Half-size digits and a teacher of three blocks."""
    dataset, settings = prepare(
        "digits", "smoke", Options(train=96, seeds=1, device="cpu", precision="32-true")
    )
    pool = ("skip", "dwsep3")
    return dataset.take(test=60), replace(settings, pool=pool, siblings=("resnet-8",), sampled=3)


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


def test_budgets_are_shares_and_siblings_without_the_fixed_part(prepared, table):
    limits, fixed, total = budgets(*prepared, table)
    assert (fixed, total) == (1.0, 7.0)  # six blocks and the rest
    assert limits == {"three quarters": 4.25, "half": 2.5, "resnet-8": 3.0}
    assert list(limits) == ["three quarters", "resnet-8", "half"]
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
        assert first["predicted"] <= methods["greedy"]["predicted"] + 1e-9
        assert set(np.unique(methods["skip only"]["choices"])) <= {0, 1}


def test_judgements_are_before_and_after_recalibration_and_on_test_images(found):
    one = found[0]["found"]["half"]["best of K"]
    for start in ("", "as stitched ", "test "):
        assert 0 <= one[f"{start}accuracy"] <= 1
        assert one[f"{start}loss"] > 0
    assert one["as stitched loss"] != one["loss"]


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


def test_plans_name_what_was_found(found):
    (plan,) = tuning_plans([found[0]])
    assert {"half", "three quarters", "resnet-8", "teacher, longer", "half, skip only"} < set(plan)
    assert plan["half, labels only"] == (plan["half"][0], 0.0)
    assert plan["teacher, longer"][0] == (0,) * 6


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


def test_siblings_are_trained_as_long_as_teacher_and_tuning(prepared, monkeypatch):
    dataset, settings = prepared
    seen = []
    monkeypatch.setattr(
        "smallnets.studies.networks.fit", lambda *args, **kwargs: seen.append(args[2].epochs)
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
    for scale in ("smoke", "small"):
        settings = PRESETS[scale]
        for name in (settings.teacher, *settings.siblings):
            layered = replaceable(name, dataset)
            assert stored_table().covers(layered, Pool([{} for _ in layered.names]))
        limits, fixed, total = budgets(dataset, settings, stored_table())
        assert limits["half"] == pytest.approx(total / 2 - fixed)
        assert 0 < limits["half"] < limits["three quarters"]


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
        ({"scale": "huge"}, "scale must be one of smoke, small, paper; got 'huge'"),
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
    _, settings = prepare("digits", "small", Options(train=200, epochs=6))
    assert (settings.teaching.epochs, settings.distilling.epochs, settings.tuning.epochs) == (
        6,
        1,
        2,
    )
    assert settings.teaching.warmup_epochs == pytest.approx(2.25)
