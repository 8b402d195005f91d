"""What a condition is called is what is trained: networks, images, losses and rates by name.

The trainings themselves are left out; what they would be given is looked at.
"""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from smallnets.data import load
from smallnets.distill.fidelity import EnsembleDistillation
from smallnets.studies import fidelity as study
from smallnets.studies.fidelity import students
from smallnets.studies.networks import build_network
from smallnets.studies.seeds import member_seed
from smallnets.training import TrainSettings
from smallnets.training.checkpoint import weights_digest

QUICK = TrainSettings(epochs=4, batch_size=16, lr=0.1, device="cpu", precision="32-true")


def digest(network):
    return weights_digest(network.state_dict())


def as_bytes(images):
    return [image.numpy().tobytes() for image in images]


@pytest.fixture(scope="module")
def digits():
    return load("digits").take(96, 40)


@pytest.fixture
def settings():
    return replace(
        study.PRESETS["smoke"], network="convnet-2", others=("convnet-3",), teaching=QUICK,
        training=QUICK, foreign=None, temperature=2.0, views=None, adam_lr=0.002, few=0.5,
    )  # fmt: skip


@pytest.fixture
def trained(digits, settings, monkeypatch):
    """trained(name) -> what the student of a name would be trained with."""
    seen = []

    def fit(network, dataset, training, *, seed, objective, label, cache_dir):
        whole = network.members[0] if label == "student" else network
        seen.append(SimpleNamespace(
            dataset=dataset, training=training, seed=seed, label=label, watched=objective,
            objective=objective.objective, start=digest(whole),
        ))  # fmt: skip
        return [{"train": 0.0, "test": 0.0}]

    monkeypatch.setattr(students, "fit", fit)

    def of(name, seed=0):
        every = study.core_conditions(settings) | study.further_conditions(settings)
        study.train_student(digits, settings, seed, every[name])
        assert isinstance(seen[-1].objective, EnsembleDistillation)
        return seen[-1]

    return of


def random_start(digits, seed=0):
    return digest(build_network("convnet-2", digits, seed))


def taught_by(one):
    return [digest(member) for member in one.objective.teacher.members]


def teachers(digits, *members):
    """As they are before their training, which is left out here."""
    return [digest(build_network("convnet-2", digits, member_seed(0, n))) for n in members]


def test_the_student_and_the_stranger_differ_in_their_teacher_only(digits, trained):
    student, stranger = trained("student"), trained("stranger")
    assert taught_by(student) == teachers(digits, 0)
    assert taught_by(stranger) == teachers(digits, 1)
    assert student.start == stranger.start == random_start(digits)
    assert student.training == stranger.training
    assert as_bytes(student.dataset.x_train) == as_bytes(stranger.dataset.x_train)
    ask = student.objective.objectives["student"]
    assert (ask.temperature, ask.alpha, ask.loss, ask.members) == (2.0, 0, "soft", None)


def test_images_are_the_teachers_own_fresh_both_or_few(digits, trained):
    own = study.own_images(digits, 0)
    shown = {
        name: trained(name).dataset
        for name in ("student", "fresh images", "own and fresh images", "few images")
    }
    images = {name: set(as_bytes(one.x_train)) for name, one in shown.items()}
    assert images["student"] == set(as_bytes(own.x_train))
    assert not images["student"] & images["fresh images"]
    assert images["own and fresh images"] == images["student"] | images["fresh images"]
    assert images["few images"] < images["student"]
    assert len(shown["few images"].y_train) == 24
    for one in shown.values():
        assert torch.equal(one.mean, own.mean), "pixels as the teacher knows them"
    assert images["student"] != set(as_bytes(study.own_images(digits, 1).x_train))


def test_all_see_as_many_steps_but_those_of_another_length(trained):
    steps = {
        name: one.training.epochs * (len(one.dataset.y_train) // one.training.batch_size)
        for name in ("student", "few images", "own and fresh images", "long", "0.25 x as long")
        for one in [trained(name)]
    }
    assert steps == {
        "student": 12, "few images": 12, "own and fresh images": 24, "long": 24,
        "0.25 x as long": 3,
    }  # fmt: skip


def test_near_starts_have_the_weights_and_rates_of_their_names(digits, settings, trained):
    lam = f"λ = {settings.lam:g}"
    names = [lam, f"{lam}, another teacher", f"random, rate of {lam}", f"{lam}, full rate"]
    own, another, random, full = (trained(name) for name in names)
    reduced = pytest.approx(0.1 * (1 - settings.lam))
    assert [one.training.lr for one in (own, another, random)] == [reduced] * 3
    assert full.training.lr == 0.1
    assert random.start == random_start(digits)
    assert own.start == full.start
    assert len({own.start, another.start, random.start}) == 3
    assert all(taught_by(one) == teachers(digits, 0) for one in (own, another, random))
    first = trained("teacher's first weights")
    assert [first.start] == teachers(digits, 0)
    assert first.training.lr == 0.1
    assert trained("λ = 0.25").training.lr == pytest.approx(0.075)


def test_weights_of_a_start_lie_between_and_its_statistics_are_those_of_training_images(
    digits, settings, monkeypatch
):
    monkeypatch.setattr(students, "fit", lambda *_, **__: [])
    begins = students.start_of(digits, settings, 0, study.near(0.5, "another teacher"))
    a = build_network("convnet-2", digits, member_seed(0, 1))
    b = build_network("convnet-2", digits, 0)
    for mixed, one, other in zip(begins.parameters(), a.parameters(), b.parameters(), strict=True):
        assert torch.allclose(mixed, (one + other) / 2, atol=1e-6)
    norm = next(m for m in begins.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert norm.running_mean.abs().max() > 0


def test_every_target_optimiser_and_size_is_the_one_of_its_name(digits, trained):
    asked = {name: trained(name).objective.objectives["student"]
             for name in ("α = 0.5", "α = 0.1", "symmetric", "τ = 4", "m = 2")}  # fmt: skip
    assert {name: one.alpha for name, one in asked.items() if one.alpha} == {
        "α = 0.5": 0.5, "α = 0.1": 0.1,
    }  # fmt: skip
    assert asked["symmetric"].loss == "symmetric"
    assert (asked["τ = 4"].temperature, asked["m = 2"].members) == (4.0, 2)
    assert taught_by(trained("m = 2")) == teachers(digits, 0, 1)
    adam = trained("Adam").training
    assert (adam.optimizer, adam.lr) == ("adam", 0.002)
    wider = trained("convnet-3")
    assert wider.start == digest(build_network("convnet-3", digits, 0))


def test_every_policy_shows_its_own_view(digits, trained):
    views = {name: trained(name).training.augmentation
             for name in ("none", "rotation", "MixUp", "noise", "generated")}  # fmt: skip
    assert trained("student").training.augmentation == QUICK.view
    assert trained("few images").training.augmentation.crop == 0
    assert views["none"].crop == 0
    assert views["rotation"].rotation == 20
    assert views["MixUp"].mixing
    assert views["noise"].noise > 0
    assert trained("generated").objective.share == views["generated"].share > 0
    other = trained("generated", seed=1).training.augmentation
    assert views["generated"].extra.shape == other.extra.shape
    assert not torch.equal(views["generated"].extra, other.extra), "made anew for every seed"


def test_a_training_is_watched_with_the_teachers_answers(digits, trained):
    one = trained("student")
    own = study.own_images(digits, 0)
    (teacher,) = one.objective.teacher.members
    for part, images in (("train", own.x_train), ("test", own.x_test)):
        asked = one.watched.parts[part]
        assert torch.equal(asked.images, own.normalise(images))
        expected = study.logits_of(teacher.eval(), own, images).argmax(1)
        assert torch.equal(asked.answers, expected)
