import json
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from smallnets.search.lana import (
    LatencyTable,
    Pool,
    ReplaceableLayers,
    interleaved_latency,
    measure_table,
)
from smallnets.search.lana.latency import _keys
from smallnets.studies.lana.experiments import Timing


class Sleeper(nn.Module):
    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def forward(self, x):
        time.sleep(self.seconds)
        return x


@pytest.fixture
def table(layered, pool):
    return measure_table(layered, pool, batch=2, rounds=2)[0]


def test_timings_are_those_of_a_clock_in_milliseconds():
    things = {name: (Sleeper(s), torch.zeros(1)) for name, s in (("a", 0.004), ("b", 0.012))}
    found = interleaved_latency(things, rounds=3, block=1.0)
    assert 4 <= found["a"].median < 1000, "nobody sleeps less than asked, and a busy machine more"
    assert 12 <= found["b"].median < 1000
    assert all(t.low <= t.median <= t.high for t in found.values())


def test_things_are_timed_in_turns():
    order = []

    class Noting(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, x):
            order.append(self.name)
            time.sleep(0.002)
            return x

    things = {name: (Noting(name), torch.zeros(1)) for name in "abc"}
    interleaved_latency(things, rounds=8, block=1.0)
    rounds = ["".join(order[-3 * one - 3 : len(order) - 3 * one]) for one in range(8)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds), "in turns"
    assert len(set(rounds)) > 2, "none is always behind the same other one"


def test_threads_and_modes_come_back():
    network = nn.Sequential(nn.Dropout(), nn.Linear(2, 2)).train()
    before = torch.get_num_threads()
    interleaved_latency({"n": (network, torch.rand(1, 2))}, rounds=1, block=0.1)
    assert torch.get_num_threads() == before
    assert network.training


def test_a_table_has_a_row_a_layer(table, layered, pool):
    rows = table.rows(layered, pool)
    assert [len(row) for row in rows] == [len(names) for names in pool.names]
    assert rows[0][1] == 0  # the identity, exactly
    assert min(value for row in rows for value in row[2:]) > 0
    assert table.fixed(layered) > 0
    assert table.covers(layered, pool)


def test_layers_of_one_kind_share_an_entry():
    from smallnets.models import cifar_resnet
    from smallnets.search.lana import ReplaceableLayers, build_pool

    network = cifar_resnet(14, 10, 1, width=4).eval()
    names = ("stage1.0", "stage1.1", "stage2.0", "stage2.1")
    layered = ReplaceableLayers(network, names, torch.zeros(2, 1, 8, 8))
    pool = build_pool(layered, ("conv1",))
    table, _ = measure_table(layered, pool, batch=1, rounds=1)
    assert len(table.entries) == 3 * 2 + 1
    rows = table.rows(layered, pool)
    assert rows[0].tolist() == rows[1].tolist()


class Slow(nn.Module):
    """As many weights as a convolution of 1 x 1, and some milliseconds more."""

    def __init__(self, seconds, keeper=None):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(4))
        self.seconds = seconds
        self.keeper = keeper

    def forward(self, x):
        time.sleep(self.seconds)
        return torch.einsum("oc,nchw->nohw", self.weight, x)


@pytest.mark.parametrize("keeper", [None, threading.Lock()])
def test_layers_of_one_size_and_another_structure_have_entries_of_their_own(keeper):
    layers = [Slow(0.001, keeper), Slow(0.006, keeper)]
    network = nn.Sequential(nn.Conv2d(3, 4, 1), *layers).eval()
    layered = ReplaceableLayers(network, ("1", "2"), torch.rand(1, 3, 4, 4))
    pool = Pool([{"mine": nn.Conv2d(4, 4, 3, padding=d, dilation=d)} for d in (1, 2)])
    if keeper is None:
        table, _ = measure_table(layered, pool, batch=1, rounds=2)
        quick, slow = table.rows(layered, pool)
        assert slow[0] >= 6, "as long as it sleeps"
        assert slow[0] != quick[0], "one entry for both"
        assert len(table.entries) == 2 * 2 + 1
        other = ReplaceableLayers(
            nn.Sequential(network[0], layers[1], layers[1].__class__(0.03)).eval(), ("1", "2"),
            layered.example,
        )  # fmt: skip
        assert not table.covers(other, pool)
    else:
        keys = _keys(layered, pool)
        assert keys[0][0] != keys[1][0], "what has no name shares nothing"
        table, _ = measure_table(layered, pool, batch=1, rounds=1)
        assert len(table.rows(layered, pool)) == 2
        assert not table.covers(layered, pool), "nor with the same layer of another network"


def test_another_fixed_part_of_equal_size_has_another_entry():
    def around(act):
        network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), act).eval()
        return ReplaceableLayers(network, ("1",), torch.rand(1, 3, 4, 4))

    pool = Pool([{}])
    table, _ = measure_table(around(nn.ReLU()), pool, batch=1, rounds=1)
    assert table.covers(around(nn.ReLU()), pool)
    assert not table.covers(around(nn.Softmax(1)), pool)


def test_networks_are_timed_beside_the_entries(layered, pool):
    table, whole = measure_table(
        layered, pool, batch=2, rounds=2, networks={"teacher": layered.network}
    )
    assert set(whole) == {"teacher"}
    assert whole["teacher"].median > table.fixed(layered)
    assert not any(key.startswith("network") for key in table.entries)


def test_the_fixed_part_does_not_run_the_layers(layered, pool):
    calls = []
    for layer in layered.layers:
        layer.conv1.register_forward_hook(lambda *_: calls.append(1))
    table, _ = measure_table(layered, pool.part([]), batch=1, rounds=1)
    timed = len(calls)
    table, _ = measure_table(layered, pool.part([]), batch=1, rounds=9)
    assert table.fixed(layered) > 0
    assert timed > 0  # the layers themselves are timed, for the teacher's column


def test_tables_are_written_and_read(table, layered, pool, tmp_path):
    table.save(tmp_path / "table.json")
    again = LatencyTable.load(tmp_path / "table.json")
    assert again == table
    for a, b in zip(again.rows(layered, pool), table.rows(layered, pool), strict=True):
        np.testing.assert_array_equal(a, b)


def test_missing_entries_are_named(table, layered, pool):
    key = next(iter(table.entries))
    table.entries.pop(key)
    assert not table.covers(layered, pool)
    with pytest.raises(
        ValueError, match=r"latency of .* must be measured first; the table lacks it"
    ):
        table.rows(layered, pool)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "damaged.json must be a latency table as save writes it"),
        ("[]", "must be a latency table"),
        ('{"batch": 1}', "must be a latency table"),
    ],
)
def test_files_that_are_no_table_are_refused(tmp_path, content, message):
    path = tmp_path / "damaged.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        LatencyTable.load(path)


def test_negative_latencies_are_refused(tmp_path):
    path = tmp_path / "table.json"
    LatencyTable(1, 1, "cpu", {"conv": Timing(0.1, -0.2, 0.3)}).save(path)
    assert json.loads(path.read_text())["entries"]["conv"] == [0.1, -0.2, 0.3]
    with pytest.raises(ValueError, match="latency of conv must be finite and not negative"):
        LatencyTable.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 0}, "rounds must be at least 1; got 0"),
        ({"block": 0}, "block must be greater than 0; got 0"),
        ({"threads": 0}, "threads must be at least 1; got 0"),
    ],
)
def test_bad_measurements_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        interleaved_latency({"n": (nn.Identity(), torch.rand(1))}, **change)


def test_an_empty_batch_is_refused(layered, pool):
    with pytest.raises(ValueError, match="batch must be at least 1; got 0"):
        measure_table(layered, pool, batch=0)
