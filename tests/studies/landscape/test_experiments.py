"""The measurements: each is what it says, the same twice, and complete."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from smallnets import structure
from smallnets.book import Parameters, seed_by_seed, seedwise
from smallnets.deploy import onnx_runtime
from smallnets.quantize.modules import weight_codes
from smallnets.studies import landscape as study
from smallnets.studies.landscape import experiments, timing
from smallnets.studies.networks import evaluate_accuracy

COUNTS = {
    "parameters", "nonzero", "macs", "nonzero macs", "bit operations", "bytes", "file bytes",
}  # fmt: skip
FEW = ("float", "float, tuned", "LSQ, 4/4", "post-training, 2/2", "unstructured, 80 %",
       "structured, 50 %", "int8")  # fmt: skip


@pytest.fixture
def few(monkeypatch):
    """Only some conditions, so that everything is measured quickly."""
    whole = study.core_conditions

    def some(settings):
        return {name: one for name, one in whole(settings).items() if name in FEW}

    monkeypatch.setattr(experiments, "core_conditions", some)
    for module in (experiments, seedwise):  # workers would not know of it
        monkeypatch.setattr(module, "run_parallel", lambda f, jobs, **_: [f(**job) for job in jobs])


def test_a_seed_measures_every_condition_the_same_twice(bars, quick, kept, few):
    found = study.measure(bars, quick, 0, kept)
    assert set(found) == {"accuracy", "no training", "off when exported", "curve"} | COUNTS
    for kind in {"accuracy", "off when exported"} | COUNTS:
        assert set(found[kind]) == set(FEW), kind
    assert set(found["no training"]) == {"float, tuned", "LSQ, 4/4", "structured, 50 %"}
    assert found["no training"]["float, tuned"] == found["accuracy"]["float"]
    assert len(found["curve"]["train"]) == quick.training.epochs
    assert all(0 <= one <= 1 for one in found["accuracy"].values())
    assert study.measure(bars, quick, 0) == found  # from nothing, in another folder


def test_what_was_finished_is_not_made_again(bars, quick, kept, few, monkeypatch):
    once = study.measure(bars, quick, 0, kept)

    def refuse(*_):
        raise AssertionError("made again")

    monkeypatch.setattr(experiments, "_finished", refuse)
    assert study.measure(bars, replace(quick, passes=7, seeds=3), 0, kept) == once
    with pytest.raises(AssertionError, match="made again"):
        study.measure(bars, replace(quick, calibration=30), 0, kept)


def test_numbers_are_those_of_the_networks(bench, kept):
    found = study.finish(bench.dataset, bench.settings, 0, "float", kept)
    assert float(found["accuracy"]) == evaluate_accuracy(bench.dense(), bench.dataset)
    images = bench.images[:5]
    session = onnx_runtime.load(found["onnx"].tobytes())
    torch.testing.assert_close(
        onnx_runtime.predict(session, images), bench.dense()(images), rtol=1e-3, atol=1e-4
    )
    few_bits = study.finish(bench.dataset, bench.settings, 0, "LSQ, 4/4", kept)
    assert float(few_bits["macs"]) == float(found["macs"])
    assert float(few_bits["bit operations"]) < float(found["bit operations"]) / 30
    assert float(few_bits["bytes"]) < float(found["bytes"]) / 4
    assert float(few_bits["file bytes"]) < float(found["file bytes"])
    left = study.finish(bench.dataset, bench.settings, 0, "unstructured, 80 %", kept)
    assert float(left["nonzero macs"]) < float(left["macs"]) == float(found["macs"])


def test_shared_weights_are_counted_with_their_indices(bench, kept):
    book = study.finish(bench.dataset, bench.settings, 0, "code book", kept)
    network = study.conditions(bench.settings)["code book"].make(bench).network
    assert float(book["bytes"]) == np.ceil(structure.stored_bits(network) / 8)
    assert float(book["macs"]) == float(
        study.finish(bench.dataset, bench.settings, 0, "float", kept)["macs"]
    )


def test_early_exits_are_counted_by_their_mean_and_have_no_file(bench, kept):
    found = study.finish(bench.dataset, bench.settings, 0, "early exit", kept)
    assert "onnx" not in found
    made = study.conditions(bench.settings)["early exit"].make(bench)
    assert float(found["macs"]) == pytest.approx(made.macs)
    dense = study.finish(bench.dataset, bench.settings, 0, "float", kept)
    assert float(found["macs"]) < float(dense["macs"])  # half of the training images leave early


def test_files_hold_the_codes_and_only_what_is_left(bench):
    made = study.conditions(bench.settings)["LSQ, 2/2"].make(bench)
    file = load(save(study.stored(made.network)))
    for name, codes in weight_codes(made.network).items():
        packed = file[f"{name}.weight"]
        numbers = structure.unpack_codes(packed, codes.bits, codes.codes.numel())
        values = file[f"{name}.weight.scale"] * (
            numbers.view(codes.codes.shape) - file[f"{name}.weight.zero"]
        )
        torch.testing.assert_close(values, codes.values)
    sparse = study.conditions(bench.settings)["unstructured, 80 %"].make(bench).network
    file = load(save(study.stored(sparse)))
    for name, weight in sparse.state_dict().items():
        if f"{name}.values" in file:
            mask = structure.unpack_codes(file[name], 1, weight.numel()).bool().view(weight.shape)
            rebuilt = torch.zeros_like(weight).masked_scatter(mask, file[f"{name}.values"])
            assert torch.equal(rebuilt, weight)
    assert sum(name.endswith(".values") for name in file) > 5
    assert study.file_bytes(sparse) < study.file_bytes(bench.dense())


def test_tables_of_few_values_give_the_weights_back(bench):
    made = study.conditions(bench.settings)["probabilistic, 2/32"].make(bench)
    file = study.stored(made.network, made.bits)
    for name in made.bits:
        weight, table = made.network.get_submodule(name).weight, file[f"{name}.weight.table"]
        bits = max(1, int(np.ceil(np.log2(len(table)))))
        codes = structure.unpack_codes(file[f"{name}.weight"], bits, weight.numel())
        assert torch.equal(table[codes].view(weight.shape), weight)


def test_times_come_for_every_network_seed_and_batch(bars, quick, kept, monkeypatch):
    monkeypatch.setattr(timing, "trade_off", lambda _: ["float", "structured, 50 %"])
    monkeypatch.setattr(timing, "taxonomy", lambda _: ["float", "early exit"])
    two = replace(quick, seeds=2)
    found = study.time_seeds(bars, two, kept)
    kinds = ("ms", "low ms", "high ms", "roofline ms", "memory bound")
    assert set(found) == {f"{kind}, batch {n}" for kind in kinds for n in (1, 32)} | {"machine"}
    for n in (1, 32):
        for name in ("float", "structured, 50 %"):
            low, mid, high = (
                found[f"{kind}, batch {n}"][name] for kind in ("low ms", "ms", "high ms")
            )
            assert len(mid) == 2
            assert all(0 < a <= b <= c for a, b, c in zip(low, mid, high, strict=True))
            assert all(0 <= one <= 1 for one in found[f"memory bound, batch {n}"][name])
            assert min(found[f"roofline ms, batch {n}"][name]) > 0
    assert len(found["machine"]["peak"]) == len(found["machine"]["bandwidth"]) == 2
    table = study.time_table(bars, two, kept)
    assert list(table["ms, batch 1"]) == ["float"]  # an exit has no file


def test_seeds_are_measured_one_by_one_and_joined(bars, quick, kept, few, tmp_path):
    run = Parameters("digits", "smoke", 1, "cpu", "32-true", str(tmp_path))
    found = seed_by_seed(study.measure, run, seeds=2, dataset=bars, settings=quick, cache_dir=kept)
    assert len(found["accuracy"]["float"]) == 2
    assert found["accuracy"]["float"][0] == study.measure(bars, quick, 0, kept)["accuracy"]["float"]


def test_one_seed_side_by_side_is_what_one_after_the_other_is(bars, quick, kept, few, monkeypatch):
    names = {"float", "half as wide", "post-training, 4/32"}
    whole = study.conditions

    def some(settings):
        return {name: one for name, one in whole(settings).items() if name in names}

    monkeypatch.setattr(experiments, "conditions", some)
    before = {path.name for path in (kept / "landscape").iterdir()}
    study.train_side_by_side(bars, quick, 0, kept)
    made = {path.name for path in (kept / "landscape").iterdir()}
    assert before <= made
    study.train_side_by_side(bars, quick, 0, kept)
    assert {path.name for path in (kept / "landscape").iterdir()} == made


def test_images_of_one_channel_and_another_size_of_your_own_run(tmp_path, kept):
    draw = np.random.default_rng(1)
    file = tmp_path / "own.npz"
    np.savez(
        file,
        x_train=draw.integers(0, 255, (90, 20, 14)).astype(np.uint8),
        y_train=np.arange(90) % 3,
        x_test=draw.integers(0, 255, (30, 20, 14)).astype(np.uint8),
        y_test=np.arange(30) % 3,
    )
    data, settings = study.prepare(f"npz:{file}", "smoke", study.Options(device="cpu"))
    assert (data.channels, data.num_classes) == (1, 3)
    assert settings.resolution == 12
    for name in ("float", "LSQ, 4/4", "int8", "structured, 50 %", "depthwise separable"):
        found = study.finish(data, settings, 0, name, kept)
        assert 0 <= float(found["accuracy"]) <= 1
        assert len(found["onnx"]) > 1000


def test_what_is_only_counted_has_no_accuracy(bars, quick):
    counted = replace(quick, anew_epochs=0)
    for name in ("fire", "searched at random"):
        found = study.finish(bars, counted, 0, name)
        assert "accuracy" not in found
        assert float(found["macs"]) > 0
        assert len(found["onnx"]) > 1000
    whole = study.finish(bars, counted, 0, "depthwise separable")  # claims look at it
    assert 0 <= float(whole["accuracy"]) <= 1


def test_what_is_only_counted_still_looks_at_its_images(bars, quick):
    bench = study.Bench(bars, replace(quick, anew_epochs=0), 0, None)
    for name in ("fire", "shuffle unit"):
        network = study.conditions(bench.settings)[name].make(bench).network
        with torch.no_grad():
            answers = network(bench.images[:16])
        spread = answers.max(0).values - answers.min(0).values
        assert float(spread.max()) > 0.01 * float(answers.abs().max()), name


def test_nobody_waits_for_the_dense_network(quick):
    names = experiments._in_order(list(study.conditions(quick)))
    assert sorted(names) == sorted(study.conditions(quick))
    assert names[0] == "float"
    without_it = {"half as wide", "depthwise separable", "fire", "searched by gradients"}
    assert max(names.index(one) for one in without_it) < names.index("LSQ, 4/4")
    assert names.index("BNN, 1/1") < names.index("LSQ, 4/4")


def test_only_the_table_is_made_side_by_side_where_there_are_more_seeds(
    bars, quick, kept, monkeypatch
):
    made = []
    monkeypatch.setattr(experiments, "run_parallel", lambda f, jobs, **_: made.extend(jobs))
    study.train_side_by_side(bars, replace(quick, seeds=2), 0, kept)
    assert {job["name"] for job in made} == set(study.further_conditions(quick))
    made.clear()
    study.train_side_by_side(bars, quick, 0)
    assert made == []
