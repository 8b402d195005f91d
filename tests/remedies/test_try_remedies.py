"""Remedies on small networks: the table, the files, the front, the budget, and what is kept."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from smallnets import measure
from smallnets.deploy import onnx_runtime
from smallnets.deploy.exporting import TOLERANCES
from smallnets.deploy.reading import measure_onnx
from smallnets.remedies import Budget, Plan, making, remedies, try_remedies, trying
from smallnets.training import TrainSettings, fit, seeded

EVERYTHING = {
    "int8": True, "int8_weights": True, "sparse": (0.8,), "channels": (0.5,), "low_rank": (0.5,),
    "books": (16,), "bits": (8, 4),
}  # fmt: skip


@pytest.fixture
def tried(small, test, train, plan, tmp_path):
    """tried(budget, **fields of the plan) on the small network, without times."""

    def call(budget=None, batches=(), **fields):
        return try_remedies(
            small, test, budget, train=train, plan=plan(**fields), folder=tmp_path / "out",
            batches=batches, rounds=2,
        )  # fmt: skip

    return call


def test_every_family_ends_in_a_file_that_is_measured(tried, small, test, tmp_path):
    before = {name: value.clone() for name, value in small.state_dict().items()}
    found = tried(Budget(bytes=1e9), (1, 3), **EVERYTHING)
    assert not found.refused
    names = [row.name for row in found.rows]
    assert names == [one.name for one in remedies(Plan(**EVERYTHING), True)]
    assert small.training
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())
    assert all(one.grad is None for one in small.parameters())
    original = found["original"]
    logits, labels = measure.predict_with_labels(small, test)
    assert original.accuracy == measure.accuracy(logits, labels)
    assert (original.agreement, found.examples) == (1.0, 48)
    for row in found.rows:
        assert row.path.parent == tmp_path / "out"
        assert row.bytes == row.path.stat().st_size
        assert row.difference <= row.tolerance
        fresh = measure_onnx(row.path, batches=(), rounds=1)
        assert (fresh.macs, fresh.parameters) == (row.macs, row.parameters)
        assert fresh.bit_operations == row.bit_operations
        session = onnx_runtime.load(row.path.read_bytes())
        said = torch.cat([onnx_runtime.predict(session, x) for x, _ in test])
        assert row.accuracy == measure.accuracy(said, labels)
        assert row.agreement == measure.agreement(said, logits)
        assert set(row.latency) == {1, 3}
        assert 0 < row.latency[1].low <= row.latency[1].median <= row.latency[1].high
    assert original.macs == measure.macs(small, (3, 8, 8))
    assert found["int8"].bit_operations * 16 == original.bit_operations
    assert found["int8"].agreement > 0.9
    for name in ("int8", "int8 weights", "code book 16", "sparse 0.8", "4-bit weights, trained"):
        assert found[name].bytes < original.bytes, name
        assert found[name].macs == original.macs, name
    for name in ("channels 0.5 by Taylor FO", "SVD 0.5", "Tucker-2 0.5"):
        assert found[name].macs < original.macs, name
        assert found[f"{name}, trained"].macs < original.macs, name
    assert found["SVD 0.5, trained"].path.read_bytes() != found["SVD 0.5"].path.read_bytes()
    table = found.table()
    assert list(table.index) == names
    assert table.loc["int8", "ms, batch 3"] == 1000 * found["int8"].latency[3].median
    assert (tmp_path / "out" / "table.csv").read_text().count("\n") == len(names) + 1
    assert found.verdict in str(found)
    assert "± " in str(found) or "±" in str(found)


def test_training_helps_what_pruning_has_harmed(small, test, train, plan, tmp_path):
    fit(small, train, TrainSettings(epochs=15, lr=0.1, precision="32-true"), seed=0)
    how = TrainSettings(epochs=15, lr=0.1, precision="32-true")
    found = try_remedies(
        small, test, train=train, folder=tmp_path, batches=(),
        plan=plan(channels=(0.9,), criteria=["magnitude L1"], bits=(2,), training=how),
    )  # fmt: skip
    pruned = found["channels 0.9 by magnitude L1"]
    assert found["original"].accuracy > 0.7
    assert found["channels 0.9 by magnitude L1, trained"].accuracy > pruned.accuracy + 0.2
    assert found["2-bit weights, trained"].accuracy > 0.8


def test_integers_answer_as_their_simulation_does(small, test, train, plan, tmp_path):
    fit(small, train, TrainSettings(epochs=15, lr=0.1, precision="32-true"), seed=0)
    found = try_remedies(small, test, plan=plan(int8=True), folder=tmp_path, batches=())["int8"]
    assert 0 < found.difference < 0.05 < found.tolerance == TOLERANCES["int8"]
    asked = plan(int8=True, int8_tolerance=found.difference / 2)
    refused = try_remedies(small, test, plan=asked, folder=tmp_path, batches=()).refused
    assert "must answer as the network does" in refused["int8"]


def test_the_best_is_within_the_budget(tried):
    fields = {"int8_weights": True, "books": (4,), "channels": (0.5,), "criteria": ("BN scale",)}
    found = tried(Budget(bytes=1e9, macs=1e9), **fields)
    assert found.best.quality == max(row.quality for row in found.rows)
    assert len(found.within) == len(found.rows)
    limit = found["original"].macs - 1
    found = tried(Budget(macs=limit), **fields)
    assert found.best.macs <= limit
    assert {row.macs <= limit for row in found.within} == {True}
    assert f"within {limit:,g} MACs the best is {found.best.name}" in found.verdict
    # The front: nothing that another row beats.
    for row in found.front("bytes"):
        assert not any(
            other.quality >= row.quality and other.bytes < row.bytes for other in found.rows
        )
    assert [row.macs for row in found.front()] == sorted(row.macs for row in found.front())
    with pytest.raises(ValueError, match=r"cost must be one of bytes, macs, milliseconds; got 'x'"):
        found.front("x")
    with pytest.raises(ValueError, match="batch 1 must be timed"):
        found.front("milliseconds")
    with pytest.raises(ValueError, match="remedy must be one of original"):
        found["nothing"]


def test_a_budget_that_nothing_meets_is_one_line_with_the_nearest(tried):
    found = tried(Budget(bytes=100, macs=1e9), int8_weights=True)
    assert found.best is None
    smallest = min(found.rows, key=lambda row: row.bytes)
    assert found.nearest is smallest
    assert found.verdict == (
        f"nothing meets the budget of 100 bytes and 1e+09 MACs: the nearest is {smallest.name}, "
        f"with {smallest.bytes / 100:.3g} times the bytes and accuracy {smallest.accuracy:.1%}, "
        f"{smallest.bytes:,} bytes, {smallest.macs:,} MACs"
    )


def test_without_labels_agreement_takes_the_place_of_accuracy(small, plan, tmp_path):
    draws = torch.Generator().manual_seed(0)
    inputs = [torch.randn(8, 3, 8, 8, generator=draws) for _ in range(3)]
    asked = plan(int8=True, channels=(0.5,))
    for loader in (
        inputs,
        DataLoader(TensorDataset(torch.cat(inputs)), 8),
        lambda: iter(inputs),
        [one.numpy() for one in inputs],
    ):
        found = try_remedies(small, loader, plan=asked, folder=tmp_path, batches=())
        assert (found.quality, found.examples) == ("agreement", 16)  # the first batch calibrates
        assert found["original"].accuracy is None
        assert found["int8"].quality == found["int8"].agreement
        assert found.refused == {
            "channels 0.5 by Taylor FO": "Taylor FO needs labels; the loader gives none"
        }
        assert found.table().loc["channels 0.5 by Taylor FO", "why not"].startswith("Taylor FO")


def test_what_is_made_is_not_made_again(tried, monkeypatch, tmp_path):
    fields = {"int8_weights": True, "books": (16,), "low_rank": (0.5,)}
    tried(**fields)
    files = {path: path.read_bytes() for path in (tmp_path / "out").glob("*.onnx")}
    calls = []
    export = making.export_checked

    def counted(*args, **options):
        calls.append(args)
        return export(*args, **options)

    monkeypatch.setattr(making, "export_checked", counted)
    tried(**fields)
    assert not calls
    assert files == {path: path.read_bytes() for path in (tmp_path / "out").glob("*.onnx")}
    book = tmp_path / "out" / "code-book-16.onnx"
    book.write_bytes(book.read_bytes()[:-40] + bytes(40))
    with pytest.warns(UserWarning, match=r"code-book-16.onnx is damaged .*: made again"):
        found = tried(**fields)
    assert len(calls) == 1
    assert files[book] == book.read_bytes()
    tried(**fields, seed=1)  # another draw of calibration examples
    assert len(calls) == 1 + len(found.rows)


def test_a_run_that_is_stopped_goes_on(tried, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(making.packed, "with_codebook", _stop)
        with pytest.raises(KeyboardInterrupt):
            tried(int8_weights=True, books=(16,))
    made = []
    write = trying._write
    monkeypatch.setattr(
        trying, "_write", lambda path, what: (made.append(path.name), write(path, what))
    )
    tried(int8_weights=True, books=(16,))
    assert made == ["code-book-16.onnx", "table.csv"]


def _stop(*_, **__):
    raise KeyboardInterrupt


def test_a_loader_without_a_name_trains_and_is_not_kept(small, test, train, plan, tmp_path):
    asked = plan(low_rank=(0.5,), int8_weights=True)
    pairs = list(train)
    with pytest.warns(UserWarning, match="what is trained is not kept"):
        found = try_remedies(
            small, test, train=lambda: iter(pairs), folder=tmp_path, batches=(),
            plan=Plan(**vars(asked) | {"training": TrainSettings(epochs=1, schedule="constant")}),
        )  # fmt: skip
    assert not found.refused
    assert not (tmp_path / "trainings").exists()


def test_a_network_without_a_convolution(plan, tmp_path):
    with seeded(0):
        network = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(),
                                nn.Linear(32, 3))  # fmt: skip
    loader = DataLoader(TensorDataset(torch.randn(30, 20), torch.arange(30) % 3), 10)
    fields = EVERYTHING | {"bits": ()}
    found = try_remedies(network, loader, plan=plan(**fields), folder=tmp_path, batches=())
    assert {"int8", "int8 weights", "SVD 0.5", "channels 0.5 by Taylor FO"} <= {
        row.name for row in found.rows
    }
    assert set(found.refused) == {"Tucker-2 0.5", "channels 0.5 by BN scale"}
    assert all("\n" not in why and why for why in found.refused.values())
    with pytest.raises(
        ValueError, match=r"Tucker-2 0\.5 was refused: the network must have a Conv"
    ):
        found["Tucker-2 0.5"]


def test_settings_are_plain_and_checked():
    assert Budget(bytes=10, milliseconds=0.5).limits == {"bytes": 10, "milliseconds": 0.5}
    for fields, line in (
        ({}, "a budget must limit at least one of bytes, macs, milliseconds; got none"),
        ({"bytes": 0}, "bytes must be greater than 0; got 0"),
        ({"macs": True}, "macs must be a number; got True"),
        ({"milliseconds": float("nan")}, "milliseconds must be greater than 0; got nan"),
    ):
        with pytest.raises(ValueError, match=f"^{line}$"):
            Budget(**fields)
    assert Plan(sparse=[0.5]).sparse == (0.5,)
    for fields, line in (
        ({"int8": 1}, "int8 must be True or False; got 1"),
        ({"sparse": 0.5}, "sparse must be a list; got 0.5"),
        ({"sparse": (1.0,)}, "every one of sparse must be between 0 and 0.9"),
        ({"channels": (float("nan"),)}, "every one of channels must be greater than 0; got nan"),
        ({"channels": (0.5, 0.5)}, "channels must hold each value once"),
        ({"criteria": ()}, "criteria must name at least one for channels; got none"),
        ({"criteria": "Taylor FO"}, "criteria must be a list; got 'Taylor FO'"),
        ({"criteria": ("size",)}, "every one of criteria must be one of"),
        ({"low_rank": (0,)}, "every one of low_rank must be greater than 0"),
        ({"books": (1,)}, "every one of books must be at least 2; got 1"),
        ({"books": (512,)}, "every one of books must be between 2 and 256; got 512"),
        ({"bits": (1,)}, "every one of bits must be at least 2"),
        ({"bits": (True,)}, "every one of bits must be a whole number"),
        ({"int8_tolerance": 0}, "int8_tolerance must be greater than 0"),
        ({"training": 3}, "training must be TrainSettings; got int"),
        ({"calibration": 1}, "calibration must be at least 2; got 1"),
        ({"seed": -1}, "seed must be at least 0; got -1"),
    ):
        with pytest.raises(ValueError, match=line):
            Plan(**fields)
