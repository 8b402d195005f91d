"""The measurements: each is what it says, the same twice, and chosen without test images."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from smallnets import gan
from smallnets.studies import gan as study
from smallnets.studies.gan import learners, searching

REMEMBERING = (
    learners.alone, learners.cycle_teacher, learners.train_supernet, learners.pairs_of,
    learners.lesson, learners.eyes, searching.search,
)  # fmt: skip


def forget():
    """What a new process does not know."""
    for one in REMEMBERING:
        one.cache_clear()


def leaves(found):
    for value in found.values():
        if isinstance(value, dict):
            yield from leaves(value)
        else:
            yield from np.ravel(value)


def test_a_repetition_measures_every_network(quick, measured):
    pairs = {*study.core_names(quick), *study.loose_names()}
    assert set(measured["error"]) == pairs | {"average", "truth"}
    assert set(measured["fid"]) == set(measured["distance"]) == set(measured["error"])
    assert set(measured["exact"]) == set(measured["published"]) == pairs
    assert set(measured["held error"]) == set(study.core_names(quick))
    assert np.isfinite(list(leaves(measured))).all()
    assert measured["distance"]["truth"] == 0
    assert 0 <= measured["error"]["truth"] <= 1
    assert json.loads(json.dumps(measured)) == measured


def test_costs_are_those_of_the_networks(domain, quick, measured):
    exact = measured["exact"]
    assert exact["found"] == exact["compressed"] == exact["found, tuned"]
    assert exact["found"] <= quick.budget * exact["teacher"]
    assert exact["0.5"] == exact["scratch 0.5"] < exact["1"] == exact["blocks"] < exact["teacher"]
    assert measured["published"]["teacher"] > exact["teacher"]
    assert exact["everything"] < exact["up"] < exact["teacher"]


def test_the_compressed_network_is_the_better_one_on_held_out_images(measured):
    held = measured["held error"]
    assert held["compressed"] == min(held["found"], held["found, tuned"])
    assert held["found"] == pytest.approx(measured["search"]["evolution"][0], abs=1e-6)


def test_searches(quick, measured):
    search, counts = measured["search"], measured["evaluations"]
    for method in ("evolution", "random"):
        assert len(search[method]) == len(counts[method]) == quick.searches
        line = measured["search, so far"][method]
        assert len(line) == quick.search.population * (quick.search.generations + 1)
        assert line == sorted(line, reverse=True)
        assert line[-1] == search[method][0]
    assert counts["random"] == counts["evolution"]
    assert search["brute force"] <= min(*search["evolution"], *search["random"])  # of all widths
    assert all(a <= b for a, b in zip(search["random"], search["any"], strict=True))


def test_a_run_of_one_process_after_another_gives_the_same_bits(domain, quick, measured, kept):
    before = set(kept.iterdir())
    forget()
    assert study.measure(domain, quick, 0, kept) == measured
    assert set(kept.iterdir()) == before  # all of it from what is kept


def test_a_training_that_was_killed_goes_on_to_the_same_bits(domain, quick, kept, tmp_path):
    longer = replace(quick, supernet=replace(quick.supernet, epochs=2))
    forget()
    whole = study.train_supernet(domain, longer, 0, kept)
    forget()
    done = []
    original = gan.Compression.step

    def interrupted(self, batch, optimizers):
        done.append(batch.step)
        if len(done) == 4:
            raise KeyboardInterrupt
        return original(self, batch, optimizers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gan.Compression, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            study.train_supernet(domain, longer, 0, tmp_path)
    again = study.train_supernet(domain, longer, 0, tmp_path)
    assert len(list(tmp_path.glob("supernet*.safetensors"))) == 1
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name])
    assert whole.history == again.history
    forget()


def test_test_images_choose_nothing(domain, quick, measured, kept):
    """With other test images other errors are reported, and everything else is as it was."""
    draw = torch.Generator().manual_seed(0)

    def noisy(data):
        noise = torch.randint(256, data.b_test.shape, generator=draw, dtype=torch.uint8)
        labels = torch.zeros_like(data.labels_test)
        return replace(data, a_test=noise, b_test=noise, labels_test=labels)

    other = replace(domain, pairs=noisy(domain.pairs), loose=noisy(domain.loose))
    assert other != domain
    before = set(kept.iterdir())
    found = study.measure(other, quick, 0, kept)
    for name in ("held error", "training", "search", "search, so far", "evaluations", "config"):
        assert found[name] == measured[name]
    assert set(kept.iterdir()) == before  # nothing was trained or scored anew
    assert found["error"]["teacher"] != measured["error"]["teacher"]


def test_another_repetition_shares_nothing(domain, quick, kept):
    one, two = (study.alone(domain, quick, seed, kept).network for seed in (0, 1))
    assert not torch.equal(one.model[1].weight, two.model[1].weight)
    first, second = (study.cycle_teacher(domain, quick, seed, kept).network for seed in (0, 1))
    assert not torch.equal(first.model[1].weight, second.model[1].weight)


def test_supernets_of_one_teacher(quick, domain, measured, kept):
    found = study.measure_spread(domain, quick, 0, kept)
    names = {"supernet 0", "supernet 1"}
    assert all(set(values) == names for values in found.values())
    assert set(found) == {
        f"spread, {one}" for one in ("error", "held", "exact", "config", "largest", "smallest")
    }
    assert found["spread, error"]["supernet 0"] == measured["error"]["found"]
    assert found["spread, config"]["supernet 0"] == measured["config"]["found"]
    assert found["spread, largest"]["supernet 0"] == measured["error"]["1"]


def test_ablations(domain, quick, kept):
    study.train_the_others(domain, quick, 0, kept)
    before = set(kept.iterdir())
    forget()
    found = study.measure_further(domain, quick, 0, kept)
    for name in ("error", "fid", "distance", "exact", "held error"):
        assert set(found[name]) == set(study.FURTHER)
    teacher = study.alone(domain, quick, 0, kept).network.cost(domain.size).exact
    for name in ("full pipeline", "uniform, scratch", "uniform, distilled", "found, scratch"):
        assert found["exact"][name] <= quick.budget * teacher
    made = {one.name.split("-")[0] for one in set(kept.iterdir()) - before}
    assert made <= {"search", "export"}


def test_pictures(domain, quick, kept, measured):
    shown = study.pictures(domain, quick, 0, ["teacher", "compressed"], kept, count=3)
    assert list(shown) == ["input", "teacher", "compressed", "truth"]
    assert all(one.shape == (3, 3, 16, 16) and one.dtype == torch.uint8 for one in shown.values())
    assert torch.equal(shown["truth"], domain.pairs.b_test[:3])
    loosely = study.pictures(domain, quick, 0, study.loose_names(), kept)
    assert torch.equal(loosely["input"], domain.loose.a_test)
    with pytest.raises(ValueError, match=r"^names must be all with pairs or all without; got tea"):
        study.pictures(domain, quick, 0, ["teacher", "GAN only"], kept)


def test_a_gallery_goes_from_the_largest_to_the_smallest(domain, quick, kept, measured):
    walk = study.gallery(domain, quick, 0, kept, count=4, pictures=(1, 0))
    assert [one.config for one in walk][:: len(walk) - 1] == [(2,) * 8, (1,) * 8]
    costs = [one.exact for one in walk]
    assert costs == sorted(costs, reverse=True)
    assert walk[0].error == measured["error"]["1"]
    assert walk[-1].distance == pytest.approx(measured["distance"]["0.5"], abs=1e-6)
    shown = study.pictures(domain, quick, 0, ["1"], kept, count=2)
    assert torch.equal(walk[0].images, shown["1"].flip(0))


def test_a_path_narrows_one_layer_after_another(quick):
    whole = study.path(study.space_of(quick), 99)
    assert len(whole) == 9
    for one, two in itertools.pairwise(whole):
        assert sum(a != b for a, b in zip(one, two, strict=True)) == 1


def test_a_cloud(domain, quick, kept, measured):
    found = study.cloud(domain, quick, 0, kept, count=5)
    assert all(len(one) == 7 for one in found.values())
    assert found["config"].shape == (7, 8)
    smallest, largest = found["exact"][:2]
    assert smallest == found["exact"].min() == measured["exact"]["0.5"]
    assert largest == found["exact"].max() == measured["exact"]["1"]
    assert found["held"][1] == pytest.approx(measured["held error"]["1"], abs=1e-6)


def test_latencies(domain, quick, kept, measured):
    rows = study.time_side_by_side(domain, quick, 0, kept)
    keys = {(one["name"], one["runtime"]) for one in rows}
    assert len(keys) == len(rows) == 6
    assert all(0 < one["low"] <= one["milliseconds"] <= one["high"] for one in rows)
    found = study.measure_latency(domain, quick, [0], kept)
    exact = measured["exact"]
    assert found["gain"]["exact"] == [exact["teacher"] / exact["compressed"]]
    assert set(found["gain"]) == {"exact", "published"}
    assert set(found["timed gain"]) == set(study.RUNTIMES)
    assert set(found["timed rank"]) == {
        f"{one}, {runtime}" for one in ("exact", "published") for runtime in study.RUNTIMES
    }
    assert all(len(one) == 1 for part in found.values() for one in part.values())
    assert study.time_side_by_side(cache_dir=kept, seed=0, domain=domain, settings=quick) is rows
    compressed = study.network(domain, quick, 0, "compressed", kept)
    assert study.same_images(compressed, (3, 16, 16)) < 1e-4


@pytest.mark.parametrize("name", ["SPADE", "MUNIT"])
def test_families_from_teacher_to_export(name, domain, quick, kept, monkeypatch):
    made = study.FAMILIES[name](domain, quick, kept)
    whole, small = made.costs
    assert small.exact <= 0.25 * whole.exact
    assert whole.exact == made.teacher.cost(made.data.size).exact

    def refused(*_, **__):
        raise AssertionError("it is trained again")

    monkeypatch.setattr("smallnets.gan.playing._played", refused)
    again = study.FAMILIES[name](domain, quick, kept)
    x = made.data.a(made.data.a_test[:2])
    assert torch.equal(gan.translated(made.network, x), gan.translated(again.network, x))


def test_pictures_of_the_families(domain, quick, kept):
    shown = study.family_pictures(domain, quick, kept, count=2)
    assert list(shown["SPADE"]) == ["input", "teacher", "compressed", "truth"]
    assert list(shown["MUNIT"])[:2] == ["input", "teacher, style 1"]
    assert {one.shape[1] for rows in shown.values() for one in rows.values()} == {3}
    one, two = (shown["MUNIT"][f"teacher, style {number}"] for number in (1, 2))
    assert not torch.equal(one, two)


def test_a_generator_that_is_not_ours(domain, quick, kept):
    own = study.compress_own(domain, quick, kept)
    before = set(kept.iterdir())
    forget()
    small = study.compress_own(domain, quick, kept).compressed
    assert set(kept.iterdir()) == before
    assert small.config == own.compressed.config
    assert type(small.network) is type(own.generator) is study.Painter
    assert small.cost.exact <= 0.25 * small.full_cost.exact
    assert small.network(torch.zeros(1, 3, 16, 16)).shape == (1, 3, 16, 16)


def opened_file(name, quick, paired=True):
    options = study.Options(paired=paired, ngf=2, device="cpu", train=16, test=4)
    domain, settings = study.prepare(name, "smoke", options)
    changes = {"search": quick.search, "average": 1, "shares": (1.0, 0.5), "coarse": (1.0, 0.5)}
    return domain, replace(settings, **changes, budget=0.5, supernets=1, searches=1, own=quick.own)


def test_pairs_of_ones_own(tmp_path, own_file, quick):
    domain, settings = opened_file(own_file(), quick)
    pairs = study.pairs_of(domain, settings, tmp_path)
    judge = study.judging(pairs, study.eyes(domain, settings, tmp_path))
    for name in ("teacher", "found"):
        said = judge(study.network(domain, settings, 0, name, tmp_path))
        assert said["error"] == said["distance"] > 0
    assert study.family_pictures(domain, settings, tmp_path) == {}
    for make in study.FAMILIES.values():
        with pytest.raises(ValueError, match=r"^domain must be of scenes, .*; got npz:"):
            make(domain, settings, tmp_path)
    study.train_families(domain, settings, tmp_path)
    assert {one.name.split("-")[0] for one in tmp_path.iterdir()} >= {"own", "export"}


def test_two_sets_of_ones_own(tmp_path, own_file, quick):
    domain, settings = opened_file(own_file(paired=False), quick, paired=False)
    teacher = study.network(domain, settings, 0, "teacher", tmp_path)
    pairs = study.pairs_of(domain, settings, tmp_path)
    assert teacher(pairs.a(pairs.a_test)).shape == pairs.b_test.shape
    judge = study.loose_judging(domain, settings, 0, tmp_path)
    cycle = study.network(domain, settings, 0, "cycle teacher", tmp_path)
    assert judge(cycle)["error"] == 0
    assert judge(study.network(domain, settings, 0, "pseudo pairs", tmp_path))["error"] > 0
    assert not study.eyes(domain, settings, tmp_path, loose=True).training
