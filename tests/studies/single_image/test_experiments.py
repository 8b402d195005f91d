"""The measurements: each is what it says, the same twice, and complete."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from smallnets import measure as measures
from smallnets.book import Parameters, seed_by_seed
from smallnets.distill import single_image as si
from smallnets.studies import single_image as study
from smallnets.studies.networks import build_network
from smallnets.studies.single_image import experiments, students

JUDGED = {"accuracy", "agreement", "patch agreement", "recalibrated"}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def measured(digits, quick, voices, kept):
    return study.measure(digits, quick, 0, "astronaut", voices, kept)


def test_presets_hold_the_papers_settings():
    paper = study.PRESETS["paper"]
    assert (paper.network, paper.resolution) == ("wrn-16-4", 32)
    training, ask = paper.training, paper.imitation
    assert (training.epochs, training.batch_size, training.lr) == (1000, 512, 1e-3)
    assert (training.optimizer, training.schedule, training.weight_decay) == ("adam", "constant", 0)
    assert 49_000 < paper.steps * training.batch_size <= 50_000
    assert (ask.temperature, ask.squared, ask.mixing, ask.alpha) == (
        8,
        False,
        "cutmix_reverse",
        0.25,
    )
    assert replace(paper.patches, size=32) == si.PatchSettings()
    assert 50_000 in paper.pools


def test_evidence_has_eight_seeds_of_what_decides_a_claim_and_all_sources():
    preset = study.PRESETS["evidence"]
    assert preset.seeds == 8
    assert len(preset.sources) == 7
    assert {*preset.dense, *preset.sparse, "noise", "blank"} <= set(preset.sources)
    assert len(study.PRESETS["small"].sources) == 3
    students_ = study.core_conditions(preset, "astronaut")
    assert {"longer", "argmax", "wider", "narrower", "page of print", "few images"} <= set(
        students_
    )


def test_everything_is_measured_of_every_student(measured, quick):
    names = {*study.core_conditions(quick, "astronaut"), "teacher"}
    assert measured.keys() >= JUDGED
    for measure in JUDGED:
        assert measured[measure].keys() == names
        assert np.isfinite(list(measured[measure].values())).all()
    assert measured["agreement"]["teacher"] == measured["patch agreement"]["teacher"] == 1
    assert measured["accuracy"]["student"] == measured["accuracy"]["astronaut"]
    assert measured["over time"].keys() == names - {"teacher"}
    assert measured["spread"].keys() == {"astronaut", "noise"}
    assert abs(measured["rank"]["spread"]) in (0, pytest.approx(1))
    assert sum(measured["by class"]["share"]) == pytest.approx(1)
    assert measured["alignment"].keys() == {"teacher", "twin"}
    assert 0 <= measured["inside"]["plane"] <= 1
    assert measured["voices"] == {"spoken": 0.0}
    assert measured["clips"].keys() == {"teacher", "photograph", "untrained"}
    assert measured["speech"].keys() == {
        "teacher",
        "clip of other words",
        "noise",
        "training words",
    }


def test_a_seed_gives_the_same_numbers_twice(digits, quick, voices, measured, tmp_path):
    again = study.measure(digits, quick, 0, "astronaut", voices, tmp_path)
    assert again == measured


def test_side_by_side_trains_all_that_is_measured(
    digits, quick, voices, measured, kept, tmp_path, monkeypatch
):
    def here(function, jobs, **_):
        return [function(**job) for job in jobs]

    monkeypatch.setattr(students, "run_parallel", here)
    study.train_everything(digits, quick, 0, "astronaut", voices, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {path.name for path in kept.iterdir()}


def test_the_source_is_chosen_without_a_look_at_test_images(digits, quick, tmp_path, monkeypatch):
    blind = replace(digits, x_test=torch.zeros_like(digits.x_test))
    found = study.ask_about_sources(digits, quick, 0, None, tmp_path)
    same = study.ask_about_sources(blind, quick, 0, None, tmp_path)
    for name, one in found.items():
        assert one.mutual_information == same[name].mutual_information
    assert set(found) == {*quick.sources, *quick.candidates, quick.page}
    best = study.choose_source(quick, found)
    assert best in quick.sources
    assert found[best].mutual_information == max(
        found[name].mutual_information for name in quick.sources
    )
    assert study.choose_source(quick, found, "file:x.jpg") == "file:x.jpg"
    teacher = study.train_teacher(digits, quick, 0, cache_dir=tmp_path)
    assert teacher.history[-1].keys() == {"loss", "train"}


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16"])
def test_a_photograph_of_ones_own_is_a_source(digits, quick, tmp_path, mode):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50))
    file = tmp_path / "PHOTO.png"
    if mode == "I;16":
        Image.fromarray((pixels * 257).astype(np.uint16)).save(file)
    else:
        Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(file)
    source = f"file:{file}"
    assert study.title(source) == "PHOTO.png"
    assert study.with_source(quick, source)[0] == source
    condition = study.Condition(source)
    with pytest.warns(UserWarning, match=r"became|dropped"):
        found, _ = study.measure_student(digits, quick, 0, condition, source, tmp_path)
    assert found.keys() == JUDGED


def test_further_students_are_measured(digits, quick, kept):
    few = replace(
        quick, temperatures=(1.0,), mixings=("none",), losses=("top_k",), others=(), counts=(20,)
    )
    found = study.measure_further(digits, few, 0, "astronaut", kept)
    names = study.further_conditions(few, "astronaut")
    assert found["accuracy"].keys() == names.keys()
    assert {"untrained", "no rotation", "T = 1", "mixing: none", "loss: top_k", "short teacher",
            "10 labelled images", "20 images, patchified", "JPEG files"} <= set(names)  # fmt: skip


def test_seeds_are_joined_and_kept(digits, quick, voices, kept, tmp_path):
    run = Parameters("digits", "smoke", None, "cpu", "32-true", str(tmp_path))
    common = {"dataset": digits, "settings": quick, "source": "astronaut", "speech": voices}
    joined = seed_by_seed(study.measure, run, seeds=1, cache_dir=kept, **common)
    assert np.shape(joined["by class"]["share"]) == (1, 10)
    assert len(list(tmp_path.rglob("0.json"))) == 1


def test_what_is_compared_is_what_it_is_called(digits, quick):
    one, other = (build_network("convnet-3", digits, seed).eval() for seed in (0, 1))
    unseen = study.held_out_patches("astronaut", quick, 0).take(range(30))
    found = study.compared(one, other, digits, unseen)
    said, taught = (measures.predict(n, digits.x_test, digits.normalise) for n in (one, other))
    assert found["accuracy"] == measures.accuracy(said, digits.y_test)
    assert found["agreement"] == measures.agreement(said, taught)
    before = [buffer.clone() for buffer in one.buffers()]
    study.compared(one, other, digits, unseen)
    assert all(map(torch.equal, before, one.buffers())), "renewed on a copy"
    same = study.compared(one, one, digits, unseen)
    assert same["agreement"] == same["patch agreement"] == 1


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1, 2, 3], [0.1, 0.5, 0.9], 1),
        ([1, 2, 3], [3, 2, 1], -1),
        ([1, 1], [1, 2], 0),
        ([1], [2], 0),
    ],
)
def test_rank_correlations(first, second, expected):
    assert study.rank_correlation(first, second) == pytest.approx(expected)


def test_classes_without_images_count_as_zero(digits):
    logits = torch.eye(10)[torch.arange(60) % 10]
    covered = si.coverage_of_logits(logits)
    network = build_network("convnet-3", digits, 0).eval()
    found = study.by_class(network, network, digits, covered)
    assert set(found["agreement"]) <= {0.0, 1.0}
    assert found["share"] == [0.1] * 10


def test_statistics_are_those_of_the_pictures(quick):
    found = study.statistics_of(quick, {"blank": None, "noise": None})
    assert found["blank"]["entropy"] == 0
    assert found["noise"]["edge_density"] > 0.3


def test_features_are_those_of_the_last_stage(digits, quick):
    network = build_network("convnet-3", digits, 0).eval()
    patches = study.patches_of("astronaut", quick, 0).take(range(8))
    mine, others = study.features_of(network, digits, patches)
    assert mine.shape == (8, 12)
    assert others.shape == (60, 12)
    assert experiments.last_stage(network) == "stage3"
