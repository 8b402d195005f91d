"""The experiments: each measures what it says, the same twice, from every start."""

from dataclasses import replace

import pytest
import torch

from smallnets import measure
from smallnets.data import Augmentation
from smallnets.distill.fidelity import distillation_gap
from smallnets.studies.fidelity import (
    EXPERIMENTS,
    PRESETS,
    Options,
    StudentEvaluator,
    capacities,
    data_policies,
    ensembles,
    experiment,
    growing,
    landscapes,
    near_teacher,
    optimisers,
    other_networks,
    prepare,
    recycled,
    representations,
    run_experiments,
    scaled_rate,
    search,
    seen_images,
    targets,
    train_from_starts,
    with_control,
)
from smallnets.studies.fidelity.experiments import build_network, of_equal_length
from smallnets.studies.seeds import member_seed

JUDGED = {
    "agreement", "kl", "accuracy", "nll", "brier", "teacher accuracy", "ece", "train agreement",
    "train kl",
}  # fmt: skip


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


def test_presets_hold_the_papers_settings():
    paper = PRESETS["paper"]
    assert (paper.network, paper.near_norm) == ("preresnet-20", "layer")
    teaching, training = paper.teaching, paper.training
    assert (teaching.epochs, teaching.batch_size, teaching.lr) == (200, 256, 0.1)
    assert (training.epochs, training.batch_size, training.lr) == (300, 128, 0.05)
    assert (training.final_lr, training.weight_decay, training.whole_epochs) == (1e-6, 1e-4, True)
    assert (training.nesterov, teaching.nesterov) == (True, False)
    assert (paper.members, paper.temperatures, paper.share) == ((1, 3, 5), (1.0, 4.0), 0.2)
    assert paper.alphas == (0.1, 0.3, 0.5, 0.7)
    assert 0.375 in paper.lams
    assert min(PRESETS["small"].seeds, PRESETS["small"].side_seeds) >= 3
    assert PRESETS["small"].members == (1, 3, 5)


def test_preparing_puts_what_was_asked_for_in_place():
    data, settings = prepare("digits", "small", Options(seeds=2, epochs=4, train=500, flips=True))
    assert len(data.y_train) == settings.train == 500
    assert (settings.seeds, settings.side_seeds) == (2, 2)
    assert (settings.teaching.epochs, settings.training.epochs) == (4, 4)
    assert settings.training.warmup_epochs == pytest.approx(1.5)
    assert settings.training.augmentation == Augmentation(crop=2, flip=True)
    assert settings.teaching.batch_size <= 0.25 * 500
    assert prepare("digits", "smoke", Options(norm="layer"))[1].near_norm == "layer"
    assert prepare("digits", "smoke")[1].foreign == "glyphs62"
    letters, alone = prepare("glyphs62", "smoke")
    assert alone.foreign is None  # nobody is a stranger to letters and digits
    assert "out of domain" not in data_policies(letters, replace(alone, views=("none",)), 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": "big"}, "scale must be one of smoke, small, paper; got 'big'"),
        ({"seeds": 0}, "seeds must be at least 1; got 0"),
        ({"epochs": 0}, "epochs must be at least 1; got 0"),
        ({"norm": "none"}, "norm must be one of batch, layer; got 'none'"),
        ({"train": 100}, "number of training images must be at least 128; got 100"),
    ],
)
def test_what_cannot_be_run_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        prepare("digits", arguments.pop("scale", "smoke"), Options(**arguments))


def test_no_student_starts_at_a_teachers_first_weights():
    students, members = range(50), range(12)
    teachers = {member_seed(seed, member) for seed in students for member in members}
    assert len(teachers) == 50 * 12
    assert not teachers & set(students)


def test_a_teacher_agrees_with_itself_entirely(digits, quick):
    teacher = build_network("convnet-4", digits, 0)
    found = StudentEvaluator(teacher, digits, quick.training)(teacher)
    assert set(found) == JUDGED
    assert found["agreement"] == found["train agreement"] == 1
    assert found["kl"] == pytest.approx(0, abs=1e-9)
    assert found["accuracy"] == found["teacher accuracy"]


def test_ensembles_and_their_control(digits, quick, kept):
    outcomes = [ensembles(digits, quick, seed, kept) for seed in (0, 1)]
    assert set(outcomes[0].measures) == {"m = 1, τ = 1", "m = 2, τ = 1"}
    results = with_control(outcomes)
    for one in results[0].values():
        assert set(one) == JUDGED | {"control", "excess"}
        assert one["excess"] == pytest.approx(one["agreement"] - one["control"])
    name = "m = 1, τ = 1"
    expected = measure.agreement(outcomes[0].teachers[name], outcomes[1].students[name])
    assert results[0][name]["control"] == expected
    assert outcomes[0].calibration[name].count.sum() == len(digits.y_test)
    again = ensembles(digits, quick, 0)
    assert again.measures == outcomes[0].measures
    with pytest.raises(ValueError, match="seeds for a control must be at least 2; got 1"):
        with_control(outcomes[:1])


def test_every_policy_is_tried_beside_the_plain_student(digits, quick, kept):
    found = data_policies(digits, quick, 0, kept)
    plain = ensembles(digits, quick, 0, kept).measures["m = 1, τ = 1"]
    assert found["baseline"] == pytest.approx(plain, rel=1e-5)
    assert optimisers(digits, quick, 0, kept)["SGD, 2 epochs"] == found["baseline"]
    assert len(found) == 10
    assert all(set(one) == JUDGED for one in found.values())
    assert len({one["teacher accuracy"] for one in found.values()}) == 1


def test_more_images_come_with_as_many_steps(digits, quick, kept):
    base = replace(quick.training, epochs=4, batch_size=32)
    for images, reference in ((100, 300), (300, 300), (20, 300)):
        longer = of_equal_length(base, images, reference)
        steps = longer.epochs * (images // longer.batch_size)
        assert steps == pytest.approx(4 * (reference // 32), abs=3)
    grown = growing(digits, quick, 0, kept)
    assert len(grown) == len(quick.amounts)
    assert list(map(int, grown)) == sorted(map(int, grown))


def test_halves_are_recycled(digits, quick, kept):
    assert list(recycled(digits, quick, 0, kept)) == ["D0", "D1", "D0 and D1"]


def test_sizes_targets_and_optimisers(digits, quick, kept):
    assert list(capacities(digits, quick, 0, kept)) == ["convnet-4", "convnet-8"]
    assert list(targets(digits, quick, 0, kept)) == [
        "α = 0", "α = 0.5", "symmetric", "reverse", "hard", "mixed", "brier", "logit",
    ]  # fmt: skip
    wider = replace(quick, lengths=(0.5, 1.0))
    assert list(optimisers(digits, wider, 0, kept)) == [
        "SGD, 1 epochs", "SGD, 2 epochs", "Adam, 1 epochs", "Adam, 2 epochs",
    ]  # fmt: skip


def test_rates_are_those_of_the_published_code(quick):
    paper = PRESETS["paper"]
    assert scaled_rate(paper, 0.375) == pytest.approx(0.05 * 0.625)
    assert scaled_rate(paper, 1.0) == 1e-6


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_starts_lie_between_teacher_and_random_and_have_both_controls(digits, quick, kept, norm):
    changed = replace(quick, near_norm=norm, lams=(0.5, 1.0))
    found = near_teacher(digits, changed, 0, kept)
    assert set(found) == {
        "λ = 0", "teacher's first weights",
        *(f"λ = {lam}{end}" for lam in ("0.5", "1") for end in ("", ", full rate")),
        *(f"random, rate of λ = {lam}" for lam in ("0.5", "1")),
    }  # fmt: skip
    start = {name: one["start agreement"] for name, one in found.items()}
    assert start["λ = 1"] > start["λ = 0"]
    if norm == "layer":
        assert start["λ = 1"] == 1
    teacher, journey = train_from_starts(digits, changed, 0, kept)
    first = journey["teacher's first weights"].start
    assert not any(torch.equal(a, b) for a, b in zip(first.parameters(), teacher.parameters(),
                                                     strict=True) if a.dim() > 1)  # fmt: skip


def test_the_loss_is_lowest_at_the_teacher(digits, quick, kept):
    (found,) = landscapes(digits, quick, 0, kept, points=3, images=64).values()
    assert found.surface.loss.shape == (3, 3)
    positions, losses = found.path
    assert losses[-1] == pytest.approx(0, abs=1e-5)
    assert losses[0] > losses[-1]
    teacher = build_network("convnet-4", digits, 0)
    gap = distillation_gap(teacher, digits.normalise(digits.x_train[:32]), 1.0)
    assert gap(teacher).item() == pytest.approx(0, abs=1e-6)
    assert len(positions) == 3


def test_experiments_run_side_by_side_and_by_name(digits, quick, kept):
    changed = replace(quick, side_seeds=2)
    names = ["ensembles", "recycled", "capacity"]
    found = run_experiments(names, digits, replace(changed, seeds=1), kept)
    assert {name: len(seeds) for name, seeds in found.items()} == dict.fromkeys(names, 2)
    assert found["capacity"][1] == capacities(digits, changed, 1, kept)
    assert set(EXPERIMENTS) > set(found)
    with pytest.raises(ValueError, match=r"experiment must be one of ensembles, .*; got 'magic'"):
        experiment("magic", digits, quick, 0)


def test_representations_and_another_kind_of_network(digits, quick, kept):
    found = representations(digits, quick, 0, kept)
    assert set(found) == {"student", "another teacher"}
    assert all(0 <= value <= 1 + 1e-9 for one in found.values() for value in one.values())
    read = other_networks(digits, quick, 0, kept, network="rows-4")
    assert set(read) == {"m = 1, τ = 1", "m = 2, τ = 1"}


def test_a_start_at_zero_loses_no_student(digits, quick, kept):
    found = near_teacher(digits, replace(quick, lams=(0.0, 0.5)), 0, kept)
    assert {"λ = 0", "λ = 0, full rate", "teacher's first weights", "λ = 0.5"} <= set(found)


def test_rates_are_searched_on_held_out_training_images(digits, quick, kept):
    found = search(digits, replace(quick, rates=(0.1,), adam_rates=(1e-3,)), 0, kept)
    assert set(found) == {"teacher, 0.1", "SGD, 0.1", "Adam, 0.001"}
    assert all(0 <= one["accuracy"] <= 1 for one in found.values())


def test_images_seen_are_a_random_part_of_those_shown(digits, quick):
    view = Augmentation(crop=0)
    everything = seen_images(digits, view, 32)
    part = seen_images(digits, view, 32, 40)
    assert len(everything) == len(digits.x_train)
    assert torch.equal(part[:32], everything[:32])
    assert not torch.equal(part, digits.normalise(digits.x_train[:40]))
