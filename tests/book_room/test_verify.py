"""The comparison of a fresh record with a stored one: what it catches, and what it forgives."""

import copy
import json

import numpy as np
import pytest
from click.testing import CliRunner

from smallnets.book.verify import flattened, problems
from smallnets.cli import cli

HERE, THERE = {"instructions": "AVX512"}, {"instructions": "AVX2"}


def record(arithmetic=HERE, spread=0.02, shift=0.0, seed=0):
    chance = np.random.default_rng(seed)
    means = {"alone": 0.5, "SP": 0.6}
    return {
        "chapter": "02",
        "dataset": "glyphs10",
        "scale": "small",
        "seeds": [0, 1, 2, 3],
        "parameters": {"epochs": None},
        "arithmetic": arithmetic,
        "measurements": {
            "accuracy": {
                name: (mean + shift + spread * chance.standard_normal(4)).tolist()
                for name, mean in means.items()
            },
            "curves": [[0.1 * i + shift + 0.01 * s for i in range(3)] for s in range(4)],
            "agreement": [{"Kendall": 0.9 + 0.01 * s, "other": 0.5 + 0.01 * s} for s in range(4)],
            "chosen weight": 250.0,
            "bytes": 51754,
            "lengths": [3, 10],
        },
    }


def test_a_run_confirms_itself_in_any_arithmetic():
    assert problems(record(), record()) == []
    assert problems(record(THERE), record()) == []


def test_every_measurement_has_a_name_and_seeds_in_front():
    names = dict(flattened(record()["measurements"]))
    assert names["accuracy/SP"].shape == (4,)
    assert names["curves"].shape == (4, 3)
    assert names["agreement/Kendall"].shape == (4,)
    assert names["bytes"].shape == ()


def test_swapped_seeds_are_caught_in_the_same_arithmetic_and_forgiven_in_another():
    swapped = copy.deepcopy(record())
    swapped["measurements"]["accuracy"]["SP"].reverse()
    (line,) = problems(swapped, record())
    assert line.startswith("accuracy/SP: ")
    assert problems({**swapped, "arithmetic": THERE}, record()) == []


def test_a_fifth_digit_is_rounding_and_a_third_is_not():
    off = copy.deepcopy(record())
    off["measurements"]["accuracy"]["SP"][0] *= 1 + 2e-5
    assert problems(off, record()) == []
    off["measurements"]["accuracy"]["SP"][0] *= 1 + 2e-3
    assert len(problems(off, record())) == 1


def test_other_seeds_of_one_experiment_agree_and_a_shift_is_caught():
    wrong = [bool(problems(record(THERE, seed=seed), record())) for seed in range(200)]
    assert np.mean(wrong) < 0.02
    caught = [bool(problems(record(THERE, seed=seed, shift=0.2), record())) for seed in range(50)]
    assert np.mean(caught) > 0.95


def test_a_shift_of_one_point_of_a_curve_is_caught_elsewhere():
    off = record(THERE)
    for curve in off["measurements"]["curves"]:
        curve[1] += 0.5
    (line,) = problems(off, record())
    assert line == "curves: mean 0.615 instead of 0.115, more than 0.054 apart"


def few(arithmetic, values):
    """A record of one seed."""
    measured = {"accuracy": {f"network {place}": [value] for place, value in enumerate(values)}}
    return {**record(arithmetic), "seeds": [0], "measurements": measured}


def test_trainings_of_one_seed_may_drift_and_may_not_all_be_worse():
    stored = few(HERE, [0.74, 0.72, 0.7, 0.3])
    assert problems(few(THERE, [0.72, 0.75, 0.69, 0.42]), stored) == [], "one of them drifts"
    lines = problems(few(THERE, [0.66, 0.64, 0.62, 0.22]), stored)
    assert lines == ["accuracy: of few seeds, half are 0.08 or more apart"]
    assert problems(few(THERE, [0.8, 0.78, 0.76, 0.36]), stored) == [], "less than 0.05 x sqrt 2"
    lines = problems(few(THERE, [np.nan] * 4), stored)
    assert len(lines) == 5, "what is no number confirms nothing"
    lines = problems(few(THERE, [0.74, 0.72, 0.7, 0.8]), stored)
    assert lines == ["accuracy/network 3: 0.5 apart"]


def two(arithmetic, first, second):
    """A record of two seeds, each with a teacher that all its networks have in common."""
    made = few(arithmetic, first)
    pairs = zip(first, second, strict=True)
    accuracy = {f"network {place}": list(pair) for place, pair in enumerate(pairs)}
    return {**made, "seeds": [0, 1], "measurements": {"accuracy": accuracy}}


STEADY = [0.74, 0.72, 0.7, 0.3]


def moved(values, by):
    return [value + by for value in values]


def test_means_of_two_seeds_may_be_as_far_apart_as_the_seeds_are():
    apart, together = moved(STEADY, -0.09), moved(STEADY, 0.01)
    stored = two(HERE, STEADY, apart)
    assert problems(two(THERE, together, together), stored) == [], "0.055 apart, as seeds may be"
    assert problems(two(HERE, STEADY, apart), two(THERE, together, together)) == []
    lines = problems(two(THERE, together, together), two(HERE, moved(STEADY, -0.045), apart))
    assert lines == ["accuracy: of few seeds, half are 0.078 or more apart"], "at 0.045"


def test_seeds_that_disagree_do_not_excuse_a_network_that_fell_to_chance():
    stored, chance = two(HERE, STEADY, STEADY), [0.1] * 4
    lines = problems(two(THERE, STEADY, chance), stored)
    assert lines == ["accuracy: of few seeds, half are 0.3 or more apart"]
    assert len(problems(two(THERE, [np.nan] * 4, STEADY), stored)) == 5


@pytest.mark.parametrize("arithmetic", [HERE, THERE])
def test_counts_names_and_sizes_must_be_the_same_everywhere(arithmetic):
    fresh = record(arithmetic)
    fresh["measurements"]["bytes"] += 1
    fresh["measurements"]["lengths"] = [3, 11]
    del fresh["measurements"]["accuracy"]["alone"]
    fresh["measurements"]["accuracy"]["KD"] = [0.5] * 4
    fresh["measurements"]["accuracy"]["SP"].pop()
    assert problems(fresh, record()) == [
        "accuracy/KD is not in the stored record",
        "accuracy/SP: shape (3,) instead of (4,)",
        "accuracy/alone was not measured",
        "bytes: 51755 instead of 51754",
        "lengths: [3, 11] instead of [3, 10]",
    ]


def test_what_is_counted_in_trained_networks_is_a_measurement():
    stored, fresh = record(), record()
    stored["measurements"]["classes named"] = {"chelsea": [8, 9, 8, 7], "blank": [1, 1, 1, 1]}
    fresh["measurements"]["classes named"] = {"chelsea": [9, 8, 8, 8], "blank": [1, 1, 1, 1]}
    assert problems(fresh, stored) == [
        "classes named/chelsea: [9, 8, 8, 8] instead of [8, 9, 8, 7]"
    ]
    assert problems({**fresh, "arithmetic": THERE}, stored) == []
    fresh["measurements"]["classes named"] = {"chelsea": [2, 1, 2, 2], "blank": [2, 2, 2, 2]}
    lines = problems({**fresh, "arithmetic": THERE}, stored)
    assert [line.split(":")[0] for line in lines] == [
        "classes named/blank",
        "classes named/chelsea",
    ]


def test_a_count_of_one_seed_is_compared_in_the_same_arithmetic_only():
    stored, fresh = few(HERE, STEADY), few(HERE, STEADY)
    for one, classes, size in ((stored, 8, 51754), (fresh, 9, 51755)):
        one["measurements"] |= {"classes named": [classes], "bytes": size}
    size = "bytes: 51755 instead of 51754"
    assert problems(fresh, stored) == [size, "classes named: [9] instead of [8]"]
    assert problems({**fresh, "arithmetic": THERE}, stored) == [size], "a size stays exact"


@pytest.mark.parametrize("arithmetic", [HERE, THERE])
def test_what_a_clock_said_must_be_there_and_need_not_be_the_same(arithmetic):
    stored, fresh = record(), record(arithmetic)
    stored["measurements"]["timed gain"] = {"PyTorch": [1.7], "ONNX": [3.1], "other": [1.0]}
    fresh["measurements"]["timed gain"] = {"PyTorch": [1.2], "ONNX": [4.0], "other": [0.1]}
    assert problems(fresh, stored) == []
    fresh["measurements"]["timed gain"] = {"PyTorch": [], "ONNX": [np.nan]}
    assert problems(fresh, stored) == [
        "timed gain/ONNX: nan instead of numbers",
        "timed gain/PyTorch: shape (0,) instead of (1,)",
        "timed gain/other was not measured",
    ]


def test_a_choice_of_one_number_is_compared_in_the_same_arithmetic_only():
    fresh = record()
    fresh["measurements"]["chosen weight"] = 1000.0
    assert problems(fresh, record()) == ["chosen weight: 1000 instead of 250"]
    assert problems({**fresh, "arithmetic": THERE}, record()) == []


def test_an_empty_or_broken_run_confirms_nothing():
    assert len(problems({**record(THERE), "measurements": {}}, record())) == 8
    broken = record(THERE)
    broken["measurements"]["accuracy"]["SP"] = [float("nan")] * 4
    assert [line.split(":")[0] for line in problems(broken, record())] == ["accuracy/SP"]


def test_other_questions_are_not_compared():
    other = {**record(), "scale": "smoke", "seeds": [0]}
    assert problems(other, record()) == [
        "scale: smoke was run, small is stored",
        "seeds: [0] was run, [0, 1, 2, 3] is stored",
    ]


def test_another_setting_is_caught_whatever_came_of_it():
    made = {**record(), "settings": {"train": 100, "training": {"lr": 0.01, "epochs": 3}}}
    other = copy.deepcopy(made)
    assert problems({**other, "arithmetic": THERE}, made) == []
    other["settings"]["training"]["lr"] = 0.1
    assert problems(other, made) == ["settings/training/lr: 0.1 was run, 0.01 is stored"]


def test_the_command_prints_what_differs_and_exits_with_1(tmp_path):
    stem = "02_similarity_preserving"
    (tmp_path / "chapters").mkdir()
    (tmp_path / "chapters" / f"{stem}.ipynb").touch()
    stored = tmp_path / "chapters" / f"{stem}.record.json"
    fresh = tmp_path / "runs" / stem / f"{stem}.record.json"
    fresh.parent.mkdir(parents=True)
    stored.write_text(json.dumps(record()))

    def call():
        folders = ["--chapters", tmp_path / "chapters", "--output-dir", tmp_path / "runs"]
        return CliRunner().invoke(cli, ["verify", "02", *map(str, folders)])

    absent = call()
    assert isinstance(absent.exception, ValueError)
    assert "run chapter 02 first" in str(absent.exception)
    fresh.write_text(json.dumps(record(THERE)))
    confirmed = call()
    assert confirmed.exit_code == 0
    assert confirmed.output == "02: 8 measurements, in another arithmetic: confirmed\n"
    fresh.write_text(json.dumps(record(THERE, shift=0.5)))
    refused = call()
    assert refused.exit_code == 1
    assert "accuracy/SP: mean" in refused.output
