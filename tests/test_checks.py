"""Numbers as users have them: Python's and NumPy's are one, truth values are none."""

import json
from dataclasses import asdict, dataclass, fields
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from smallnets import checks, measure
from smallnets.data import Augmentation
from smallnets.distill.classic import kd_loss
from smallnets.distill.matching import Matching
from smallnets.quantize.genie import ReconstructionSettings
from smallnets.training import TrainSettings


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.int32(3)])
def test_numpy_whole_numbers_are_whole_numbers(value):
    assert checks.whole("n", value, 1) == 3


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float64(0.5), np.float16(0.5)])
def test_numpy_numbers_are_numbers(value):
    assert checks.above("x", value, 0) == 0.5
    assert checks.at_least("x", value, 0.5) == 0.5
    assert checks.between("x", value, 0, 1) == 0.5


@pytest.mark.parametrize("value", [True, np.True_, "1", None, 1j, torch.tensor(1), Fraction(1, 2)])
def test_what_is_no_number_is_said_to_be_none(value):
    for check, bounds in ((checks.above, (0,)), (checks.at_least, (0,)), (checks.between, (0, 2))):
        with pytest.raises(ValueError, match=r"^x must be a number; got "):
            check("x", value, *bounds)
    with pytest.raises(ValueError, match=r"^x must be a whole number of at least 0; got "):
        checks.whole("x", value, 0)


@pytest.mark.parametrize("value", [np.float32(-1), np.float64("nan"), np.float32("inf")])
def test_numpy_numbers_out_of_range_are_shown_as_numbers(value):
    with pytest.raises(ValueError, match=r"; got (-1\.0|nan|inf)$"):
        checks.above("x", value, 0)


def test_lists_of_numbers_may_be_arrays():
    checks.each("widths", np.arange(1, 4), checks.whole, 1)
    with pytest.raises(ValueError, match="widths must hold at least one number; got none"):
        checks.each("widths", np.arange(0), checks.whole, 1)
    with pytest.raises(ValueError, match="every one of widths must be at least 1; got 0"):
        checks.each("widths", np.arange(3), checks.whole, 1)


@pytest.mark.parametrize("value", [10, None, ["a"], np.arange(2)])
def test_what_is_no_name_is_not_among_the_names(value):
    with pytest.raises(ValueError, match="dataset must be one of a, b; got "):
        checks.one_of("dataset", value, {"a": 1, "b": 2})


def test_fields_become_plain():
    @dataclass(frozen=True)
    class Settings:
        count: int
        steps: tuple[int, ...]
        names: list[str]
        shape: tuple[int, ...]
        size: torch.Size

    made = Settings(np.int64(3), (np.int64(1), 2.5), [np.str_("a")], np.arange(2), torch.Size([1]))
    checks.plain_fields(made)
    assert repr(made.count) == "3"
    assert repr(made.steps) == "(1, 2.5)"
    assert repr(made.names) == "['a']"
    assert repr(made.shape) == "(0, 1)"
    assert repr(made.size) == "torch.Size([1])"
    assert json.loads(json.dumps(asdict(made)))["count"] == 3


@pytest.mark.parametrize("kind", [TrainSettings, Augmentation, Matching, ReconstructionSettings])
def test_settings_from_numpy_are_those_from_python(kind):
    plain = kind()
    numpy = {}
    for field in fields(kind):
        value = getattr(plain, field.name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            numpy[field.name] = np.asarray(value)[()]
    assert len(numpy) > 1
    assert repr(kind(**numpy)) == repr(plain)


def test_a_loss_takes_a_numpy_temperature():
    student = torch.randn(2, 3, requires_grad=True)
    teacher = torch.randn(2, 3)
    loss = kd_loss(student, teacher, np.float32(4))
    loss.backward()
    assert loss.item() == pytest.approx(kd_loss(student, teacher, 4.0).item())


@pytest.mark.parametrize("shape", [np.array((3, 8, 8)), [3, 8, 8], torch.Size((3, 8, 8))])
def test_shapes_may_be_arrays_lists_and_sizes(shape):
    assert measure.macs(nn.Conv2d(3, 2, 1), shape) == 2 * 3 * 64
