"""The chapter's experiments at the smallest size, and their settings."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from smallnets import measure
from smallnets.quantize import layered as vl
from smallnets.studies import layered as study
from smallnets.training import TrainSettings, fit
from smallnets.training.workers import threads


@pytest.fixture(scope="module")
def settings():
    quick = TrainSettings(epochs=1, batch_size=16, lr=0.05, device="cpu", precision="32-true")
    return replace(
        study.PRESETS["smoke"],
        network="resnet-8-4",
        widths=(4, 2),
        seeds=2,
        training=quick,
        tuning=quick,
        calibration=32,
    )


def test_every_variant_is_measured(data, settings, tmp_path):
    two = replace(settings, variants=("layered", "direct"))
    found = study.run_variants(data, two, tmp_path)
    assert {name: len(results) for name, results in found.items()} == {
        "layered": 2, "direct": 2, 4: 2, 2: 2,
    }  # fmt: skip
    first = found["layered"][0]
    assert list(first["accuracy"]) == [4, 2]
    assert list(first["read"]) == [2, 3, 4]
    for bits in (4, 2):
        assert first["read"][bits] == first["accuracy"][bits], "the file is the network"
    assert found[4][0]["cut"][4] == found[4][0]["accuracy"][4]
    assert "cut" not in found[2][0]


def test_other_variants_have_seeds_of_their_own(settings):
    more = replace(settings, seeds=3, variant_seeds=1, variants=("layered", "round"))
    seeds = {}
    for (variant, seed), arguments in study.conditions(more).items():
        assert arguments == {"variant": variant}
        seeds.setdefault(variant, []).append(seed)
    assert seeds == {"layered": [0, 1, 2], "round": [0], 4: [0, 1, 2], 2: [0, 1, 2]}


def test_steps_start_in_one_thread_everywhere(data, settings, monkeypatch):
    seen = []
    original = vl.LayeredNetwork.start
    monkeypatch.setattr(
        vl.LayeredNetwork,
        "start",
        lambda network, x: seen.append(torch.get_num_threads()) or original(network, x),
    )
    with threads(2):
        study.train_quantised(data, settings, 0, "layered")
    assert seen == [1]


def test_the_narrowest_width_weighs_half(data, settings):
    three = replace(settings, widths=(4, 3, 2))
    _, history = study.train_quantised(data, three, 0, "weighted")
    assert [history[-1][f"weight {bits}"] for bits in (4, 3, 2)] == pytest.approx([0.4, 0.4, 0.2])


def test_dedicated_networks_of_two_bits_have_a_rate_of_their_own(data, settings, monkeypatch):
    seen = {}

    def note(network, dataset, tuning, **_):
        seen[network.widths] = tuning.lr

    monkeypatch.setattr("smallnets.studies.layered.experiments.train_once", note)
    for variant in (4, 2, "layered"):
        study.train_quantised(data, replace(settings, narrow_lr=0.02), 0, variant)
    assert seen == {(4,): 0.05, (2,): 0.02, (4, 2): 0.05}


def test_from_scratch_there_is_no_float_network(data, settings, tmp_path):
    longer = replace(settings, training=settings.training.with_epochs(2))
    _, history = study.train_quantised(data, longer, 0, "scratch", tmp_path)
    assert len(history) == 3
    assert not list(tmp_path.glob("float-*"))


@pytest.mark.parametrize("variant", study.VARIANTS)
def test_every_variant_trains(data, settings, variant, tmp_path):
    widths = (5, 4, 3, 2) if variant == "random width" else (4, 2)
    network, history = study.train_quantised(
        data, replace(settings, widths=widths), 0, variant, tmp_path
    )
    assert network.widths == widths
    assert np.isfinite(history[-1]["loss"])


def test_where_the_highest_width_alone_teaches_the_weights(data, settings):
    _, history = study.train_quantised(data, settings, 0, "highest only")
    assert [history[-1][f"weight {bits}"] for bits in (4, 2)] == [1, 0]


def test_a_random_width_needs_a_choice(settings):
    with pytest.raises(ValueError, match=r"random width needs four widths or more; got \(4, 2\)"):
        replace(settings, variants=("layered", "random width"))
    _, three = study.prepare("digits", "paper", study.Options(train=500, widths="4,3,2"))
    assert "random width" not in three.variants
    assert len(three.variants) == len(study.VARIANTS) - 1


def test_sizes_of_codes():
    assert study.code_bytes(11_157_504, (8, 4, 3, 2)) == (11_157_504, 23_709_696)
    assert study.code_bytes(11_157_504, (4, 3, 2)) == (5_578_752, 12_552_192)


def test_everything_is_measured_by_name(data, settings, tmp_path):
    two = replace(settings, variants=("layered", "direct"), seeds=3, variant_seeds=1)
    found = study.measure_all(data, two, tmp_path)
    names = ("dedicated", "layered", "direct", "4 bits cut", "4 bits cut and recalibrated")
    assert set(found["accuracy"]) == {f"{name}, {b} bits" for name in names for b in (4, 2)}
    assert list(found["read"]) == list(found["recalibrated"]) == ["2 bits", "3 bits", "4 bits"]
    assert list(found["changed"]) == ["2 to 4 bits"]
    assert found["read"]["4 bits"] == found["accuracy"]["layered, 4 bits"]
    assert found["accuracy"]["4 bits cut, 4 bits"] == found["accuracy"]["dedicated, 4 bits"]
    sizes = found["kilobytes"]
    assert np.less(sizes["layered"], sizes["dedicated together"]).all()
    parts = ("accuracy", "read", "recalibrated", "changed", "kilobytes")
    lists = [values for part in parts for values in found[part].values()]
    assert {len(values) for values in [found["float"], *lists]} == {3}


def test_changed_answers_are_counted(data, settings, tmp_path):
    network, _ = study.train_quantised(data, settings, 0, "layered", tmp_path)
    said = [
        measure.predict(network.set_width(b), data.x_test, data.normalise).argmax(1) for b in (2, 4)
    ]
    other = sum(int(a != b) for a, b in zip(*said, strict=True))
    assert study.changed_answers(network, data) == {"2 to 4 bits": other / len(data.y_test)}


def test_watching_changes_nothing_that_is_trained(data, settings):
    watched, history = study.watch_float(data, settings, 0)
    plain = study.build_network(settings.network, data, 0)
    fit(plain, data, settings.training, seed=0)
    for one, other in zip(watched.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert set(history[-1]) == {"loss", "train", "test"}
    assert 0 <= history[-1]["train"] <= 1
    assert 0 <= history[-1]["test"] <= 1


def test_evidence_has_eight_seeds_of_what_is_judged():
    evidence = study.PRESETS["evidence"]
    assert set(study.JUDGED) <= set(evidence.variants)
    seeds = {}
    for variant, seed in study.conditions(evidence):
        seeds[variant] = max(seed + 1, seeds.get(variant, 0))
    assert {seeds[variant] for variant in (*study.JUDGED, *evidence.widths)} == {8}


def test_rules_differ_where_few_bits_are_left():
    w = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    errors = study.rule_errors(w, 8)
    last = {round(e[-1], 9) for e in errors.values()}
    assert len(last) == 1, "all agree at the highest width"
    assert errors["plain"][0] > 2 * errors["mid"][0]


def test_confidences_come_from_the_file(data, settings, tmp_path):
    network, _ = study.train_quantised(data, settings, 0, "layered", tmp_path)
    content, _ = vl.layered_bytes(network)
    blank = study.build_network(settings.network, data, 5)
    found = study.confidences(content, blank, data, 6, (2, 4))
    assert found.shape == (6, 2)
    for column, bits in enumerate((2, 4)):
        read = vl.load_layered(content, blank, bits=bits)
        shares = measure.predict(read, data.x_test[:6], data.normalise).softmax(1)
        right = shares[torch.arange(6), data.y_test[:6]]
        np.testing.assert_allclose(found[:, column], right.numpy())


def test_gram_matrix_of_the_widths_gradients(data, settings, tmp_path):
    network, _ = study.train_quantised(data, settings, 0, "layered", tmp_path)
    gram = study.gradient_gram(network, data, 40)
    assert gram.shape == (2, 2)
    assert torch.equal(gram, gram.T)
    assert torch.linalg.eigvalsh(gram).min() > 0
    state = {name: value.clone() for name, value in network.state_dict().items()}
    study.gradient_gram(network, data, 40)
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name]), "the network itself is left alone"
    loss = torch.nn.functional.cross_entropy(
        network.train()(data.normalise(data.x_train[:40]), 2), data.y_train[:40]
    )
    own = network.own_parameters()
    shared = [p for name, p in network.named_parameters() if name not in own]
    square = sum(float(g.square().sum()) for g in torch.autograd.grad(loss, shared))
    assert float(gram[1, 1]) == pytest.approx(square, rel=1e-4)


def test_prepare_takes_what_was_asked_for():
    images, settings = study.prepare(
        "digits",
        "smoke",
        study.Options(seeds=2, train=100, resolution=8, widths="4,3,2", variants="layered/raw"),
    )
    assert images.size == (8, 8)
    assert settings.widths == (4, 3, 2)
    assert settings.variants == ("layered", "raw")
    assert settings.tuning.precision == "32-true"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "large"}, "scale must be one of"),
        ({"widths": "4,x"}, "numbers such as 4,3,2; got '4,x'"),
        ({"widths": (4,)}, "two or more"),
        ({"widths": (4, 1)}, "at least 2 bits"),
        ({"variants": ("layered", "best")}, "variants must be one of"),
        ({"variants": "raw"}, "must contain 'layered'"),
        ({"train": 10}, "number of training images must be at least 32"),
        ({"resolution": 4}, "at least 8; got 4"),
        ({"seeds": 0}, "at least 1; got 0"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        study.prepare("digits", options.pop("scale", "smoke"), study.Options(**options))
    assert "\n" not in str(caught.value)


def test_an_unknown_network_is_named(data):
    with pytest.raises(ValueError, match=r"resnet-DEPTH-WIDTH, .*'lenet'"):
        study.build_network("lenet", data, 0)
