"""Students under an ensemble: who teaches whom, and who is left alone."""

import copy
from dataclasses import replace

import pytest
import torch

from smallnets import measure
from smallnets.distill.fidelity import (
    Ensemble,
    Objective,
    Policy,
    Reduced,
    distill_from_ensemble,
    ensemble_log_probs,
    member_divergence,
    soft_cross_entropy,
)
from smallnets.studies.networks import build_network
from smallnets.training.checkpoint import weights_digest


def doubles(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def asked(student, teacher, temperature):
    return soft_cross_entropy(
        student_logits=student, teacher_logits=teacher, temperature=temperature
    )


def test_an_ensemble_answers_member_by_member_and_reduced_as_one(digits):
    members = [build_network("convnet-4", digits, seed).eval() for seed in (0, 1, 2)]
    images = digits.normalise(digits.x_test[:5])
    asked = Ensemble(members)(images)
    assert asked.shape == (5, 3, 10)
    assert torch.equal(asked[:, 1], members[1](images))
    assert torch.equal(Reduced(Ensemble(members))(images), ensemble_log_probs(asked))


def test_an_objective_listens_to_its_members_at_its_temperature():
    members, student, labels = doubles(0, 6, 3, 4), doubles(1, 6, 4), torch.arange(6) % 4
    first = Objective(members=1, temperature=3.0)(student, members, labels)
    assert first.item() == pytest.approx(asked(student, members[:, 0], 3.0).item())
    every = Objective(temperature=3.0)(student, members, labels)
    whole = ensemble_log_probs(members)
    assert every.item() == pytest.approx(asked(student, whole, 3.0).item())
    each = Objective(loss="members", members=2)(student, members, labels)
    expected = member_divergence(student_logits=student, member_logits=members[:, :2])
    assert each.item() == pytest.approx(expected.item())


def test_rows_that_were_made_up_have_a_temperature_of_their_own_and_no_label():
    members, student, labels = doubles(0, 6, 1, 4), doubles(1, 6, 4), torch.arange(6) % 4
    mixed = Objective(temperature=4.0, synthetic_temperature=1.0)
    found = mixed(student, members, labels, synthetic=2).item()
    parts = [
        4 * asked(student[:4], members[:4, 0], 4.0),
        2 * asked(student[4:], members[4:, 0], 1.0),
    ]
    assert found == pytest.approx((sum(parts) / 6).item(), rel=1e-6)
    labelled = Objective(alpha=0.5)
    wrong = torch.cat([labels[:4], torch.tensor([3, 3])])
    one, other = (labelled(student, members, y, synthetic=2).item() for y in (labels, wrong))
    assert one == other


def test_students_of_a_cohort_learn_as_they_would_alone_and_the_teacher_stays(digits, quick):
    teacher = Ensemble(
        [build_network("convnet-4", digits, 7), build_network("convnet-4", digits, 8)]
    )
    before = weights_digest(teacher.state_dict())
    objectives = {"one": Objective(members=1), "both": Objective(temperature=4.0)}
    together = {name: build_network("convnet-4", digits, 0) for name in objectives}
    log = distill_from_ensemble(together, teacher, digits, objectives, quick, seed=0)
    assert set(log[0]) == {"loss", "one", "both"}
    alone = {"both": build_network("convnet-4", digits, 0)}
    distill_from_ensemble(alone, teacher, digits, {"both": objectives["both"]}, quick, seed=0)
    assert weights_digest(alone["both"].state_dict()) == weights_digest(
        together["both"].state_dict()
    )
    assert weights_digest(teacher.state_dict()) == before
    assert all(weight.grad is None for weight in teacher.parameters())


def test_imitation_brings_the_student_to_its_teacher(digits, quick):
    teacher = build_network("convnet-4", digits, 7).eval()
    training = replace(quick, epochs=20, lr=0.05)
    student = build_network("convnet-4", digits, 0).eval()
    images = digits.normalise(digits.x_test)

    def gap():
        return measure.predictive_kl(
            student_logits=measure.predict(student, images),
            teacher_logits=measure.predict(teacher, images),
        )

    start = gap()
    distill_from_ensemble(
        {"s": student}, Ensemble([teacher]), digits, {"s": Objective()}, training, seed=0
    )
    assert gap() < 0.5 * start


def test_labels_of_extra_images_are_not_learnt(digits, quick):
    extra = digits.x_test[:20]
    view = Policy(crop=0, extra=extra, share=0.5)
    training = replace(quick, augmentation=view, epochs=1)
    teacher = Ensemble([build_network("convnet-4", digits, 7)])
    found = []
    for _ in range(2):
        student = {"s": build_network("convnet-4", digits, 0)}
        objectives = {"s": Objective(alpha=0.3)}
        distill_from_ensemble(student, teacher, digits, objectives, training, seed=0)
        found.append(weights_digest(student["s"].state_dict()))
    assert found[0] == found[1]


def other_extras(digits, value):
    return Policy(crop=0, extra=torch.full_like(digits.x_test[:4], value), share=0.5)


def test_other_extra_images_are_another_training(digits, quick, tmp_path):
    teacher = Ensemble([build_network("convnet-4", digits, 7)])
    for value in (0, 200, 0):
        training = replace(quick, augmentation=other_extras(digits, value), epochs=1)
        student = {"s": build_network("convnet-4", digits, 0)}
        distill_from_ensemble(
            student, teacher, digits, {"s": Objective()}, training, seed=0, cache_dir=tmp_path
        )
    assert len(list(tmp_path.glob("imitation-*.safetensors"))) == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"members": 0}, "members must be at least 1; got 0"),
        ({"temperature": 0.0}, "temperature must be greater than 0; got 0.0"),
        ({"synthetic_temperature": -1.0}, "synthetic_temperature must be greater than 0; got -1"),
        ({"alpha": 1.0}, "alpha must be at least 0 and less than 1; got 1.0"),
        ({"loss": "l2"}, "loss must be one of soft, .*, members; got 'l2'"),
        ({"loss": "members", "alpha": 0.5}, "alpha must be 0 for the loss 'members'; got 0.5"),
    ],
)
def test_wrong_objectives_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Objective(**fields)


def test_what_does_not_fit_is_refused_before_training(digits, quick):
    network = build_network("convnet-4", digits, 0)
    teacher = Ensemble([copy.deepcopy(network)])
    five = digits.classes(range(5))
    blended = replace(quick, augmentation=Policy(crop=0, mixing=True))
    for students, objectives, data, training, message in (
        ({}, {}, digits, quick, r"got students \[\], objectives \[\]"),
        ({"a": network}, {"b": Objective()}, digits, quick, "needs an objective"),
        (
            {"a": network}, {"a": Objective(members=2)}, digits, quick,
            "members of 'a' must be between 1 and 1; got 2",
        ),
        (
            {"a": network}, {"a": Objective(alpha=0.1)}, digits, blended,
            "alpha of 'a' must be 0 where images are blended; got 0.1",
        ),
        (
            {"a": network}, {"a": Objective()}, five, quick,
            "teacher has 10 classes; the dataset has 5",
        ),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            distill_from_ensemble(students, teacher, data, objectives, training, seed=0)
    with pytest.raises(ValueError, match="number of members must be at least 1; got 0"):
        Ensemble([])
    with pytest.raises(ValueError, match=r"members must have the same classes; got \[10, 5\]"):
        Ensemble([network, build_network("convnet-4", five, 0)])(torch.zeros(2, 1, 8, 8))
