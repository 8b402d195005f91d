"""Student and teacher where they are not alike: a swap of the two is noticed."""

import numpy as np
import pytest
import torch

from smallnets import measure
from smallnets.data import load
from smallnets.distill.fidelity import FidelityMeter, Objective, overlap
from smallnets.distill.matching import Answers, evaluate_student, kl_distance
from smallnets.distill.matching import measures as matching_measures
from smallnets.distill.similarity import measures as similarity_measures
from smallnets.losses import kl_divergence
from smallnets.quantize.genie import calibrate, quantize
from smallnets.search.lana.tuning import tuning_loss
from smallnets.studies.fidelity.experiments import compared
from smallnets.studies.fidelity.students import on_test, seen_images
from smallnets.studies.genie.experiments import evaluate_quantised
from smallnets.studies.networks import build_network
from smallnets.training import TrainSettings


def kl_by_hand(teacher, student):
    """KL(teacher || student) in nats, mean over the batch."""
    t, s = (np.asarray(logits.detach(), dtype=float) for logits in (teacher, student))
    p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (t, s))
    return float((p * np.log(p / q)).sum(1).mean())


@pytest.fixture
def pair():
    """A sure teacher and an unsure student, (12, 5) each, and labels."""
    generator = torch.Generator().manual_seed(0)
    teacher, student = torch.randn(2, 12, 5, generator=generator)
    return 4 * teacher, student, torch.arange(12) % 5


def test_divergences_run_from_teacher_to_student(pair):
    teacher, student, labels = pair
    wanted = kl_by_hand(teacher, student)
    assert abs(wanted - kl_by_hand(student, teacher)) > 1
    both = {"student_logits": student, "teacher_logits": teacher}
    found = {
        "loss": kl_divergence(**both).item(),
        "measure": measure.predictive_kl(**both),
        "meter": FidelityMeter().update(**both, labels=labels).compute()["kl"],
        "distance": kl_distance(**both).mean().item(),
        "tuning": tuning_loss(**both, labels=labels, alpha=1.0).item(),
    }
    assert found == pytest.approx(dict.fromkeys(found, wanted), rel=1e-5)


def test_the_factor_of_the_temperature_is_its_square(pair):
    teacher, student, labels = pair
    both = {"student_logits": student, "teacher_logits": teacher}
    wanted = 9 * kl_by_hand(teacher / 3, student / 3)
    assert kl_distance(**both, temperature=3.0).mean().item() == pytest.approx(wanted, rel=1e-5)
    tuned = tuning_loss(**both, labels=labels, alpha=1.0, temperature=3.0)
    assert tuned.item() == pytest.approx(wanted, rel=1e-5)


def test_fidelity_pulls_the_student_to_its_teacher(pair):
    teacher, student, labels = pair
    student = student.clone().requires_grad_()
    loss = Objective(temperature=2.0)(
        student_logits=student, member_logits=teacher[:, None], labels=labels
    )
    loss.backward()
    step = (student / 2).softmax(1) - (teacher / 2).softmax(1)
    torch.testing.assert_close(student.grad, 2 * step / len(labels), rtol=1e-4, atol=1e-6)


def test_the_meter_knows_who_is_who(pair):
    teacher, student, _ = pair
    found = FidelityMeter().update(
        teacher_logits=teacher, student_logits=student, labels=teacher.argmax(1)
    )
    measured = found.compute()
    assert measured["teacher accuracy"] == 1 > measured["accuracy"]
    shares = overlap(teacher_logits=teacher, student_logits=student, labels=teacher.argmax(1))
    assert shares["only the student right"] == 0 < shares["only the teacher right"]


def test_a_matched_student_is_measured_in_its_own_name(pair):
    teacher, student, _ = pair
    features = torch.randn(12, 3, generator=torch.Generator().manual_seed(1))
    seen = {"student": student.flip(0), "teacher": teacher.roll(1, 0)}
    found = evaluate_student(
        student=Answers(student, features),
        teacher=Answers(teacher, features),
        labels=student.argmax(1),
        seen=(seen["student"], seen["teacher"]),
    )
    assert found["accuracy"] == 1
    assert found["kl"] == pytest.approx(kl_by_hand(teacher, student))
    assert found["kl train"] == pytest.approx(kl_by_hand(seen["teacher"], seen["student"]))
    assert found["l2 train"] == pytest.approx(
        (seen["student"] - seen["teacher"]).square().sum(1).mean().item(), rel=1e-5
    )
    for name, logits in (("entropy", student), ("entropy train", seen["student"])):
        surprise = -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean().item()
        assert found[name] == pytest.approx(surprise, rel=1e-5)


@pytest.fixture(scope="module")
def digits():
    return load("digits").take(96, 60)


@pytest.fixture(scope="module")
def networks(digits):
    """A sure teacher and an unsure student, untrained."""
    teacher, student = (build_network("convnet-4", digits, seed).eval() for seed in (1, 2))
    teacher.classifier.weight.data *= 20
    return {"teacher": teacher, "student": student}


def logits_of(networks, images):
    return [measure.predict(networks[name], images) for name in ("teacher", "student")]


def test_students_of_an_ensemble_are_judged_against_it(digits, networks):
    training = TrainSettings(epochs=1, batch_size=32)
    viewed = seen_images(digits, training.view, 32, 600)
    found = compared(networks["student"], networks["teacher"], on_test(digits), viewed)
    test = logits_of(networks, digits.normalise(digits.x_test))
    seen = logits_of(networks, viewed)
    assert found["kl"] == pytest.approx(kl_by_hand(*test), rel=1e-5)
    assert found["train kl"] == pytest.approx(kl_by_hand(*seen), rel=1e-5)
    assert found["accuracy"] == measure.accuracy(test[1], digits.y_test)
    assert found["train agreement"] == measure.agreement(*seen)


def test_students_of_the_rooms_are_judged_on_test_images(digits, networks):
    test = logits_of(networks, digits.normalise(digits.x_test))
    found = similarity_measures(networks, digits, 32)["student"]
    assert found["kl"] == pytest.approx(kl_by_hand(*test), rel=1e-4)
    assert found["accuracy"] == measure.accuracy(test[1], digits.y_test)
    matched = matching_measures(networks, digits, dict.fromkeys(networks, 16), probe=30)
    seen = logits_of(networks, digits.normalise(digits.x_train[:30]))
    assert matched["student"]["kl"] == pytest.approx(kl_by_hand(*test), rel=1e-4)
    assert matched["student"]["kl train"] == pytest.approx(kl_by_hand(*seen), rel=1e-4)
    assert matched["student"]["accuracy"] == measure.accuracy(test[1], digits.y_test)


def test_quantised_networks_are_measured_against_their_original(digits, networks):
    network = networks["teacher"]
    rough = calibrate(quantize(network, 2, 4, mode="nearest"), digits.for_choosing(32).images)
    found = evaluate_quantised(network, rough, digits)
    images = digits.normalise(digits.x_test)
    exact, rounded = measure.predict(network, images), measure.predict(rough, images)
    wanted = kl_by_hand(exact, rounded)
    assert abs(wanted - kl_by_hand(rounded, exact)) > 0.01 * wanted
    assert found["KL"] == pytest.approx(wanted, rel=1e-4)
    assert found["accuracy"] == measure.accuracy(rounded, digits.y_test)
