"""Sizes of experiments are checked when they are made, not when they are used."""

from dataclasses import replace

import pytest

from smallnets.distill.matching import Matching
from smallnets.studies import fidelity, similarity
from smallnets.studies import matching as study


@pytest.mark.parametrize(
    ("presets", "changes", "message"),
    [
        (similarity.PRESETS, {"seeds": 0}, "seeds must be at least 1; got 0"),
        (similarity.PRESETS, {"gammas": ()}, "gammas must hold at least one number; got none"),
        (
            similarity.PRESETS,
            {"betas": (1, -1)},
            "every one of betas must be greater than 0; got -1",
        ),
        (
            similarity.PRESETS,
            {"alphas": (0.5, 2)},
            "every one of alphas must be between 0 and 1; got 2",
        ),
        (fidelity.PRESETS, {"members": (0,)}, "every one of members must be at least 1; got 0"),
        (fidelity.PRESETS, {"lams": (2.0,)}, "every one of lams must be between 0 and 1; got 2.0"),
        (fidelity.PRESETS, {"share": -0.1}, "share must be between 0 and 1; got -0.1"),
        (study.PRESETS, {"lengths": ()}, "lengths must hold at least one number; got none"),
        (
            study.PRESETS,
            {"rates": (float("inf"),)},
            "every one of rates must be finite; got inf",
        ),
        (study.PRESETS, {"warmup": 1.5}, "warmup must be between 0 and 1; got 1.5"),
    ],
)
def test_sizes_out_of_range_are_named(presets, changes, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011, the whole message is compared
        replace(presets["small"], **changes)
    assert str(error.value) == message


def test_a_student_is_checked():
    ask = study.PRESETS["small"].matching
    with pytest.raises(ValueError, match=r"optimizer must be one of sgd, .*; got 'sgdd'"):
        study.StudentConfig(ask, 1, optimizer="sgdd")
    with pytest.raises(ValueError, match="lr must be greater than 0; got -1"):
        study.StudentConfig(ask, 1, lr=-1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"area": (0.9, 0.1)}, "upper end of area must be between 0.9 and 1; got 0.1"),
        ({"aspect": (-1, 2)}, "aspect must be greater than 0; got -1"),
        ({"alpha": float("inf")}, "alpha must be finite; got inf"),
        ({"teacher_resolution": (8, 0)}, "teacher_resolution must be at least 1; got 0"),
    ],
)
def test_what_is_asked_is_checked(changes, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011, the whole message is compared
        Matching(**changes)
    assert str(error.value) == message
