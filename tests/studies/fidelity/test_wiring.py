"""What a condition is called is what is trained: networks, images, losses and rates by name.

The trainings themselves are left out; what they would be given is looked at.
"""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from smallnets.data import load
from smallnets.studies import fidelity
from smallnets.studies.networks import build_network
from smallnets.training import TrainSettings
from smallnets.training.checkpoint import weights_digest

QUICK = TrainSettings(epochs=4, batch_size=16, lr=0.1, device="cpu", precision="32-true")


def digest(network):
    return weights_digest(network.state_dict())


@pytest.fixture(scope="module")
def digits():
    return load("digits").take(96, 40)


def as_bytes(images):
    return [image.numpy().tobytes() for image in images]


@pytest.fixture
def imitated(monkeypatch):
    """Chapter 03 without trainings: `teachers` and `students` are what would be trained."""
    seen = SimpleNamespace(teachers=[], students={})

    def train(name, dataset, training, seed, cache_dir=None, **_):
        seen.teachers.append(SimpleNamespace(dataset=dataset, training=training, seed=seed))
        return build_network(name, dataset, seed).eval()

    def distil(students, teacher, dataset, objectives, training, **given):
        for name, network in students.items():
            seen.students[name] = SimpleNamespace(
                dataset=dataset, training=training, objective=objectives[name],
                start=digest(network), members=teacher.members, **given,
            )  # fmt: skip
            network.eval()

    monkeypatch.setattr("smallnets.studies.fidelity.students.train_network", train)
    for module in ("students", "experiments", "near"):
        place = f"smallnets.studies.fidelity.{module}.distill_from_ensemble"
        monkeypatch.setattr(place, distil)
    return seen


@pytest.fixture
def of_03():
    return replace(
        fidelity.PRESETS["smoke"], network="convnet-2", others=("convnet-3",), teaching=QUICK,
        training=QUICK, foreign=None, temperature=2.0,
    )  # fmt: skip


def test_ensembles_differ_in_members_and_temperature(digits, of_03, imitated):
    settings = replace(of_03, members=(1, 2), temperatures=(2.0, 4.0))
    outcome = fidelity.ensembles(digits, settings, 3)
    plain = imitated.students.pop("student")
    assert (plain.objective.temperature, len(plain.members)) == (2.0, 1)
    asked = {name: one.objective for name, one in imitated.students.items()}
    assert {name: (one.members, one.temperature) for name, one in asked.items()} == {
        "m = 2, τ = 2": (2, 2.0), "m = 1, τ = 4": (1, 4.0), "m = 2, τ = 4": (2, 4.0),
    }  # fmt: skip
    every = [plain, *imitated.students.values()]
    assert {one.start for one in every} == {digest(build_network("convnet-2", digits, 3))}
    assert {one.seed for one in every} == {3}
    assert set(outcome.measures) == set(asked) | {"m = 1, τ = 2"}


def test_halves_of_the_images_are_the_teachers_own_and_the_others(digits, of_03, imitated):
    fidelity.recycled(digits, of_03, 0)
    (teacher,) = imitated.teachers
    own = as_bytes(teacher.dataset.x_train)
    shown = {name: as_bytes(one.dataset.x_train) for name, one in imitated.students.items()}
    assert shown["D0"] == own
    assert not set(own) & set(shown["D1"])
    assert shown["D0 and D1"] == as_bytes(digits.x_train)
    assert sorted(own + shown["D1"]) == sorted(shown["D0 and D1"])
    for one in imitated.students.values():
        assert torch.equal(one.dataset.mean, teacher.dataset.mean), (
            "pixels as the teacher knows them"
        )
        assert one.objective.temperature == 2.0


def test_more_and_more_unlabelled_images(digits, of_03, imitated):
    fidelity.growing(digits, replace(of_03, labelled=0.25, amounts=(1, 4)), 0)
    (teacher,) = imitated.teachers
    assert as_bytes(teacher.dataset.x_train) == as_bytes(digits.x_train[:24])
    assert teacher.training.augmentation.crop == 0
    for name, one in imitated.students.items():
        assert as_bytes(one.dataset.x_train) == as_bytes(digits.x_train[: int(name)])
        assert torch.equal(one.dataset.mean, teacher.dataset.mean)
        assert one.training.augmentation.crop == 0
    assert list(imitated.students) == ["24", "96"]


def test_every_target_is_the_one_of_its_name(digits, of_03, imitated):
    fidelity.targets(digits, replace(of_03, alphas=(0.1, 0.7)), 0)
    found = {name: one.objective for name, one in imitated.students.items()}
    assert {name: (one.loss, one.alpha) for name, one in found.items()} == {
        "student": ("soft", 0.0), "α = 0.1": ("soft", 0.1), "α = 0.7": ("soft", 0.7),
        **{name: (name, 0.0) for name in
           ("symmetric", "reverse", "hard", "mixed", "brier", "logit")},
    }  # fmt: skip
    assert {one.temperature for one in found.values()} == {2.0}


def test_every_optimiser_has_its_rate_and_length(digits, of_03, imitated):
    fidelity.optimisers(digits, replace(of_03, lengths=(0.5, 1.0), adam_lr=0.002), 0)
    found = {name: one.training for name, one in imitated.students.items()}
    assert {name: (one.optimizer, one.lr, one.epochs) for name, one in found.items()} == {
        "SGD, 2 epochs": ("sgd", 0.1, 2), "student": ("sgd", 0.1, 4),
        "Adam, 2 epochs": ("adam", 0.002, 2), "Adam, 4 epochs": ("adam", 0.002, 4),
    }  # fmt: skip


def test_every_capacity_is_the_network_of_its_name(digits, of_03, imitated):
    fidelity.capacities(digits, of_03, 1)
    assert {name: one.start for name, one in imitated.students.items()} == {
        name: digest(build_network(network, digits, 1))
        for name, network in (("convnet-3", "convnet-3"), ("student", "convnet-2"))
    }


def test_every_policy_shows_its_own_view(digits, of_03, imitated):
    fidelity.data_policies(digits, of_03, 0)
    views = {name: one.training.augmentation for name, one in imitated.students.items()}
    assert views.pop("student") == QUICK.augmentation, "of the baseline"
    assert views["none"].crop == 0
    assert views["rotation"].rotation == 20
    assert views["MixUp"].mixing
    assert views["noise"].noise > 0
    first = views["generated"].extra
    fidelity.data_policies(digits, of_03, 1)
    other = imitated.students["generated"].training.augmentation.extra
    assert first.shape == other.shape == digits.x_train.shape
    assert not torch.equal(first, other), "images are made anew for every seed"


def test_near_starts_have_the_rates_of_their_names(digits, of_03, imitated):
    found = fidelity.near_teacher(digits, replace(of_03, lams=(0.25, 0.5)), 0)
    rates = {name: one.training.lr for name, one in imitated.students.items()}
    assert rates == pytest.approx({
        "λ = 0": 0.1, "teacher's first weights": 0.1, "λ = 0.25, full rate": 0.1,
        "λ = 0.5, full rate": 0.1, "λ = 0.25": 0.075, "random, rate of λ = 0.25": 0.075,
        "λ = 0.5": 0.05, "random, rate of λ = 0.5": 0.05,
    })  # fmt: skip
    starts = {name: one.start for name, one in imitated.students.items()}
    random = digest(build_network("convnet-2", digits, 0, norm=of_03.near_norm))
    assert {name for name, one in starts.items() if one == random} == {
        "λ = 0", "random, rate of λ = 0.25", "random, rate of λ = 0.5",
    }  # fmt: skip
    assert starts["λ = 0.5"] == starts["λ = 0.5, full rate"] != starts["λ = 0.25"]
    assert set(found) == set(rates)


def test_starts_are_judged_before_their_training(digits, of_03, monkeypatch):
    class Numbers:
        def __init__(self, *_):
            pass

        def __call__(self, student):
            return {"accuracy": float(student)}

        def agreement_before(self, start):
            return float(start)

    pairs = {"λ = 0": fidelity.StartAndEnd(1, 2)}
    monkeypatch.setattr("smallnets.studies.fidelity.near.train_from_starts",
                        lambda *_: (None, pairs))  # fmt: skip
    monkeypatch.setattr("smallnets.studies.fidelity.near.StudentEvaluator", Numbers)
    assert fidelity.near_teacher(digits, of_03, 0) == {
        "λ = 0": {"accuracy": 2, "start agreement": 1}
    }


def test_statistics_of_near_starts_are_those_of_training_images(digits, of_03, imitated):
    _, found = fidelity.train_from_starts(digits, replace(of_03, lams=(0.5,)), 0)
    start, teacher = (found[name].start for name in ("λ = 0.5", "λ = 0"))
    norms = [
        next(m for m in one.modules() if isinstance(m, torch.nn.BatchNorm2d))
        for one in (start, teacher)
    ]
    assert norms[0].running_mean.abs().max() > 0
    assert norms[1].running_mean.abs().max() == 0, "a random start has seen nothing"


def test_another_teachers_stages_are_another_networks(digits, of_03, imitated):
    found = fidelity.representations(digits, of_03, 0)
    assert [one.seed for one in imitated.teachers] == [1000, 1001]
    assert found["another teacher"] != found["student"]
    assert all(value < 0.9999 for value in found["another teacher"].values())


def test_the_control_is_a_student_of_another_seed():
    same = torch.eye(4)
    outcomes = [
        fidelity.Outcome({"m": {"agreement": 1.0}}, {"m": logits}, {"m": logits}, {})
        for logits in (same, same.roll(1, 1))
    ]
    assert [one["m"]["control"] for one in fidelity.with_control(outcomes)] == [0, 0]
