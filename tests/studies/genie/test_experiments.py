"""The chapter's experiments at their smallest, and what a reader may ask for."""

from dataclasses import replace

import pytest
import torch

from smallnets.quantize import genie as gn
from smallnets.studies import genie as study
from smallnets.training import fit

TINY = {"train": 96, "seeds": 2, "epochs": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def prepared():
    return study.prepare("glyphs10", "smoke", study.Options(**TINY))


def test_one_network_through_every_experiment(prepared, tmp_path):
    data, settings = prepared
    common = {"dataset": data, "settings": settings, "seed": 0, "cache_dir": tmp_path}
    network = study.train_teacher(**common)
    assert not network.training
    made = {name: study.synthesize_images(**common, source=name).images for name in study.SOURCES}
    made["real"] = study.calibration_images(data, settings)
    assert {tuple(one.shape) for one in made.values()} == {(16, 3, 16, 16)}
    again = study.synthesize_images(**common, source="GENIE-D")
    assert torch.equal(again.images, made["GENIE-D"])
    seen = study.describe_images(network, made["real"])
    assert set(seen) == {"loss", "roughness", "corner", "diversity", "classes"}
    assert 1 <= seen["classes"] <= data.num_classes
    assert study.diversity(network, made["real"][:1].repeat(4, 1, 1, 1)) == 0
    half = (made["real"] + made["real"].mean(0)) / 2
    assert study.diversity(network, half) < 0.8 * study.diversity(network, made["real"])
    for case in (study.Case(2, 4), study.Case(4, 4, "real", "nearest"), study.Case(2, 4, count=8)):
        found = study.assess(**common, case=case, images=made[case.source])
        assert 0 <= found["accuracy"] <= 1
        assert found["error"] > 0
        assert found["KL"] >= 0
    fine = study.assess(**common, case=study.Case(8, 8, "real", "nearest"), images=made["real"])
    assert fine["error"] < found["error"] / 10
    assert study.assess(**common, case=case, images=made[case.source]) == found  # kept, seconds too


def test_watching_one_network_learn(prepared, tmp_path):
    data, settings = prepared
    network = study.train_teacher(data, settings, 0, tmp_path)
    how = replace(settings.reconstruction, iterations=40, lr_bit=0.1)
    seen = study.trace_learning(
        network,
        study.Case(2, 4, "real"),
        study.calibration_images(data, settings),
        replace(settings, reconstruction=how),
    )
    assert seen.bits_before.shape == seen.bits_after.shape
    assert 0 < seen.flipped < 1
    middle = (seen.bits_after > 0.05) & (seen.bits_after < 0.95)
    assert seen.undecided == pytest.approx(float(middle.double().mean()))
    assert seen.moved.abs().max() > 0
    middle = [float(((b > 0.05) & (b < 0.95)).float().mean())
              for b in (seen.bits_before, seen.bits_after)]  # fmt: skip
    assert middle[1] < middle[0]


def test_cases_and_their_results(prepared, monkeypatch):
    data, settings = prepared
    cases = study.cases(settings)
    assert len(cases) == len(set(cases))
    assert study.Case(*settings.main) in cases
    images = [dict.fromkeys(("real", *study.SOURCES), torch.zeros(1))] * settings.seeds
    monkeypatch.setattr(
        "smallnets.studies.genie.experiments.assess",
        lambda seed, case, images, **_: {"accuracy": float(seed), "bits": float(case.weights)},
    )
    monkeypatch.setattr("smallnets.training.seeds.workers_that_fit", lambda most: 1)
    found = study.assess_all(data, settings, images)
    names = [case.name for case in cases]
    assert len(set(names)) == len(cases)
    assert list(found["accuracy"]) == names
    assert all(one == [0.0, 1.0] for one in found["accuracy"].values())
    assert found["bits"] == {case.name: [case.weights] * 2 for case in cases}


def test_cases_are_named_by_what_they_are():
    assert study.Case(2, 4).name == "W2A4, GENIE-M, GENIE-D"
    assert study.Case(4, 4, "real", "nearest").name == "W4A4, nearest, real"
    other = study.Case(2, 2, "GBA", "naive", drop=1.0, count=8, lr_bit=1e-3)
    assert other.name == "W2A2, recomputed base, GBA, drop 1, 8 pictures, rate 0.001"


def test_small_asks_nothing_that_the_evidence_does_not():
    small, evidence, smoke = (
        {case.name for case in study.cases(study.PRESETS[scale])}
        for scale in ("small", "evidence", "smoke")
    )
    assert small < evidence
    assert len(smoke) == len(evidence)
    assert study.PRESETS["evidence"].seeds == 8


def test_watching_changes_nothing_that_is_trained(prepared):
    data, settings = prepared
    plain = study.build_network(settings.network, data, 0, stem_stride=2)
    fit(plain, data, settings.training, seed=0)
    watched = study.train_teacher(data, settings, 0)
    for one, other in zip(watched.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(one.cpu(), other)
    curve = study.learning_curve(data, settings, 0)
    assert set(curve) == {"train", "test"}
    assert all(len(line) == settings.training.epochs for line in curve.values())
    assert all(0 <= share <= 1 for line in curve.values() for share in line)


@pytest.mark.parametrize(("network", "stride"), [("resnet-8-4", (2, 2)), ("resnet-8", (2, 2))])
def test_networks_of_cifar_start_with_a_stride(prepared, network, stride):
    data, settings = prepared
    assert study.train_teacher(data, replace(settings, network=network), 0).conv.stride == stride


def test_presets_and_requests(prepared):
    data, settings = prepared
    assert set(study.PRESETS) == {"smoke", "small", "evidence", "paper"}
    assert study.PRESETS["paper"].synthesis == gn.SynthesisSettings()
    assert study.PRESETS["paper"].reconstruction == gn.ReconstructionSettings()
    assert settings.seeds == 2
    _, asked = study.prepare(
        "glyphs10", "smoke", study.Options(**TINY, images=12, synthesis_steps=2, unit_steps=5)
    )
    assert (asked.images, asked.synthesis.batch_size) == (12, 12)
    assert (asked.synthesis.iterations, asked.reconstruction.iterations) == (2, 5)
    assert data.size == (16, 16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": "huge"}, "scale must be one of"),
        ({"resolution": 10}, "resolution must be a multiple of 4; got 10"),
        ({"images": 1}, "images must be at least 2; got 1"),
        ({"images": 2}, "images must be at least 4; got 2"),
        ({"train": 20}, "number of training images must be at least 32; got 20"),
        ({"unit_steps": 0}, "iterations must be at least 1; got 0"),
    ],
)
def test_requests_are_checked(changes, message):
    arguments = {**TINY, **changes}
    scale = arguments.pop("scale", "smoke")
    with pytest.raises(ValueError, match=message):
        study.prepare("glyphs10", scale, study.Options(**arguments))


def test_unknown_networks_are_refused(prepared):
    data, settings = prepared
    with pytest.raises(ValueError, match=r"network must be one of .*got 'vit'"):
        study.train_teacher(data, replace(settings, network="vit"), 0)
