from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from smallnets import measure
from smallnets.data import load
from smallnets.distill.similarity import DistillationObjective, portrait, sp_loss
from smallnets.studies.similarity import (
    PRESETS,
    Options,
    ablations,
    best_setting,
    compare,
    corrupted,
    equal_start,
    methods,
    prepare,
    sweep,
    train_students,
    train_teacher,
    transfer,
)
from smallnets.studies.similarity.experiments import build_network, few_shot
from smallnets.training import observe


def test_presets_are_the_three_scales_and_the_papers_numbers():
    assert set(PRESETS) == {"smoke", "small", "paper"}
    paper = PRESETS["paper"]
    assert (paper.teacher, paper.student) == ("wrn-40-1", "wrn-16-1")
    assert (paper.training.epochs, paper.training.batch_size, paper.training.lr) == (200, 128, 0.1)
    assert (paper.training.milestones, paper.training.decay) == ((60, 120, 160), 0.2)
    assert (paper.training.weight_decay, paper.training.nesterov) == (5e-4, True)
    assert 3000 in paper.gammas
    assert 1000 in paper.betas
    assert (paper.alpha, paper.temperature, paper.seeds) == (0.9, 4.0, 5)
    assert PRESETS["small"].seeds >= 5
    assert {field.name for field in fields(paper)} >= {"shots", "batch_sizes", "held_out"}


def test_the_papers_networks_have_the_published_sizes(digits):
    colour = load("glyphs10", train=20, test=20)
    sizes = {
        name: measure.parameters(build_network(name, colour, 0))
        for name in ("wrn-16-1", "wrn-40-1")
    }
    assert {name: round(size / 1e6, 1) for name, size in sizes.items()} == {
        "wrn-16-1": 0.2,
        "wrn-40-1": 0.6,
    }


def test_methods_are_the_papers_comparison(quick):
    compared = methods(quick, gamma=30, beta=10)
    assert list(compared) == ["alone", "KD", "AT", "SP", "KD+SP", "AT+SP", "KD+AT"]
    assert compared["alone"] == DistillationObjective()
    assert (compared["KD+SP"].ce, compared["KD+SP"].kd, compared["KD+SP"].sp) == (
        pytest.approx(0.1), 0.9, 30,
    )  # fmt: skip
    assert (compared["AT+SP"].at, compared["AT+SP"].sp, compared["AT+SP"].kd) == (10, 30, 0)


def test_comparison_measures_every_student_and_gives_the_same_numbers_twice(
    digits, quick, tmp_path
):
    objectives = {name: methods(quick, 10, 10)[name] for name in ("alone", "SP")}
    first = compare(digits, objectives, quick, seed=0)
    assert set(first) == {"teacher", "alone", "SP"}
    assert set(first["SP"]) == {"accuracy", "agreement", "kl", "similarity loss", "contrast"}
    assert first["teacher"]["agreement"] == 1
    assert first["teacher"]["kl"] == pytest.approx(0, abs=1e-6)
    assert first["teacher"]["similarity loss"] == pytest.approx(0, abs=1e-9)
    assert compare(digits, objectives, quick, seed=0, cache_dir=tmp_path) == first
    assert compare(digits, objectives, quick, seed=0, cache_dir=tmp_path) == first
    assert compare(digits, objectives, quick, seed=1)["alone"] != first["alone"]


def test_students_of_one_seed_start_alike_and_end_apart(digits, quick):
    _, students = train_students(
        digits, {"a": DistillationObjective(), "b": DistillationObjective(sp=300)}, quick, seed=0
    )
    one, other = (student.state_dict() for student in students.values())
    assert any(not torch.equal(one[key], other[key]) for key in one)
    _, same = train_students(digits, dict.fromkeys("ab", DistillationObjective()), quick, seed=0)
    one, other = (student.state_dict() for student in same.values())
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_similarity_term_brings_the_students_similarities_to_the_teachers(digits, quick):
    quick = replace(quick, training=replace(quick.training, epochs=6, batch_size=32))
    objectives = {"alone": DistillationObjective(), "SP": DistillationObjective(sp=100)}
    measured = compare(digits, objectives, quick, seed=0)
    assert measured["SP"]["similarity loss"] < 0.9 * measured["alone"]["similarity loss"]


def test_ablations_start_with_terms_of_one_size(digits, quick):
    variants = ablations(quick, gamma=50)
    assert len(variants) == 5
    scaled = equal_start(variants, digits, quick, seed=0)
    assert set(scaled) == set(variants)
    student = build_network(quick.student, digits, 0).train()
    teacher = train_teacher(digits, quick, seed=0)
    images = digits.normalise(digits.x_train[: quick.training.batch_size])
    seen, shown = (
        observe(net, images, ("stage3",)).features["stage3"] for net in (student, teacher)
    )
    start = {
        kind: scaled[f"{kind} normalisation"].sp * sp_loss(seen, shown, kind).item()
        for kind in ("cosine", "none")
    }
    expected = 50 * sp_loss(seen, shown).item()
    assert list(start.values()) == pytest.approx([expected, expected], rel=1e-2)
    assert scaled["middle stage"] == variants["middle stage"]


def test_transfer_learns_the_other_half_from_few_images(digits, quick):
    objectives = {name: methods(quick, 10, 10)[name] for name in ("alone", "AT", "SP")}
    measured = transfer(digits, objectives, quick, seed=0)
    assert set(measured) == {"teacher", "alone", "AT", "SP"}
    assert all(0 <= values["accuracy"] <= 1 for values in measured.values())
    assert measured == transfer(digits, objectives, quick, seed=0)


def test_few_shots_are_balanced_training_images(digits):
    few = few_shot(digits, 3, seed=1)
    counts = few.y_train.bincount(minlength=10)
    assert counts.sum() == 30
    assert set(counts.tolist()) <= {2, 3, 4}
    assert torch.equal(few.x_test, digits.x_test)
    known = {image.numpy().tobytes() for image in digits.x_train}
    assert all(image.numpy().tobytes() in known for image in few.x_train)
    assert few.key != few_shot(digits, 3, seed=2).key


def test_transfer_needs_two_classes_in_either_half(digits, quick):
    with pytest.raises(ValueError, match=r"number of classes for a transfer .* at least 2; got 1"):
        transfer(digits.classes([0, 1, 2]), {"alone": DistillationObjective()}, quick, seed=0)


def test_corruption_changes_images_and_keeps_labels(digits):
    harder = corrupted(digits, seed=0)
    assert torch.equal(harder.y_train, digits.y_train)
    assert harder.x_train.shape == digits.x_train.shape
    assert harder.x_train.dtype == torch.uint8
    changed = (harder.x_train != digits.x_train).flatten(1).any(dim=1)
    assert changed.all()
    assert harder.key == corrupted(digits, seed=0).key != corrupted(digits, seed=1).key


def test_portrait_sorts_by_class(digits, quick):
    seen = portrait(train_teacher(digits, quick, seed=0), digits, images=50)
    assert seen.activations.shape == (50, 32)
    assert seen.similarity.shape == (50, 50)
    assert (seen.labels.diff() >= 0).all()
    torch.testing.assert_close(seen.similarity.norm(dim=1), torch.ones(50))


def test_sweep_names_its_weights_and_the_best_is_found(quick):
    candidates = sweep(quick)
    assert list(candidates) == ["alone", "SP 10", "SP 100", "AT 10"]
    assert candidates["SP 100"] == DistillationObjective(sp=100)
    accuracies = [{"alone": 0.9, "SP 10": 0.2, "SP 100": 0.5, "AT 10": 0.1}] * 2
    results = [{name: {"accuracy": value} for name, value in one.items()} for one in accuracies]
    assert best_setting(results, "SP") == 100
    assert best_setting(results, "AT") == 10
    with pytest.raises(ValueError, match="kind must be one of SP, AT; got 'KD'"):
        best_setting(results, "KD")


def test_prepare_gives_a_preset_with_what_was_asked_for():
    dataset, settings = prepare(
        "digits", "small", Options(seeds=2, train=1000, epochs=3, precision="32-true")
    )
    assert (settings.train, settings.test, settings.held_out) == (1000, 360, 200)
    assert (settings.seeds, settings.side_seeds, settings.sweep_seeds) == (2, 2, 2)
    assert settings.training.epochs == 3
    assert (settings.training.precision, settings.fine_tuning.precision) == ("32-true", "32-true")
    assert settings.training.augmentation.flip is dataset.flips is False
    assert prepare("digits", "smoke", Options(flips=True))[1].training.augmentation.flip


def test_a_shorter_step_schedule_keeps_its_shape():
    settings = prepare("digits", "paper", Options(epochs=20))[1].training
    assert (settings.epochs, settings.milestones) == (20, (6, 12, 16))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing", "smoke"), "dataset must be one of glyphs10, .*; got 'nothing'"),
        (("digits", "tiny"), "scale must be one of smoke, small, paper; got 'tiny'"),
        (("digits", "smoke", -1), "seeds must be at least 1; got -1"),
        (("digits", "smoke", 1.5), "seeds must be a whole number of at least 1; got 1.5"),
        (("digits", "small", 1, 20), "number of training images must be at least 132; got 20"),
        (("digits", "small", 1, None, 0), "epochs must be at least 1; got 0"),
    ],
)
def test_wrong_requests_are_named(arguments, message):
    name, scale, *rest = arguments
    given = dict(zip(("seeds", "train", "epochs"), rest, strict=False))
    with pytest.raises(ValueError, match=message):
        prepare(name, scale, Options(**given))


def test_a_given_weight_is_checked_first_and_is_the_only_candidate():
    assert prepare("digits", "smoke", Options(gamma=7))[1].gammas == (7,)
    with pytest.raises(ValueError, match="gamma must be greater than 0; got -5"):
        prepare("digits", "smoke", Options(gamma=-5))


def test_two_classes_are_too_few_for_a_transfer(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (160, 8, 8), dtype=np.uint8)
    labels = np.arange(160) % 3
    file = tmp_path / "three.npz"
    np.savez(file, x_train=images, y_train=labels, x_test=images, y_test=labels)
    with pytest.raises(ValueError, match=r"number of classes, .* must be at least 4; got 3"):
        prepare(f"npz:{file}", "smoke")


def test_other_tasks_keep_the_scale_of_the_first(digits):
    assert torch.equal(corrupted(digits, 0).mean, digits.mean)
