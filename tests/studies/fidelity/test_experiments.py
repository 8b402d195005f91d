"""The measurements: each is what it says, the same twice, and complete."""

from dataclasses import replace

import pytest
import torch

from smallnets import measure as measures
from smallnets.book import Parameters, seed_by_seed
from smallnets.data import Augmentation
from smallnets.distill.fidelity import Objective, distillation_gap
from smallnets.studies.fidelity import (
    PRESETS,
    Condition,
    Options,
    compared,
    core_conditions,
    first_disagreement,
    further_conditions,
    kinds,
    landscape,
    logits_of,
    measure,
    measure_further,
    measure_student,
    own_images,
    prepare,
    search,
    seen_images,
    train_side_by_side,
    train_student,
    train_teacher,
)
from smallnets.studies.fidelity.students import of_equal_length, on_test
from smallnets.studies.networks import build_network
from smallnets.studies.seeds import member_seed

JUDGED = {
    "agreement", "kl", "accuracy", "nll", "brier", "ece", "train agreement", "train kl",
    "start agreement",
}  # fmt: skip


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def measured(digits, quick, kept):
    return measure(digits, quick, 0, kept)


def test_presets_hold_the_papers_settings():
    paper = PRESETS["paper"]
    assert (paper.network, paper.norm) == ("preresnet-20", "batch")
    teaching, training = paper.teaching, paper.training
    assert (teaching.epochs, teaching.batch_size, teaching.lr) == (200, 256, 0.1)
    assert (training.epochs, training.batch_size, training.lr) == (300, 128, 0.05)
    assert (training.final_lr, training.weight_decay, training.whole_epochs) == (1e-6, 1e-4, True)
    assert (training.nesterov, teaching.nesterov) == (True, False)
    assert (paper.members, paper.temperatures, paper.share) == ((3, 5), (4.0,), 0.2)


def test_evidence_has_every_question_of_the_paper():
    evidence, small = PRESETS["evidence"], PRESETS["small"]
    assert (evidence.seeds, evidence.thorough, evidence.further) == (8, True, True)
    assert (small.thorough, small.further) == (False, False)
    assert small.training == evidence.training
    assert set(core_conditions(evidence)) > set(core_conditions(small))
    both = core_conditions(evidence) | further_conditions(evidence)
    assert len(both) == len(core_conditions(evidence)) + len(further_conditions(evidence))
    starts = {one.lam for one in both.values() if one.start == "own teacher"}
    assert starts >= {0.125, 0.25, 0.375, 0.5, 0.75}
    assert {one.objective.alpha for one in both.values()} == {0, 0.1, 0.3, 0.5, 0.7}
    assert {one.length for one in both.values()} == {0.25, 1, 2}
    assert {one.view for one in both.values()} == {
        "baseline", "none", "rotation", "vertical flip", "colour jitter", "CombAug", "MixUp",
        "noise", "generated", "out of domain",
    }  # fmt: skip
    assert {one.optimizer for one in both.values()} == {"sgd", "adam"}
    assert {one.shown for one in both.values()} == {"own", "fresh", "both"}


def test_every_student_is_of_the_kind_that_it_changes():
    found = kinds(PRESETS["evidence"])
    first = {kind: name for name, kind in reversed(found.items())}
    assert first == {
        "start": "λ = 0.375", "length or optimiser": "long", "images": "own and fresh images",
        "labels or loss": "α = 0.5", "teacher or size": "convnet-4",
    }  # fmt: skip
    assert found["random, rate of λ = 0.375"] == "start"
    assert found["MixUp"] == found["fresh images"] == "images"
    assert found["Adam"] == "length or optimiser"
    assert not {"student", "stranger", "few images"} & set(found)


def test_preparing_puts_what_was_asked_for_in_place():
    data, settings = prepare("digits", "small", Options(seeds=2, epochs=8, train=500, flips=True))
    assert len(data.y_train) == settings.train == 500
    assert settings.seeds == 2
    assert (settings.teaching.epochs, settings.training.epochs) == (8, 8)
    assert settings.training.warmup_epochs == pytest.approx(1)
    assert settings.training.augmentation == Augmentation(crop=2, flip=True)
    assert prepare("digits", "smoke", Options(norm="layer"))[1].norm == "layer"
    assert prepare("digits", "smoke")[1].foreign == "glyphs62"
    _, alone = prepare("glyphs62", "smoke")
    assert alone.foreign is None  # nobody is a stranger to letters and digits
    assert "out of domain" not in further_conditions(alone)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": "big"}, "scale must be one of smoke, small, evidence, paper; got 'big'"),
        ({"seeds": 0}, "seeds must be at least 1; got 0"),
        ({"epochs": 0}, "epochs must be at least 1; got 0"),
        ({"norm": "none"}, "norm must be one of batch, layer; got 'none'"),
        ({"train": 50}, "number of training images must be at least 100; got 50"),
    ],
)
def test_what_cannot_be_run_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        prepare("digits", arguments.pop("scale", "smoke"), Options(**arguments))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": "home"}, "start must be one of random, own teacher, .*; got 'home'"),
        ({"lam": 2}, "lam must be between 0 and 1; got 2"),
        ({"length": 0}, "length must be greater than 0; got 0"),
        ({"shown": "all"}, "shown must be one of own, fresh, both; got 'all'"),
        ({"optimizer": "rprop"}, "optimizer must be one of sgd, adam; got 'rprop'"),
    ],
)
def test_students_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Condition(**changes)


def test_no_student_starts_at_a_teachers_first_weights():
    students, members = range(50), range(12)
    teachers = {member_seed(seed, member) for seed in students for member in members}
    assert len(teachers) == 50 * 12
    assert not teachers & set(students)


def test_a_teacher_agrees_with_itself_entirely(digits):
    teacher = build_network("convnet-4", digits, 0)
    viewed = seen_images(digits, Augmentation(crop=0), 32, 60)
    found = compared(teacher, teacher, on_test(digits), viewed)
    assert set(found) == JUDGED - {"start agreement"}
    assert found["agreement"] == found["train agreement"] == 1
    assert found["kl"] == pytest.approx(0, abs=1e-9)


def test_a_seed_measures_every_student(digits, quick, measured, kept):
    names = {"teacher", "twin", *core_conditions(quick)}
    assert set(measured) == JUDGED | {"over time", "meeting", "path", "alignment"}
    assert all(set(measured[name]) == names for name in JUDGED)
    assert measured["agreement"]["teacher"] == 1
    for row in measured["meeting"].values():
        assert sum(row.values()) == pytest.approx(1)
    for name in ("student", "stranger"):
        row = measured["meeting"][name]
        agreement = row["both right"] + row["the same mistake"]
        assert agreement == pytest.approx(measured["agreement"][name])
    assert set(measured["alignment"]) == {"student", "twin"}
    assert all(0 <= v <= 1 + 1e-9 for row in measured["alignment"].values() for v in row.values())
    for losses in measured["path"].values():
        assert losses[-1] == pytest.approx(0, abs=1e-5)
    assert set(measured["over time"]) == names - {"twin"}


def test_it_measures_the_same_without_what_is_kept(digits, quick, measured):
    assert measure(digits, replace(quick, thorough=False), 0)["accuracy"] == {
        name: value for name, value in measured["accuracy"].items()
        if name not in ("long", "own and fresh images", "α = 0.5")
    }  # fmt: skip


def test_the_stranger_is_measured_against_the_students_teacher(digits, quick, measured, kept):
    teacher = train_teacher(digits, quick, 0, 0, kept).network
    stranger = train_student(digits, quick, 0, Condition(teacher=1), kept).network
    own = own_images(digits, 0)
    said = [logits_of(one, own, own.x_test) for one in (teacher, stranger)]
    assert measured["agreement"]["stranger"] == measures.agreement(*said)


def test_further_students_have_the_same_measures(digits, quick, kept):
    found = measure_further(digits, quick, 0, kept)
    assert set(found) == JUDGED
    assert set(found["accuracy"]) == set(further_conditions(quick))


def test_networks_trained_side_by_side_are_those_of_the_measurement(digits, quick, tmp_path):
    few = {"student": Condition(), "ensemble": Condition(objective=Objective(members=2))}
    train_side_by_side(digits, quick, 0, few, tmp_path)
    kept = {path.name for path in tmp_path.iterdir()}
    assert len(kept) == 4
    for condition in few.values():
        measure_student(digits, quick, 0, condition, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_a_run_that_was_stopped_ends_with_the_same_bits(digits, quick, tmp_path, kept):
    run = Parameters("digits", "smoke", None, "cpu", "32-true", str(tmp_path / "stopped"))
    shared = {"dataset": digits, "settings": replace(quick, thorough=False), "cache_dir": kept}
    seed_by_seed(measure, run, seeds=1, first=4, **shared)
    resumed = seed_by_seed(measure, run, seeds=2, first=4, **shared)
    other = Parameters("digits", "smoke", None, "cpu", "32-true", str(tmp_path / "whole"))
    assert resumed == seed_by_seed(measure, other, seeds=2, first=4, **shared)
    assert len(set(resumed["kl"]["student"])) == 2


def test_more_images_come_with_as_many_steps(quick):
    base = replace(quick.training, epochs=4, batch_size=32)
    for images, reference in ((100, 300), (300, 300), (20, 300)):
        longer = of_equal_length(base, images, reference)
        steps = longer.epochs * (images // longer.batch_size)
        assert steps == pytest.approx(4 * (reference // 32), abs=3)


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_a_start_at_the_teacher_is_the_teacher(digits, quick, norm):
    settings = replace(quick, norm=norm)
    found, student = measure_student(
        digits, settings, 0, Condition(start="own teacher", lam=1.0, rate=1e-6)
    )
    assert found["start agreement"] > 0.5  # its statistics are new ones
    if norm == "layer":
        assert found["start agreement"] == 1
    teacher = train_teacher(digits, settings, 0).network
    for a, b in zip(student.start.parameters(), teacher.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_loss_is_lowest_at_the_teacher(digits, quick, kept):
    found = landscape(digits, quick, 0, Condition(), kept, points=3)
    assert found.loss.shape == (3, 3)
    teacher = build_network("convnet-4", digits, 0)
    gap = distillation_gap(teacher, digits.normalise(digits.x_train[:32]), 1.0)
    assert gap(teacher).item() == pytest.approx(0, abs=1e-6)


def test_the_image_that_is_shown_is_one_on_which_they_differ(digits, quick, kept):
    case = first_disagreement(digits, quick, 0, kept)
    assert case.image.shape == digits.x_test.shape[1:]
    assert case.teacher.argmax() != case.student.argmax()
    assert case.teacher.sum() == pytest.approx(1)
    place = next(i for i, image in enumerate(digits.x_test) if torch.equal(image, case.image))
    assert case.label == digits.y_test[place]


def test_another_kind_of_network(digits, quick, kept):
    reader = replace(quick, network="rows-4", thorough=False)
    assert set(measure(digits, reader, 0, kept)["alignment"]) == {"student", "twin"}


def test_rates_are_searched_on_held_out_training_images(digits, quick, kept):
    found = search(digits, replace(quick, rates=(0.1,), adam_rates=(1e-3,)), 0, kept)
    assert set(found) == {"teacher, 0.1", "SGD, 0.1", "Adam, 0.001"}
    assert all(0 <= one["accuracy"] <= 1 for one in found.values())


def test_images_seen_are_a_random_part_of_those_shown(digits):
    view = Augmentation(crop=0)
    everything = seen_images(digits, view, 32)
    part = seen_images(digits, view, 32, 40)
    assert len(everything) == len(digits.x_train)
    assert torch.equal(part[:32], everything[:32])
    assert not torch.equal(part, digits.normalise(digits.x_train[:40]))
