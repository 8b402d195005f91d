from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smallnets.distill.similarity import DistillationObjective, at_loss, distil, kd_loss, sp_loss
from smallnets.models import convnet, wide_resnet
from smallnets.training import ModelOutputs
from smallnets.training.checkpoint import weights_digest


@pytest.mark.parametrize(
    "weights",
    [
        {},
        {"kd": 2},
        {"at": 3},
        {"sp": 5},
        {"ce": 0.1, "kd": 0.9, "sp": 5},
        {"ce": 0, "at": 1, "sp": 1},
    ],
)
def test_the_total_is_the_weighted_sum_of_the_logged_terms(weights):
    generator = torch.Generator().manual_seed(0)
    seen = [
        ModelOutputs(
            torch.randn(6, 4, generator=generator),
            {"a": torch.randn(6, c, 4, 4, generator=generator)},
        )
        for c in (3, 5)
    ]
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    objective = DistillationObjective(**weights, sp_layers=(("a", "a"),), at_layers=(("a", "a"),))
    total, terms = objective(*seen, labels)
    features = seen[0].features["a"], seen[1].features["a"]
    expected = {
        "ce": F.cross_entropy(seen[0].logits, labels),
        "kd": kd_loss(seen[0].logits, seen[1].logits, 4.0),
        "sp": sp_loss(*features),
        "at": at_loss(*features),
    }
    used = {name: weight for name, weight in {"ce": 1, **weights}.items() if weight}
    assert terms == {name: expected[name] for name in used}
    torch.testing.assert_close(total, sum(used[name] * expected[name] for name in used))


def test_default_layers_are_the_last_stages_and_all_stages():
    student, teacher = convnet(2, 10), wide_resnet(10, 1, 10)
    full = DistillationObjective(sp=1, at=1).between(student, teacher)
    assert full.sp_layers == (("stage3", "stage3"),)
    assert full.at_layers == tuple((f"stage{i}", f"stage{i}") for i in (1, 2, 3))
    assert full.layers() == (("stage3", "stage1", "stage2"),) * 2
    assert replace(full, at=0).layers() == (("stage3",),) * 2


def test_networks_without_named_stages_need_layers():
    plain = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    with pytest.raises(
        ValueError, match="must be given for a teacher without stage_names; got Sequential"
    ):
        DistillationObjective(sp=1).between(convnet(2, 2), plain)
    explicit = DistillationObjective(sp=1, sp_layers=(("stage3", "1"),))
    assert explicit.between(convnet(2, 2), plain) == explicit


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sp": -1}, "sp must be at least 0; got -1"),
        ({"ce": 0}, "the sum of the weights ce, kd, sp, at must be greater than 0; got 0"),
        ({"temperature": 0}, "temperature must be greater than 0; got 0"),
        ({"normalise": "l1"}, "normalise must be one of row, frobenius, cosine, none; got 'l1'"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011, the whole message is compared
        DistillationObjective(**settings)
    assert str(error.value).startswith(message)


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


def test_the_teacher_stays_bit_for_bit_and_no_hook_is_left(digits, quick):
    teacher, student = convnet(4, 10, 1), convnet(2, 10, 1)
    teacher.train()
    before, start = weights_digest(teacher.state_dict()), weights_digest(student.state_dict())
    history = distil(
        {"both": student}, teacher, digits, {"both": DistillationObjective(kd=1, sp=10, at=1)},
        quick, seed=0,
    )  # fmt: skip
    assert weights_digest(teacher.state_dict()) == before
    assert weights_digest(student.state_dict()) != start
    assert hooks(teacher) == hooks(student) == 0
    assert set(history[0]) == {"loss", "both/ce", "both/kd", "both/sp", "both/at"}
    assert not any(parameter.requires_grad is False for parameter in teacher.parameters())


def test_students_of_other_families_need_no_adaptation(digits, quick):
    students = {"wide": wide_resnet(10, 1, 10, 1), "plain": convnet(3, 10, 1, norm="none")}
    objectives = dict.fromkeys(students, DistillationObjective(sp=10))
    history = distil(students, convnet(4, 10, 1), digits, objectives, quick, seed=0)
    assert all(np.isfinite(value) for value in history[-1].values())


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (
            convnet(2, 10, 1),
            convnet(2, 10, 3),
            r"^teacher does not take images of shape \(1, 16, 16\)",
        ),
        (
            convnet(2, 10, 3),
            convnet(2, 10, 1),
            r"^student 's' does not take .* shape \(1, 16, 16\)",
        ),
        (convnet(2, 10, 1), convnet(2, 7, 1), "^teacher has 7 classes; the dataset has 10"),
        (convnet(2, 12, 1), convnet(2, 10, 1), "^student 's' has 12 classes; the dataset has 10"),
        (
            convnet(2, 10, 1),
            nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 10)),  # made for other images
            r"^teacher does not take .* shape \(1, 16, 16\)",
        ),
    ],
)
def test_networks_that_do_not_fit_are_named_before_training(
    digits, quick, student, teacher, message
):
    start = weights_digest(student.state_dict())
    with pytest.raises(ValueError, match=message) as error:
        distil(
            {"s": student},
            teacher,
            digits,
            {"s": DistillationObjective(kd=1)},
            quick,
            seed=0,
        )
    assert "\n" not in str(error.value)
    assert weights_digest(student.state_dict()) == start


@pytest.mark.parametrize(
    ("objectives", "settings", "message"),
    [
        ({"other": DistillationObjective()}, {}, r"got students \['s'\], objectives \['other'\]"),
        (
            {"s": DistillationObjective(sp=1)},
            {"batch_size": 1},
            "batch_size must be at least 2 .* got 1",
        ),
        (
            {"s": DistillationObjective(sp=1, sp_layers=(("stage9", "stage3"),))},
            {},
            "names must be among .*stage3.*; got 'stage9'",
        ),
    ],
)
def test_wrong_requests_are_named_before_training(digits, quick, objectives, settings, message):
    with pytest.raises(ValueError, match=message):
        distil(
            {"s": convnet(2, 10, 1)}, convnet(2, 10, 1), digits, objectives,
            replace(quick, **settings), seed=0,
        )  # fmt: skip
