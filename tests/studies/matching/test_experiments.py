from dataclasses import replace

import numpy as np
import pytest
import torch

from smallnets import measure
from smallnets.data import load
from smallnets.distill.matching import (
    Matching,
    answers_and_features,
    kl_distance,
    measures,
    published_teacher,
)
from smallnets.measure import cka
from smallnets.models import bit_resnet
from smallnets.models.bit import _published_name
from smallnets.studies.matching import (
    GRID,
    PRESETS,
    RECIPES,
    Options,
    Recipe,
    StudentConfig,
    best_setting,
    costs,
    details,
    evaluate_pair,
    measurements,
    other_images,
    patience,
    prepare,
    pretrained,
    recipe,
    regimes,
    resolutions,
    run_students,
    search,
    starts,
    train_pair,
    train_teacher,
    transfer_set,
    variants,
)
from smallnets.studies.matching.experiments import build_network
from smallnets.training import seeded
from smallnets.training.checkpoint import weights_digest


def digest(model):
    return weights_digest(model.state_dict())


def test_published_recipes():
    flowers = recipe("flowers102", "long")
    assert (flowers.epochs, flowers.temperature, flowers.lr) == (1_000_000, 1, 0.0003)
    assert (flowers.weight_decay, flowers.batch_size, flowers.warmup) == (1e-5, 512, 1500)
    imagenet = recipe("imagenet", "medium")
    assert (imagenet.epochs, imagenet.batch_size, imagenet.resolution) == (1200, 4096, 224)
    assert recipe("pets") == RECIPES["pets"]["fast"] == recipe("glyphs10")
    # Steps of the published table: epochs x images / batch, across the ends of epochs.
    for data, images, patience_, steps in (
        ("flowers102", 1020, "fast", 19_922),
        ("pets", 3312, "long", 194_062),
        ("food101", 68_175, "medium", 133_154),
    ):
        settings = recipe(data, patience_).training(images)
        assert round(settings.epochs * images / settings.batch_size) == steps
        assert settings.warmup_epochs * images / settings.batch_size == pytest.approx(1500)
        assert (settings.optimizer, settings.clip, settings.across_epochs) == ("adamw", 1.0, True)
    assert recipe("pets").training(100).batch_size == 100
    assert Recipe(2, 1, 0.1, 0.0).training(10_000).warmup_epochs == 1
    assert GRID["temperature"] == (1, 2, 5, 10)
    with pytest.raises(ValueError, match="patience must be one of fast, medium, long; got 'slow'"):
        recipe("pets", "slow")


def test_the_paper_preset_follows_the_data_set(monkeypatch):
    asked = {}

    def some(name, **arguments):
        asked.update(arguments, name=name)
        return replace(load("digits"), flips=True)

    monkeypatch.setattr("smallnets.studies.study.load", some)
    dataset, settings = prepare("flowers102", "paper")
    assert asked["size"] == 160
    assert (settings.teacher, settings.student, settings.other) == (
        "bit-152-2", "bit-50-1", "mobilenet-3",
    )  # fmt: skip
    assert settings.lengths == (1000, 3000, 10_000)
    assert settings.training.lr == 0.003
    assert settings.matching.temperature == 10
    assert settings.matching.area == (0.05, 1.0)
    assert settings.matching.crops == 1000
    assert settings.matching.flip
    assert settings.held_out == 0
    assert settings.transfer == len(dataset.y_train)
    settings = prepare("imagenet", "paper", Options(patience="medium"))[1]
    assert asked["size"] == 256
    assert settings.training.weight_decay == 3e-4
    assert settings.held_out == int(0.02 * len(dataset.y_train))
    assert prepare("digits", "paper")[1].training.lr == 0.01


def test_presets_are_the_four_scales():
    assert set(PRESETS) == {"smoke", "small", "evidence", "paper"}
    small, evidence = PRESETS["small"], PRESETS["evidence"]
    assert not small.sides
    assert evidence.seeds == evidence.side_seeds == 8
    assert evidence.sides
    assert len(small.lengths) >= 3
    assert small.lengths == evidence.lengths[: len(small.lengths)]
    assert small.transfer <= small.train / 3


def test_regimes_and_variants_change_one_thing(small_study):
    assert {name: ask.view for name, ask in regimes(small_study).items()} == {
        "function matching": "mix", "fixed teacher": "fix/cc", "labels": "same/rc",
        "same heavy crop": "same/ic", "independent heavy crops": "ind/ic",
        "fixed teacher, heavy crops": "fix/ic_ens",
        "same mild crop": "same/rc", "independent mild crops": "ind/rc",
    }  # fmt: skip
    configs = patience(small_study)
    assert len(configs) == 8 * len(small_study.lengths)
    assert configs["same mild crop, 2"].passes == 2
    changed = variants(small_study) | details(small_study)
    assert {lesson.matching.view for lesson in changed.values()} >= {
        "fix/rs", "mix/cc", "mix", "same/ic",
    }  # fmt: skip
    assert changed["Shampoo, half as long"].optimizer == "shampoo"
    assert changed["two teachers"].teachers == 2
    assert changed["mobile student"].network == "mobile-4"
    assert set(starts(small_study)) == {
        "random, 1", "pretrained, 1", "fine-tuned on labels, 1",
    }  # fmt: skip
    assert list(search(small_study)) == [
        "T 1", "T 5", "lr 0.01", "wd 0.001", "passes 1", "passes 2",
    ]  # fmt: skip
    finer = resolutions(small_study, 16)
    assert finer["teacher sees more"].matching.teacher_resolution == 16
    assert finer["both at one resolution"].matching == small_study.matching
    assert resolutions(small_study, 8) == {}


def test_a_record_holds_every_measure_by_length(digits, small_study):
    kinds = ("agreement", "accuracy", "accuracy train", "kl", "kl train", "entropy")
    seeds = []
    for seed in (0, 1):
        values = {name: seed + config.passes for name, config in patience(small_study).items()}
        values["teacher"] = 9
        seeds.append({name: dict.fromkeys(kinds, value) for name, value in values.items()})
    found = measurements(seeds, small_study, digits)
    assert found["lengths"] == [[1, 2]] * 2
    assert set(found["by length"]) == {*kinds, "cost"}
    for kind in kinds:
        assert found["by length"][kind] == {key: [[1, 2], [2, 3]] for key in regimes(small_study)}
    assert found["accuracy"] == {"teacher": [9, 9]} | {key: [2, 3] for key in regimes(small_study)}
    assert found["by length"]["cost"] == {
        name: [one] * 2 for name, one in costs(small_study, digits).items()
    }


def test_a_step_costs_three_passes_of_the_student_and_those_of_the_teacher(digits, small_study):
    student, teacher = (
        measure.macs(build_network(name, digits, 0), (1, 8, 8))
        for name in (small_study.student, small_study.teacher)
    )
    study = replace(small_study, lengths=(2, 5))
    consistent = [2 * (3 * student + teacher), 5 * (3 * student + teacher)]
    for name, cost in costs(study, digits).items():
        if name == "labels":
            assert cost == [6 * student, 15 * student]
        elif name == "fixed teacher":
            assert cost == [6 * student + teacher, 15 * student + teacher]
        elif name == "fixed teacher, heavy crops":  # the mean of two
            assert cost == [6 * student + 2 * teacher, 15 * student + 2 * teacher]
        else:
            assert cost == consistent, name


def test_every_student_is_trained_and_gives_the_same_numbers_twice(digits, small_study, tmp_path):
    configs = {
        **variants(small_study), **details(small_study), **starts(small_study),
        **resolutions(small_study, 16), **search(small_study),
    }  # fmt: skip
    results = run_students(configs, digits, small_study, 1, tmp_path)
    assert set(results[0]) == {"teacher", *configs}
    for name, values in results[0].items():
        assert all(np.isfinite(value) for value in values.values()), name
        assert set(values) == {
            "accuracy", "accuracy train", "agreement", "agreement@5", "kl", "kl train", "l2",
            "l2 train", "entropy", "entropy train", "cka",
        }  # fmt: skip
    assert results[0]["teacher"]["agreement"] == 1
    plain = configs["function matching"]
    again = evaluate_pair(digits, plain, small_study, seed=0)
    assert again["student"] == results[0]["function matching"]
    teacher, student, log = train_pair(digits, plain, small_study, 0, tmp_path)
    assert len(log) == plain.passes
    own = transfer_set(digits, small_study)
    for name, network in (("teacher", teacher), ("student", student)):
        seen = answers_and_features(network, own, own.x_train, 8)
        right = measure.accuracy(seen.logits, own.y_train)
        assert again[name]["accuracy train"] == right
    assert evaluate_pair(digits, plain, small_study, seed=1)["student"] != again["student"]


def test_students_of_a_seed_have_one_teacher_and_one_start(digits, small_study, tmp_path):
    keep = {"seed": 0, "cache_dir": tmp_path}
    configs = [StudentConfig(ask, 1) for ask in regimes(small_study).values()]
    pairs = [train_pair(digits, lesson, small_study, **keep) for lesson in configs[:2]]
    assert digest(pairs[0][0]) == digest(pairs[1][0])
    assert digest(pairs[0][1]) != digest(pairs[1][1])
    assert len(list(tmp_path.glob("teacher-*"))) == 1
    start = build_network(small_study.student, digits, 0)
    assert digest(start) == digest(build_network(small_study.student, digits, 0))
    trained = pretrained(digits, small_study, small_study.student, **keep)
    assert digest(trained) != digest(start)


def test_neighbouring_seeds_have_no_teacher_in_common(digits, small_study, tmp_path):
    two = StudentConfig(next(iter(regimes(small_study).values())), 1, teachers=2)
    for seed in (0, 1):
        train_pair(digits, two, small_study, seed=seed, cache_dir=tmp_path)
    assert len(list(tmp_path.glob("teacher-*"))) == 4


def test_students_get_a_part_of_what_the_teacher_knows(digits, small_study):
    part = transfer_set(digits, small_study)
    assert len(part.y_train) == 64
    assert torch.equal(part.x_train, digits.x_train[:64])
    assert torch.equal(part.mean, digits.mean)
    assert torch.equal(part.x_test, digits.x_test)


def test_patience_brings_the_student_to_its_teacher(digits, small_study):
    """On a tiny problem, long training on both's same view closes most of the distance."""
    study = replace(
        small_study,
        transfer=160,
        teaching=replace(small_study.teaching, epochs=40, lr=1e-2),
        training=replace(small_study.training, lr=1e-2, warmup_epochs=0.0),
        student="convnet-8",
    )
    ends = {
        passes: evaluate_pair(digits, StudentConfig(study.matching, passes), study, seed=0)[
            "student"
        ]
        for passes in (2, 60)
    }
    assert ends[60]["kl"] < 0.5 * ends[2]["kl"]
    assert ends[60]["agreement"] > ends[2]["agreement"]


def test_a_published_checkpoint_is_the_teacher(digits, small_study, tmp_path, monkeypatch):
    def tiny(name, classes, channels):
        return bit_resnet((1,), classes, channels, width=0.5)

    monkeypatch.setattr("smallnets.distill.matching.published.named", tiny)
    with seeded(5):
        source = tiny("bit", digits.num_classes, digits.channels)
    torch.nn.init.normal_(source.classifier.weight)
    arrays = {}
    for name, value in source.state_dict().items():
        array = value.numpy()
        if array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        arrays["params." + _published_name(name)] = array.T if array.ndim == 2 else array
    np.savez(tmp_path / "bit.npz", **arrays)
    study = replace(small_study, published=str(tmp_path / "bit.npz"))
    teacher = train_teacher(digits, study, seed=0)
    pictures = digits.x_test[:5].float() / 255
    expected = source.eval()(2 * pictures - 1)
    torch.testing.assert_close(teacher(digits.normalise(pictures)), expected, rtol=1e-4, atol=1e-4)
    assert teacher.stage_names == ("stage1",)
    with pytest.raises(FileNotFoundError, match=r"must be an npz file; got 'nowhere.npz'"):
        published_teacher("bit-26-1", "nowhere.npz", digits)


def test_measures_of_a_copy(digits, small_study):
    teacher = build_network("convnet-4", digits, 0).eval()
    student = build_network("convnet-4", digits, 1).eval()
    names = {"teacher": teacher, "copy": teacher, "other": student}
    found = measures(names, digits, dict.fromkeys(names, 8), probe=50)
    assert found["copy"] == found["teacher"]
    assert found["copy"]["agreement"] == found["copy"]["agreement@5"] == 1
    assert found["copy"]["kl"] == pytest.approx(0, abs=1e-9)
    assert found["copy"]["l2"] == 0
    assert found["copy"]["cka"] == pytest.approx(1)
    seen = [answers_and_features(n, digits, digits.x_test, 8) for n in (student, teacher)]
    assert found["other"]["accuracy"] == measure.accuracy(seen[0].logits, digits.y_test)
    kl = kl_distance(seen[0].logits, seen[1].logits).mean().item()
    assert found["other"]["kl"] == pytest.approx(kl, rel=1e-5)
    assert torch.allclose(student.classifier(seen[0].features), seen[0].logits, atol=1e-5)


def test_linear_cka_is_blind_to_rotation_scale_and_shift():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(30, 5, generator=generator)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=generator)).Q
    assert cka(a, 3 * a @ rotation + 7, "linear") == pytest.approx(1)
    assert cka(a, torch.randn(30, 8, generator=generator), "linear") < 0.6
    with pytest.raises(ValueError, match="got 30 and 29"):
        cka(a, a[1:], "linear")


@pytest.mark.parametrize("kind", ["photographs", "noise"])
def test_other_images_have_the_data_sets_shape(digits, kind):
    images = other_images(kind, digits, 7, seed=0)
    assert images.shape == (7, 1, 16, 16)
    assert images.dtype == torch.uint8
    assert torch.equal(images, other_images(kind, digits, 7, seed=0))
    assert not torch.equal(images, other_images(kind, digits, 7, seed=1))
    assert images.float().std() > 10


def test_the_best_of_a_search_is_found():
    results = [{"teacher": {"accuracy": 1.0}} | {
        name: {"accuracy": value} for name, value in (("T 1", 0.3), ("T 5", 0.5), ("wd 0.1", 0.2))
    }] * 2  # fmt: skip
    assert best_setting(results, "T") == 5
    assert best_setting(results, "wd") == 0.1
    with pytest.raises(ValueError, match=r"kind must be one of .*; got 'q'"):
        best_setting(results, "q")


def test_prepare_gives_a_preset_with_what_was_asked_for():
    dataset, settings = prepare(
        "digits", "small", Options(seeds=2, train=600, epochs=20, precision="32-true", flips=True)
    )
    assert (settings.train, settings.test, settings.held_out) == (600, 360, 120)
    assert (settings.seeds, settings.side_seeds, settings.transfer) == (2, 1, 100)
    assert settings.lengths == (1, 1, 5, 20)
    assert settings.side_length == 5
    assert settings.training.precision == settings.teaching.precision == "32-true"
    assert settings.matching.flip
    assert settings.matching.resolution == 16
    assert not prepare("digits", "smoke")[1].matching.flip
    assert isinstance(settings.matching, Matching)
    assert dataset.flips
    settings = prepare("digits", "smoke", Options(transfer=80, resolution=12))[1]
    assert (settings.transfer, settings.matching.resolution) == (80, 12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "nothing"}, "dataset must be one of glyphs10, .*; got 'nothing'"),
        ({"scale": "tiny"}, "scale must be one of smoke, small, evidence, paper; got 'tiny'"),
        ({"seeds": -1}, "seeds must be at least 1; got -1"),
        ({"train": 20}, "number of training images must be at least 36; got 20"),
        ({"epochs": 0}, "epochs must be at least 1; got 0"),
        ({"transfer": 1000}, "transfer must be between 1 and 160; got 1000"),
        ({"transfer": 8}, "number of training images for students must be at least 32; got 8"),
        ({"resolution": 17}, "resolution must be between 1 and 16; got 17"),
        ({"patience": "slow"}, "patience must be one of fast, medium, long; got 'slow'"),
    ],
)
def test_wrong_requests_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        prepare(
            arguments.pop("name", "digits"),
            arguments.pop("scale", "smoke"),
            Options(**arguments),
        )


def test_a_missing_checkpoint_is_named():
    with pytest.raises(FileNotFoundError, match=r"published must be .*; got 'nowhere.npz'"):
        prepare("digits", "smoke", Options(published="nowhere.npz"))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("passes", 0, "passes must be at least 1; got 0"),
        ("teachers", 0, "teachers must be at least 1; got 0"),
        ("start", "zero", "start must be one of random, pretrained; got 'zero'"),
        ("images", "cats", "images must be one of own, photographs, noise; got 'cats'"),
    ],
)
def test_bad_configs_are_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        StudentConfig(**{"matching": Matching(), "passes": 1, field: value})
