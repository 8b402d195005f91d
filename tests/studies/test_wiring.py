"""What a condition is called is what is trained: networks, images, losses and rates by name.

The trainings themselves are left out; what they would be given is looked at.
"""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from smallnets.data import load
from smallnets.quantize.genie import calibrate, quantize
from smallnets.studies import genie, importance, lana, matching, similarity
from smallnets.studies.genie.experiments import evaluate_quantised, quantize_case
from smallnets.studies.lana.experiments import tune
from smallnets.studies.matching import StudentConfig
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


# --- 04 -------------------------------------------------------------------------------------------


@pytest.fixture
def matched(digits, monkeypatch):
    """matched(config) -> what the student's training would be given."""
    settings = replace(
        matching.PRESETS["smoke"], teacher="convnet-2", student="convnet-2", transfer=40,
        teaching=QUICK, training=replace(QUICK, lr=0.02, weight_decay=1e-4, optimizer="adamw"),
    )  # fmt: skip
    seen = []

    def match(student, teachers, dataset, ask, training, *, seed, label, **_):
        if label == "student":
            seen.append(
                SimpleNamespace(
                    dataset=dataset,
                    matching=ask,
                    training=training,
                    seed=seed,
                    start=digest(student),
                )
            )
        else:  # leave a trace
            torch.nn.init.constant_(student.classifier.bias, 1.0 + len(label))
        return []

    monkeypatch.setattr("smallnets.studies.matching.experiments.match", match)

    def call(seed=0, **fields):
        matching.train_pair(digits, StudentConfig(settings.matching, 3, **fields), settings, seed)
        return seen[-1]

    return call


def test_a_student_is_trained_as_its_configuration_says(digits, matched):
    plain = matched()
    assert (plain.training.epochs, plain.training.lr, plain.training.optimizer) == (
        3,
        0.02,
        "adamw",
    )
    assert plain.training.weight_decay == 1e-4
    assert as_bytes(plain.dataset.x_train) == as_bytes(digits.x_train[:40])
    assert torch.equal(plain.dataset.mean, digits.mean)
    assert plain.start == digest(build_network("convnet-2", digits, 0))
    assert matched(lr=0.3).training.lr == 0.3
    assert matched(weight_decay=0.0).training.weight_decay == 0
    assert matched(optimizer="shampoo").training.optimizer == "shampoo"
    assert matched(network="convnet-3").start == digest(build_network("convnet-3", digits, 0))
    assert matched(seed=4).seed == 4
    assert matched(seed=4).start == digest(build_network("convnet-2", digits, 4))


def test_students_start_from_a_training_or_see_other_images_where_they_should(digits, matched):
    plain, trained, noise = matched(), matched(start="pretrained"), matched(images="noise")
    assert trained.start != plain.start
    assert as_bytes(trained.dataset.x_train) == as_bytes(plain.dataset.x_train)
    assert noise.start == plain.start
    assert not set(as_bytes(noise.dataset.x_train)) & set(as_bytes(digits.x_train))
    assert noise.dataset.x_train.shape == plain.dataset.x_train.shape
    assert torch.equal(noise.dataset.mean, digits.mean)
    other = matched(images="noise", seed=1)
    assert not torch.equal(other.dataset.x_train, noise.dataset.x_train)


def test_students_are_judged_by_their_transfer_images_at_their_resolution(digits, monkeypatch):
    settings = replace(matching.PRESETS["smoke"], transfer=40, evaluation_side=0.75)
    coarse = replace(settings.matching, resolution=8)
    settings, seen = replace(settings, matching=coarse), []
    place = "smallnets.studies.matching.experiments"
    monkeypatch.setattr(f"{place}.train_pair", lambda *_: ("teacher", "student", []))
    monkeypatch.setattr(
        f"{place}.measures", lambda *given: seen.append(given) or {"teacher": {}, "student": {}}
    )
    shown = []
    monkeypatch.setattr(
        f"{place}.answers_and_features",
        lambda network, _, images, *at: (
            shown.append((network, len(images), *at))
            or SimpleNamespace(logits=torch.eye(10)[digits.y_train[:40]])
        ),
    )
    finer = replace(coarse, teacher_resolution=16)
    for ask in (coarse, finer):
        found = matching.evaluate_pair(digits, StudentConfig(ask, 1), settings, 0)
        assert found == {key: {"accuracy train": 1.0} for key in ("teacher", "student")}
    assert shown[2:] == [("teacher", 40, 16, 0.75), ("student", 40, 8, 0.75)]
    for networks, dataset, _, side, _ in seen:
        assert networks == {"teacher": "teacher", "student": "student"}
        assert as_bytes(dataset.x_train) == as_bytes(digits.x_train[:40])
        assert torch.equal(dataset.x_test, digits.x_test)
        assert side == 0.75
    assert [one[2] for one in seen] == [{"teacher": 8, "student": 8}, {"teacher": 16, "student": 8}]


# --- 02 -------------------------------------------------------------------------------------------


def test_transfer_goes_from_the_first_classes_to_a_few_images_of_the_others(digits, monkeypatch):
    settings = replace(
        similarity.PRESETS["smoke"], teacher="convnet-3", student="convnet-2", shots=2
    )
    first, tuned, seen = [], [], {}

    def train(name, dataset, *_, **__):
        first.append(dataset)
        return build_network(name, dataset, len(first))

    def fit(network, dataset, training, **_):
        tuned.append((dataset, training))
        torch.nn.init.constant_(network.classifier.bias, 3.0)

    def distil(students, teacher, dataset, objectives, training, **_):
        seen.update(teacher=teacher, dataset=dataset, training=training, students=students)

    place = "smallnets.studies.similarity.experiments"
    for name, other in (("train_network", train), ("fit", fit), ("distil", distil)):
        monkeypatch.setattr(f"{place}.{name}", other)
    objectives = {"alone": None, "SP": None}
    similarity.transfer(digits, objectives, settings, 0)
    (pretraining, also), ((tuning, how),) = first, tuned
    assert as_bytes(pretraining.x_train) == as_bytes(also.x_train)
    assert as_bytes(pretraining.x_train) == as_bytes(digits.x_train[digits.y_train < 5])
    assert seen["dataset"] is tuning
    assert how == seen["training"] == settings.fine_tuning
    assert set(as_bytes(tuning.x_train)) < set(as_bytes(digits.x_train[digits.y_train >= 5]))
    assert len(tuning.y_train) == 10
    assert torch.equal(tuning.mean, pretraining.mean)
    assert as_bytes(tuning.x_test) == as_bytes(digits.x_test[digits.y_test >= 5])
    assert (seen["teacher"].classifier.bias == 3).all(), "the teacher was tuned"
    one, other = seen["students"].values()
    assert one is not other
    assert digest(one) == digest(other)


def test_students_of_other_batches_take_as_many_steps_under_the_same_teacher(digits, monkeypatch):
    settings = replace(similarity.PRESETS["smoke"], student="convnet-2", training=QUICK)
    trained, judged = [], []
    place = "smallnets.studies.similarity.experiments"
    monkeypatch.setattr(f"{place}.train_teacher", lambda *_: "teacher")
    monkeypatch.setattr(f"{place}.distil", lambda *given, **named: trained.append((given, named)))
    monkeypatch.setattr(f"{place}.measures", lambda *given: judged.append(given))
    similarity.compare(digits, {"alone": None}, settings, 2)
    similarity.compare(digits, {"alone": None}, settings, 2, batch_size=8)
    sizes = [(given[4].batch_size, given[4].epochs) for given, _ in trained]
    assert sizes == [(16, 4), (8, 2)]
    for (students, teacher, dataset, *_), named in trained:
        assert (teacher, named["seed"]) == ("teacher", 2)
        assert dataset is digits
        assert digest(students["alone"]) == digest(build_network("convnet-2", digits, 2))
    assert [given[1] for given in judged] == [digits, digits]


def test_corrupted_images_judge_the_students_of_the_comparison(digits, monkeypatch):
    settings, judged, trained = similarity.PRESETS["smoke"], [], []
    place = "smallnets.studies.similarity.experiments"

    def students(dataset, objectives, *_):
        trained.append((dataset, tuple(objectives)))
        return "teacher", {"alone": "student"}

    def measures(networks, dataset, _):
        judged.append(dataset)
        assert networks == {"teacher": "teacher", "alone": "student"}
        return {"alone": {"accuracy": len(judged), "agreement": 0.5}}

    monkeypatch.setattr(f"{place}.train_students", students)
    monkeypatch.setattr(f"{place}.measures", measures)
    weights = similarity.Weights(10, 10, 0.5, 4)
    settings = replace(settings, further=False)
    found = similarity.measure(digits, settings, weights, 2)
    assert (found["accuracy"], found["corrupted accuracy"]) == ({"alone": 1}, {"alone": 2})
    assert judged[0] is digits
    assert judged[1].key == similarity.corrupted(digits, 0).key
    assert trained == [(digits, tuple(similarity.compared(settings, weights)))]


# --- 05 -------------------------------------------------------------------------------------------


def test_accuracy_after_tuning_is_that_of_the_tuned_network(digits, monkeypatch):
    settings = replace(
        importance.PRESETS["smoke"], network="resnet-8-4", tuning=QUICK, gradual=1, levels=(0.5,)
    )
    place, epochs = "smallnets.studies.importance.experiments", []
    network = build_network("resnet-8-4", digits, 0).eval()
    groups, _, _ = importance.groups_and_costs(network, digits)
    everything = {name: torch.ones(group.size) for name, group in groups.items()}

    def fit(smaller, dataset, steps, **_):
        epochs.append(steps.epochs)
        torch.nn.init.zeros_(smaller.classifier.weight)
        torch.nn.init.constant_(smaller.classifier.bias, 0.0)
        smaller.classifier.bias.data[3] = 1.0  # says "three" to all

    by = []
    monkeypatch.setattr(
        f"{place}.masks_while_training",
        lambda *_, criterion: by.append(criterion) or everything,
    )
    monkeypatch.setattr(f"{place}.fit", fit)
    at_once = importance.prune_and_tune(network, digits, settings, 0, 1.0, everything)
    threes = (digits.y_test == 3).double().mean().item()
    assert at_once["accuracy"] == pytest.approx(threes)
    assert at_once["untuned"] == importance.evaluate_accuracy(network, digits)
    assert at_once["untuned"] != at_once["accuracy"]
    importance.prune_and_tune(network, digits, settings, 0, 1.0, None, criterion="magnitude")
    assert epochs == [4, 3], "epochs of pruning count among those of tuning"
    assert by == ["magnitude"]


def test_scores_in_training_mode_are_others(digits):
    network = build_network("resnet-8-4", digits, 0)
    network.train()(digits.for_choosing(8).images + 1)
    settings = replace(importance.PRESETS["smoke"], scored=16, score_batch=8)
    samples = importance.sampled(network.eval(), digits, settings)["samples"]
    assert samples["training mode"] != samples["16 images"]
    assert not network.training


def test_scores_by_chance_are_drawn_from_the_seed(digits, monkeypatch):
    seeds = []

    def scores(*_, generator):
        seeds.append(generator.initial_seed())
        raise InterruptedError

    monkeypatch.setattr("smallnets.studies.importance.estimates.scores", scores)
    network = build_network("resnet-8-4", digits, 0)
    for seed in (3, 4):
        with pytest.raises(InterruptedError):
            importance.all_scores(network, digits, importance.PRESETS["smoke"], seed)
    assert seeds == [3, 4]


# --- 06 -------------------------------------------------------------------------------------------


def test_a_choice_is_tuned_under_the_teacher_whose_layers_it_has(digits, monkeypatch):
    settings = replace(lana.PRESETS["smoke"], alpha=0.3, temperature=2.0, tuning=QUICK)
    place, seen = "smallnets.studies.lana.experiments", []
    network = SimpleNamespace(network="the teacher")
    pool = SimpleNamespace(stitched=lambda layered, choices: ("student", choices))
    monkeypatch.setattr(f"{place}.train_pool", lambda *_, **__: (network, pool))
    monkeypatch.setattr(f"{place}.fine_tune", lambda *given, **named: seen.append((given, named)))
    monkeypatch.setattr(f"{place}.evaluate_and_size", lambda student, _: {"of": student})
    assert tune(digits, settings, 5, (1, 0)) == {"of": ("student", (1, 0))}
    tune(digits, settings, 5, (1, 0), alpha=0.0)
    for (student, teacher, dataset, training), named in seen:
        assert (student, teacher) == (("student", (1, 0)), "the teacher")
        assert dataset is digits
        assert training == QUICK
        assert (named["seed"], named["temperature"]) == (5, 2.0)
    assert [named["alpha"] for _, named in seen] == [0.3, 0.0]


def test_candidates_and_searches_start_from_the_seed(digits, monkeypatch):
    settings = replace(lana.PRESETS["smoke"], teacher="resnet-8", pool=("dwsep3",))
    place, seeds, drawn = "smallnets.studies.lana.experiments", [], []
    teacher = lana.replaceable("resnet-8", digits).network
    monkeypatch.setattr(f"{place}.train_member", lambda *_: teacher)
    monkeypatch.setattr(
        f"{place}.distil_candidates", lambda *_, seed, cache_dir: seeds.append(seed)
    )
    pools = [lana.train_pool(digits, settings, seed)[1] for seed in (3, 3, 4)]
    assert set(seeds) == {3, 4}
    assert digest(pools[0]) == digest(pools[1]) != digest(pools[2])

    table = SimpleNamespace(rows=lambda *_: None)
    for name, found in {
        "train_pool": (None, SimpleNamespace(names=(), pairs=(), space=1)),
        "score_candidates": {"loss": None},
        "sizes": {"macs": None, "parameters": None},
        "budgets": ({"half": 1.0}, 0.0, 1.0),
        "Programme": None,
        "compare": {"diverse": {"loss": []}},
        "race": None,
    }.items():
        monkeypatch.setattr(f"{place}.{name}", lambda *_, found=found, **__: found)
    monkeypatch.setattr(f"{place}.Evaluator", lambda *_: lambda choices: None)
    monkeypatch.setattr(
        f"{place}.check_additivity", lambda *given: drawn.append(given[4].integers(1 << 40))
    )
    for seed in (3, 3, 4):
        lana.search(digits, settings, seed, table)
    assert drawn[0] == drawn[1] != drawn[2]


# --- 09 -------------------------------------------------------------------------------------------


def test_a_case_is_quantised_as_it_says(digits, monkeypatch):
    settings = replace(genie.PRESETS["smoke"], images=16, network="convnet-2")
    place, asked, learnt = "smallnets.studies.genie.experiments", [], []
    network, images = build_network("convnet-2", digits, 0).eval(), digits.for_choosing(16).images

    def quantised(network, weights, activations, *, mode, sample):
        asked.append((weights, activations, mode, sample))
        return network

    monkeypatch.setattr(f"{place}.quantize", quantised)
    monkeypatch.setattr(f"{place}.calibrate", lambda network, shown: learnt.append(shown))
    monkeypatch.setattr(
        f"{place}.reconstruct",
        lambda network, shown, how, *, seed: learnt.append((shown, how, seed)),
    )
    for case in (
        genie.Case(3, 4),
        genie.Case(3, 4, mode="adaround", drop=1.0, count=8, lr_bit=0.5),
        genie.Case(8, 6, mode="nearest"),
    ):
        quantize_case(network, case, images, settings, 7)
    assert asked == [
        (3, 4, "genie", settings.sample), (3, 4, "adaround", settings.sample),
        (8, 6, "nearest", settings.sample),
    ]  # fmt: skip
    (shown, how, seed), (fewer, other, _), first = learnt
    assert (len(shown), len(fewer), len(first)) == (16, 8, settings.reconstruction.init_images)
    assert (how.drop, how.lr_bit, seed) == (0.5, settings.reconstruction.lr_bit, 7)
    assert (other.drop, other.lr_bit) == (1.0, 0.5)


def test_images_are_made_in_the_way_of_their_name(digits, monkeypatch):
    settings = replace(genie.PRESETS["smoke"], images=16, network="convnet-2")
    place, asked = "smallnets.studies.genie.experiments", {}

    def made(network, count, shape, method, *, swing, settings, seed, cache_dir):
        asked[len(asked)] = (count, shape, method, swing, seed)
        return SimpleNamespace(images=torch.zeros(1))

    monkeypatch.setattr(f"{place}.train_teacher", lambda *_: None)
    monkeypatch.setattr(f"{place}.synthesize", made)
    monkeypatch.setattr(f"{place}.replace", lambda made, images: images)
    for seed, source in enumerate(genie.SOURCES):
        genie.synthesize_images(digits, settings, seed, source)
    assert list(asked.values()) == [
        (16, (1, 16, 16), method, swing, seed)
        for seed, (method, swing) in enumerate(genie.SOURCES.values())
    ]
    assert genie.SOURCES["GENIE-D"] == ("genie", True)
    assert genie.SOURCES["no swing"] == ("genie", False)


def test_errors_of_features_are_shares_of_the_originals(digits, monkeypatch):
    network = build_network("convnet-2", digits, 0).eval()
    rough = calibrate(quantize(network, 4, 4, mode="nearest"), digits.for_choosing(16).images)

    def pair(_):
        return (lambda x: (torch.ones(len(x), 2),)), (lambda x: (torch.full((len(x), 2), 3.0),))

    monkeypatch.setattr(rough, "pair", pair)
    assert evaluate_quantised(network, rough, digits)["error"] == 4
