"""The roofline, with numbers that need no clock; times are only looked at for their form."""

import pytest
import torch
from torch import nn

from smallnets.deploy import onnx_runtime
from smallnets.deploy.crossover import Crossover, LayerRace, int8_crossover
from smallnets.deploy.reading import measure_side_by_side
from smallnets.deploy.roofline import (
    Machine,
    Placed,
    measure_machine,
    place,
    predict,
    rank_agreement,
)
from smallnets.measure import Latency
from smallnets.measure.layers import layer_sizes
from smallnets.quantize import modules as q

NET = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Flatten(), nn.Linear(64, 3))
SHAPE = (2, 4, 4)


def test_time_is_what_takes_longer():
    layers = layer_sizes(NET, SHAPE)
    slow = Machine(peak=100, bandwidth=1e9)
    found = predict(layers, slow, batch=2)
    assert [one.macs for one in found] == [2 * 128, 2 * 192]
    assert [one.seconds for one in found] == [2.56, 3.84]
    assert {one.bound for one in found} == {"arithmetic"}
    far = Machine(peak=1e12, bandwidth=4)
    found = predict(layers, far, batch=2)
    moved = [12 + 2 * (32 + 64), 195 + 2 * (64 + 3)]
    assert [one.bytes for one in found] == [4 * one for one in moved]
    assert [one.seconds for one in found] == moved
    assert {one.bound for one in found} == {"memory"}
    few = predict(layers, far, bits={"0": (8, 8)})
    assert few[0].bytes == 12 + 96
    assert far.ridge == 2.5e11
    assert slow.roof(1e-9) == 1
    assert slow.roof(1e9) == 100


def test_variants_on_the_roofline():
    machine = Machine(1e9, 1e9)
    file = onnx_runtime.export(NET, SHAPE)
    few = q.quantize_model(NET, "lsq", "affine", weight_bits=4, activation_bits=4, skip=())
    q.calibrate(few.eval(), torch.rand(3, *SHAPE))
    networks = {"file": file, "torch": NET, "4 bits": few}
    found = place(networks, machine, SHAPE, warm_up=1, rounds=2)
    assert [one.name for one in found] == list(networks)
    assert found[0].macs == found[1].macs == 320
    assert found[0].predicted == pytest.approx(found[1].predicted)
    assert found[2].intensity == found[1].intensity  # torch computes in floating point all the same
    for one in found:
        assert one.predicted > 0
        assert one.speed == one.macs / one.measured
        assert 0 <= one.memory_bound <= 1
    measured = measure_side_by_side(networks, SHAPE, batches=(1,), threads=(1,), rounds=1)
    again = place(networks, machine, SHAPE, measured=measured)
    assert again[1].measured == measured["torch"].latency[1, 1].median
    with pytest.raises(ValueError, match="measured must have file with batch 2 and 1 threads"):
        place(networks, machine, SHAPE, batch=2, measured=measured)
    with pytest.raises(ValueError, match="input_shape must be given"):
        place({"torch": NET}, machine, measured=measured)


def placed(name, macs, predicted, measured):
    return Placed(name, 1.0, macs, predicted, measured, measured, measured, 0.0)


def test_orders_agree_or_not():
    found = rank_agreement([placed("a", 1, 1, 1), placed("b", 3, 2, 2), placed("c", 2, 3, 3)])
    assert found == {"macs": pytest.approx(1 / 3), "predicted": 1}
    with pytest.raises(ValueError, match="number of networks must be at least 2; got 1"):
        rank_agreement([placed("a", 1, 1, 1)])


def test_this_machine_has_a_roof():
    found = measure_machine(side=64, megabytes=1, warm_up=1, rounds=2)
    assert found.peak > 0
    assert found.bandwidth > 0
    before = torch.get_num_threads()
    measure_machine(2, side=8, megabytes=1, warm_up=1, rounds=1)
    assert torch.get_num_threads() == before
    for bad, message in (
        ({"side": 0}, "side must be at least 1; got 0"),
        ({"megabytes": 1.5}, "megabytes must be a whole number"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"rounds": 0}, "rounds must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            measure_machine(**{"megabytes": 1, "side": 8, **bad})
    with pytest.raises(ValueError, match="peak must be greater than 0; got -1"):
        Machine(-1, 1)
    with pytest.raises(ValueError, match="bandwidth must be greater than 0; got nan"):
        Machine(1, float("nan"))


def race(channels, float32, int8):
    def latency(median):
        return Latency(median, 0.9 * median, 1.1 * median, 1, 1, 1, 1)

    return LayerRace(channels, channels, latency(float32), latency(int8))


def test_integers_win_from_the_size_after_which_they_never_lose():
    races = (race(8, 1, 0.5), race(16, 1, 1.5), race(32, 1, 0.7), race(64, 3, 1))
    assert Crossover("3x3", races, False).wins_from == 32
    assert Crossover("3x3", races[:2], False).wins_from is None
    assert Crossover("3x3", (race(8, 1, 0.95),), False).wins_from is None
    assert races[3].speedup == 3


@pytest.mark.parametrize("kind", ["3x3", "1x1", "depthwise", "linear"])
def test_races_of_layers(kind):
    found = int8_crossover([2, 4], kind=kind, side=4, depth=2, warm_up=1, rounds=2)
    assert [one.channels for one in found.races] == [2, 4]
    wanted = {"3x3": 2 * 16 * 9 * 4, "1x1": 2 * 16 * 4, "depthwise": 2 * 16 * 9 * 2, "linear": 8}
    assert found.races[0].macs == wanted[kind]
    assert found.races[0].int8.runs == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "5x5"}, "kind must be one of 3x3, 1x1, depthwise, linear; got '5x5'"),
        ({"channels": [8, 4]}, r"channels must rise; got \[8, 4\]"),
        ({"channels": []}, "channels must hold at least one number; got none"),
        ({"channels": [True]}, "every one of channels must be a whole number"),
        ({"side": 0}, "side must be at least 1; got 0"),
        ({"depth": 1}, "depth must be at least 2; got 1"),
    ],
)
def test_races_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        int8_crossover(**{"channels": [2], **settings})
