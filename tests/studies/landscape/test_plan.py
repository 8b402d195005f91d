"""Presets, what a reader may ask for, and what is refused."""

from dataclasses import replace

import pytest

from smallnets.studies import landscape as study
from smallnets.studies.landscape.plan import narrower
from smallnets.studies.landscape.structural import width_of


def test_evidence_has_every_question_and_small_a_few():
    evidence, small = study.PRESETS["evidence"], study.PRESETS["small"]
    assert evidence.seeds == 8
    assert evidence.table
    assert set(study.core_conditions(small)) < set(study.core_conditions(evidence))
    for settings in study.PRESETS.values():
        assert not set(study.core_conditions(settings)) & set(study.further_conditions(settings))


def test_all_trainings_of_quantised_networks_are_in_float32():
    for settings in study.PRESETS.values():
        how = (settings.training, settings.tuning, settings.short)
        assert {one.precision for one in how} == {"32-true"}


def test_preparing_puts_what_was_asked_for_in_place():
    options = study.Options(
        seeds=2, epochs=80, train=300, bits=(1, 2, 4, 6), table=False, resolution=8,
        network="convnet-8",
    )  # fmt: skip
    data, settings = study.prepare("digits", "small", options)
    assert (settings.train, settings.seeds, data.size) == (300, 2, (8, 8))
    assert (settings.bits, settings.network, settings.table) == ((6, 4, 2, 1), "convnet-8", False)
    assert (settings.training.epochs, settings.tuning.epochs) == (80, 8)
    assert study.further_conditions(settings) == {}
    assert (settings.slow_epochs, settings.ticket_epochs, settings.anew_epochs) == (18, 20, 0)


def test_no_more_images_are_for_choosing_than_there_are():
    _, settings = study.prepare("digits", "small", study.Options(train=120))
    assert settings.calibration == 120


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": "big"}, "scale must be one of smoke, small, evidence, paper; got 'big'"),
        ({"seeds": 0}, "seeds must be at least 1; got 0"),
        ({"epochs": 0}, "epochs must be at least 1; got 0"),
        ({"train": 60}, "number of training images must be at least 80; got 60"),
        ({"bits": (8, 4)}, r"bits must contain 4, 2 and 1, .*; got \(8, 4\)"),
        ({"bits": (4, 2, 0)}, "bits must be at least 1; got 0"),
        ({"bits": (32, 4, 2, 1)}, "the largest of bits must be between 1 and 16; got 32"),
        ({"bits": ()}, "bits must hold at least one number; got none"),
        ({"bits": 4}, "bits must be a list of widths; got 4"),
        ({"table": "yes"}, "table must be True or False; got 'yes'"),
        ({"bits": (True, 4, 2)}, "bits must be a whole number"),
        ({"network": "resnet-20"}, "network must be convnet-WIDTH, .*; got 'resnet-20'"),
        ({"network": "bit-50-1"}, "network must be convnet-WIDTH, .*; got 'bit-50-1'"),
        ({"network": "lenet-5"}, "network must be convnet-WIDTH, .*; got 'lenet-5'"),
        ({"resolution": 6}, "resolution must be at least 8; got 6"),
    ],
)
def test_what_cannot_be_run_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        study.prepare("digits", arguments.pop("scale", "smoke"), study.Options(**arguments))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sparsities": (0.5,)}, "sparsities must contain 0.8; got"),
        ({"sparsities": (0.8, 1.2)}, "sparsities must be between 0.05 and 0.99; got 1.2"),
        ({"cuts": (0.3,)}, "cuts must contain 0.5; got"),
        ({"designs": ("fire",)}, "designs must contain 'separable'; got"),
        (
            {"designs": ("separable", "lego")},
            "every one of designs must be one of dense, .*; got 'lego'",
        ),
        ({"named_bits": (4,)}, "named_bits 2, which are compared"),
        ({"rank_cost": 0}, "rank_cost must be between 0.05 and 1; got 0"),
        ({"rounds": 0}, "rounds must be at least 1; got 0"),
        ({"factors": (1,)}, "factors must be at least 2; got 1"),
        ({"factors": (2, 16)}, "the largest of factors must be between 2 and 8; got 16"),
        (
            {"controls": ("none",)},
            "every one of controls must be one of drawn anew, .*; got 'none'",
        ),
        ({"slow_epochs": 0}, "slow_epochs must be at least 1; got 0"),
        ({"pull": 0}, "pull must be greater than 0; got 0"),
        ({"anew_epochs": -1}, "anew_epochs must be at least 0; got -1"),
        ({"batches": ()}, "batches"),
        ({"passes": 0}, "passes must be at least 1; got 0"),
        ({"calibration": 1}, "calibration must be at least 2; got 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(study.PRESETS["smoke"], **changes)


def test_narrower_networks_have_a_width_of_their_own():
    assert narrower("resnet-8-12", 2) == "resnet-8-6"
    assert narrower("wrn-16-1", 4) == "wrn-16-1"
    assert narrower("convnet-9", 2) == "convnet-4"


def test_designs_are_as_wide_as_the_first_stage_of_the_dense_network():
    assert width_of("resnet-8-12") == 12
    assert width_of("wrn-16-4") == 64
    assert width_of("resnet-8-2") == 4
