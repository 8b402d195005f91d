from dataclasses import replace

import numpy as np
import pytest
import torch

from smallnets import measure
from smallnets.data import load
from smallnets.distill.similarity import DistillationObjective, portrait, sp_loss
from smallnets.studies.networks import evaluate_accuracy, train_network
from smallnets.studies.similarity import (
    PRESETS,
    Options,
    Weights,
    ablations,
    best_weights,
    candidates,
    compare,
    compared,
    corrupted,
    equal_start,
    learning_curves,
    measure_further,
    methods,
    prepare,
    search,
    train_students,
    train_teacher,
    transfer,
)
from smallnets.studies.similarity import measure as measure_seed
from smallnets.studies.similarity.experiments import build_network, few_shot
from smallnets.training import observe

WEIGHTS = Weights(gamma=10, beta=10, alpha=0.9, temperature=4)


def test_presets_have_the_scales_and_the_papers_numbers():
    assert set(PRESETS) == {"smoke", "small", "evidence", "paper"}
    paper = PRESETS["paper"]
    assert (paper.teacher, paper.student) == ("wrn-40-1", "wrn-16-1")
    assert (paper.training.epochs, paper.training.batch_size, paper.training.lr) == (200, 128, 0.1)
    assert (paper.training.milestones, paper.training.decay) == ((60, 120, 160), 0.2)
    assert (paper.training.weight_decay, paper.training.nesterov) == (5e-4, True)
    assert (paper.published_gamma, paper.seeds) == (3000, 5)
    assert 3000 in paper.gammas
    assert 1000 in paper.betas
    assert 0.9 in paper.alphas
    assert 4 in paper.temperatures


def test_evidence_has_eight_seeds_and_as_many_candidates_for_every_method():
    evidence = PRESETS["evidence"]
    assert evidence.seeds == 8
    assert evidence.further
    soft = len(evidence.alphas) * len(evidence.temperatures)
    assert soft == len(evidence.betas) == len(evidence.gammas)
    assert (evidence.searches, PRESETS["small"].searches) == (2, 0)


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
    chosen = methods(quick, replace(WEIGHTS, gamma=30))
    assert list(chosen) == ["alone", "KD", "AT", "SP", "SP published", "KD+SP", "AT+SP", "KD+AT"]
    assert chosen["alone"] == DistillationObjective()
    assert (chosen["KD+SP"].ce, chosen["KD+SP"].kd, chosen["KD+SP"].sp) == (
        pytest.approx(0.1), 0.9, 30,
    )  # fmt: skip
    assert (chosen["AT+SP"].at, chosen["AT+SP"].sp, chosen["AT+SP"].kd) == (10, 30, 0)
    assert chosen["SP published"] == DistillationObjective(sp=1500)  # 3000 at a batch of 128
    assert list(compared(quick, WEIGHTS)) == [*chosen, "SP 100"]
    assert list(compared(quick, replace(WEIGHTS, gamma=30))) == [*chosen, "SP 10", "SP 100"]
    without = methods(replace(quick, further=False), WEIGHTS)
    assert list(without) == ["alone", "KD", "AT", "SP", "SP published"]


def test_comparison_measures_every_student_and_gives_the_same_numbers_twice(
    digits, quick, tmp_path
):
    objectives = {name: methods(quick, WEIGHTS)[name] for name in ("alone", "SP")}
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
    variants = ablations(gamma=50)
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
        kind: scaled[name].sp * sp_loss(seen, shown, kind).item()
        for name, kind in (("cosines", "cosine"), ("no normalisation", "none"))
    }
    expected = 50 * sp_loss(seen, shown).item()
    assert list(start.values()) == pytest.approx([expected, expected], rel=1e-2)
    assert scaled["middle stage"] == variants["middle stage"]


def test_transfer_learns_the_other_half_from_few_images(digits, quick):
    objectives = {name: methods(quick, WEIGHTS)[name] for name in ("alone", "AT", "SP")}
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


def test_candidates_are_those_of_the_settings_and_the_best_are_found(quick):
    quick = replace(quick, alphas=(0.5, 0.9), temperatures=(2, 4))
    tried = candidates(quick)
    assert list(tried) == [
        "alone", "KD 0.5 2", "KD 0.5 4", "KD 0.9 2", "KD 0.9 4", "AT 10", "SP 10", "SP 100",
    ]  # fmt: skip
    assert tried["SP 100"] == DistillationObjective(sp=100)
    assert (tried["KD 0.9 2"].kd, tried["KD 0.9 2"].temperature) == (0.9, 2)
    assert tried["KD 0.9 2"].ce == pytest.approx(0.1)
    accuracies = [dict.fromkeys(tried, 0.5) | {"alone": 0.9} for _ in range(2)]
    accuracies[0] |= {"KD 0.9 2": 0.7, "SP 100": 0.6, "AT 10": 0.1}
    accuracies[1] |= {"KD 0.5 4": 0.6}
    results = [{name: {"accuracy": value} for name, value in one.items()} for one in accuracies]
    assert best_weights(results) == Weights(gamma=100, beta=10, alpha=0.9, temperature=2)


def test_the_search_judges_all_candidates(digits, quick):
    quick = replace(quick, gammas=(10,))
    found = search(digits.held_out(40), quick, seed=0)
    assert list(found) == ["teacher", *candidates(quick)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gamma": 0}, "gamma must be greater than 0; got 0"),
        ({"alpha": 2}, "alpha must be between 0 and 1; got 2"),
        ({"temperature": -1}, "temperature must be greater than 0; got -1"),
    ],
)
def test_weights_out_of_range_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(WEIGHTS, **changes)


def test_a_seed_is_measured_in_full(digits, quick):
    found = measure_seed(digits, quick, WEIGHTS, seed=0)
    names = ["teacher", *compared(quick, WEIGHTS)]
    assert list(found) == [
        "accuracy", "agreement", "kl", "similarity loss", "contrast", "corrupted accuracy",
        "corrupted agreement", "transfer accuracy",
    ]  # fmt: skip
    assert list(found["accuracy"]) == list(found["corrupted agreement"]) == names
    assert list(found["transfer accuracy"]) == ["teacher", "alone", "AT", "SP"]
    without = measure_seed(digits, replace(quick, further=False), WEIGHTS, seed=0)
    assert list(without) == list(found)[:-1]
    assert "KD+SP" not in without["accuracy"]
    assert without["accuracy"]["SP"] == found["accuracy"]["SP"]


def test_variants_and_batches_are_measured_in_full(digits, quick):
    found = measure_further(digits, replace(quick, batch_sizes=(32, 64)), WEIGHTS, seed=0)
    assert list(found["variants"]["accuracy"]) == [
        "teacher", "alone", "last stage, rows", *ablations(10),
    ]  # fmt: skip
    assert list(found["batches"]) == ["32", "64"]
    assert set(found["batches"]["32"]) == {"teacher", "alone", "SP"}


def test_watching_a_training_does_not_change_it(digits, quick):
    curves = learning_curves(digits, quick, seed=3)
    names = ["teacher, train", "teacher, test", "student, train", "student, test"]
    assert [(name, len(values)) for name, values in curves.items()] == [(one, 1) for one in names]
    assert all(0 <= value <= 1 for values in curves.values() for value in values)
    watched = train_teacher(digits, quick, seed=0)
    plain = train_network(quick.teacher, digits, quick.training, 1000)
    for one, other in zip(watched.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_the_last_epoch_of_a_curve_is_of_test_images(digits, quick):
    longer = replace(quick, training=replace(quick.training, epochs=8, lr=0.1))
    curve = learning_curves(digits, longer, seed=0)["student, test"]
    student = train_network(quick.student, digits, longer.training, 0)
    assert curve[-1] == pytest.approx(evaluate_accuracy(student, digits), abs=0.15)
    assert curve[-1] > curve[0]


def test_prepare_gives_a_preset_with_what_was_asked_for():
    dataset, settings = prepare(
        "digits", "small", Options(seeds=2, train=1000, epochs=3, precision="32-true")
    )
    assert (settings.train, settings.test, settings.held_out) == (1000, 360, 200)
    assert (settings.seeds, settings.side_seeds, settings.sweep_seeds) == (2, 1, 1)
    assert settings.training.epochs == settings.fine_tuning.epochs == 3
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
        (("digits", "tiny"), "scale must be one of smoke, small, evidence, paper; got 'tiny'"),
        (("digits", "smoke", -1), "seeds must be at least 1; got -1"),
        (("digits", "smoke", 1.5), "seeds must be a whole number of at least 1; got 1.5"),
        (("digits", "small", 1, 20), "number of training images must be at least 68; got 20"),
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
    assert prepare("digits", "small", Options(gamma=7))[1].weights.gamma == 7
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
