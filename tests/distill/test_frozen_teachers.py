"""A teacher that arrives in training mode answers as in evaluation, and no bit of it moves."""

import copy
from dataclasses import replace

import pytest
import torch

from smallnets.data import load
from smallnets.distill.fidelity import Ensemble, Objective, distill_from_ensemble
from smallnets.distill.matching import FunctionMatching, Matching, match
from smallnets.distill.similarity import DistillationObjective, distil
from smallnets.distill.similarity.objective import JointDistillation
from smallnets.models import cifar_resnet
from smallnets.search.lana import (
    FineTuning,
    ReplaceableLayers,
    build_pool,
    distil_candidates,
    fine_tune,
)
from smallnets.training import Batch, JointModels, TrainSettings, seeded
from smallnets.training.checkpoint import weights_digest

QUICK = TrainSettings(epochs=1, batch_size=32, lr=0.05, device="cpu", precision="32-true")


@pytest.fixture(scope="module")
def digits():
    return load("digits").take(64, 20)


def network(seed):
    """A residual network with BatchNorm statistics that are not those of the images."""
    with seeded(seed):
        built = cifar_resnet(8, 10, 1, width=2)
        built.train()(torch.rand(16, 1, 16, 16))
    return built


def similarity(student, teacher, data):
    ask = DistillationObjective(kd=1, sp=10)
    return distil({"s": student}, teacher, data, {"s": ask}, QUICK, seed=0)


def imitation(student, teacher, data):
    return distill_from_ensemble(
        {"s": student}, Ensemble([teacher]), data, {"s": Objective()}, QUICK, seed=0
    )


def matching(student, teacher, data):
    return match(student, teacher, data, Matching(resolution=16), QUICK, seed=0)


def fixed_matching(student, teacher, data):
    return match(student, teacher, data, Matching(view="fix/cc", resolution=16), QUICK, seed=0)


def tuning(student, teacher, data):
    return fine_tune(student, teacher, data, QUICK, seed=0, alpha=0.9)


@pytest.mark.parametrize("method", [similarity, imitation, matching, fixed_matching, tuning])
def test_teachers_in_training_mode_answer_as_in_evaluation(digits, method):
    teacher, ends = network(1), []
    before = weights_digest(teacher.state_dict())
    for mode in (True, False):
        student = network(2)
        method(student, teacher.train(mode), digits)
        ends.append(weights_digest(student.state_dict()))
        assert weights_digest(teacher.state_dict()) == before
    assert ends[0] == ends[1]
    assert ends[0] != weights_digest(network(2).state_dict())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_candidates_learn_from_a_teacher_in_evaluation(digits):
    names = ("stage1.0", "stage2.0", "stage3.0")
    before, losses = weights_digest(network(1).state_dict()), []
    for mode in (True, False):
        layered = ReplaceableLayers(network(1).eval(), names, digits.for_choosing(2).images)
        with seeded(0):
            pool = build_pool(layered, ("dwsep3",))
        layered.network.train(mode)
        losses.append(distil_candidates(layered, pool, digits, QUICK, seed=0))
        assert weights_digest(layered.network.state_dict()) == before
        assert all(parameter.grad is None for parameter in layered.network.parameters())
    for one, other in zip(*losses, strict=True):
        assert one.tolist() == other.tolist()


def test_objectives_wake_no_teacher(digits):
    """Called on their own, as a loop of somebody's own does."""
    images, labels = digits.for_choosing(32)
    noise = torch.Generator().manual_seed(0)
    teacher, student = network(1), network(2)
    before = weights_digest(teacher.state_dict())
    joint = JointModels({"s": copy.deepcopy(student)}, {"s": ()})
    for objective, model in (
        (JointDistillation(teacher, {"s": DistillationObjective(kd=1)}), joint),
        (FunctionMatching((teacher,), replace(Matching(), resolution=16)), student),
        (FineTuning(teacher), student),
    ):
        objective(model, Batch(images, labels, torch.arange(32), noise))["loss"].backward()
        assert weights_digest(teacher.state_dict()) == before
        assert all(parameter.grad is None for parameter in teacher.parameters())
        teacher.train()


def test_statistics_of_a_student_are_those_of_its_own_pass(digits):
    """BatchNorm of a student sees the student's features, once a step."""
    student = network(2)
    one = replace(QUICK, batch_size=64)
    steps = student.norm.num_batches_tracked.item()
    distil(
        {"s": student}, network(1).eval(), digits, {"s": DistillationObjective(kd=1)}, one, seed=0
    )
    assert student.norm.num_batches_tracked.item() == steps + 1
