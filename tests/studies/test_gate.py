"""Test images choose nothing: who looks at them is named, and what is chosen does not see them."""

import ast
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import smallnets
from smallnets.data import load
from smallnets.distill.similarity import DistillationObjective
from smallnets.quantize.layered import to_layered
from smallnets.search.lana.pool import build_pool
from smallnets.search.lana.tuning import evaluate_network
from smallnets.studies import fidelity, genie, importance, lana, layered, matching, similarity
from smallnets.studies.lana.experiments import (
    Evaluator,
    evaluate_and_size,
    judging_set,
    score_candidates,
)
from smallnets.studies.lana.networks import replaceable
from smallnets.studies.networks import build_network, evaluate_accuracy

LIBRARY = Path(smallnets.__file__).parent
CHAPTERS = LIBRARY.parents[1] / "chapters"
TEST_PART = {"x_test", "y_test"}

# The functions that report what a study has found. Everything else chooses, or trains.
REPORTS = {
    "studies/fidelity/experiments.py": {"first_disagreement"},
    "studies/fidelity/students.py": {"on_test"},
    "studies/genie/experiments.py": {"evaluate_quantised"},
    "studies/lana/experiments.py": {"evaluate_on_test"},
    "studies/landscape/pruned.py": {"average_macs_on_test"},
    "studies/layered/experiments.py": {"changed_answers", "confidences"},
    "studies/networks.py": {"evaluate_accuracy"},
    "studies/replay/learners.py": {"asked"},  # of a task for choosing: images that were held out
    "studies/replay/scenarios.py": {"moved"},  # renumbers the classes of both parts
    "studies/single_image/clips.py": {"real_clips"},  # sets both parts in motion
    "studies/single_image/experiments.py": {
        "alignment",
        "features_of",
        "labels_of_test",
        "logits_on_test",
    },
    "studies/single_image/speech.py": {"divided"},  # divides both parts by words
    "studies/single_image/students.py": {"asked_on_test"},
    "studies/watching.py": {"watched"},
    "studies/study.py": {"open_study"},  # counts them
}
BEST = ("study.best_setting", "study.best_weights")  # they choose by results
# What chapters make of test images: the statements' names.
SHOWN = {
    "01_resource_efficient": {"testing"},  # of a table by which nothing is chosen
    "08_vertical_layering": {"pixels", "count"},
    "09_genie": {"full", "unseen"},
}


def readers(source: str) -> set[str]:
    """Functions of a module that name a test part; "" is the module itself."""
    found = set()

    def visit(node: ast.AST, place: str) -> None:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            place = f"{place}.{node.name}".lstrip(".")
        names = {
            getattr(node, "attr", None),  # dataset.x_test
            getattr(node, "arg", None),  # replace(dataset, x_test=...)
            node.value if isinstance(node, ast.Constant) else None,  # getattr(dataset, "x_test")
        }
        if names & TEST_PART:
            found.add(place)
        for child in ast.iter_child_nodes(node):
            visit(child, place)

    visit(ast.parse(source), "")
    return found


STUDIES = sorted((LIBRARY / "studies").rglob("*.py"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_only_what_reports_looks_at_test_images(path):
    name = path.relative_to(LIBRARY).as_posix()
    assert readers(path.read_text()) == REPORTS.get(name, set())


def test_methods_look_at_test_images_in_their_diagnostics_only():
    """Beside them, one function makes a data set of recordings, of both parts."""
    rooms = ("distill", "prune", "search", "quantize", "training", "deploy")
    found = {
        path.stem
        for room in rooms
        for path in (LIBRARY / room).rglob("*.py")
        if readers(path.read_text())
    }
    assert found == {"diagnostics", "sound"}


@pytest.mark.parametrize(
    "source",
    [
        "def judging_set(data):\n    return data.normalise(data.x_test[:9]), data.y_train[:9]",
        "def judging_set(data):\n    return getattr(data, 'y_test')",
        "def judging_set(data):\n    return replace(data, x_test=data.x_train)",
        "def judging_set(data):\n    return [part for part in ('x_test',)]",
    ],
)
def test_a_look_at_test_images_is_noticed(source):
    assert readers(source) == {"judging_set"}
    assert readers(source.replace("test", "train")) == set()


def statements(chapter: Path) -> list[ast.stmt]:
    """The top statements of a notebook's code cells, in order."""
    cells = json.loads(chapter.read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    plain = [re.sub(r"^(\s*)%.*", r"\1pass", source, flags=re.MULTILINE) for source in sources]
    return [statement for source in plain for statement in ast.parse(source).body]


def assigned(statement: ast.stmt) -> set[str]:
    """Names that a statement gives a value."""
    if isinstance(statement, ast.FunctionDef):
        return {statement.name}
    return {
        node.id
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


@pytest.mark.parametrize("chapter", sorted(CHAPTERS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_chapters_choose_on_held_out_images(chapter):
    made: dict[str, str] = {}
    for statement in statements(chapter):
        text = ast.unparse(statement)
        if "study.sweep(" in text or "study.search(" in text:
            assert ".held_out(" in text
        for node in ast.walk(statement):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in BEST:
                assert ".held_out(" in made[ast.unparse(node.args[0])]
        if readers(text):
            assert assigned(statement) & SHOWN[chapter.stem], text
        made |= dict.fromkeys(assigned(statement), text)


@pytest.fixture(scope="module")
def digits():
    return load("digits").take(120, 60)


@pytest.fixture(scope="module")
def others(digits):
    """The same data set with a test part of noise and of a single label."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, digits.x_test.shape, generator=generator, dtype=torch.uint8)
    return replace(digits, x_test=noise, y_test=torch.zeros_like(digits.y_test))


def test_the_gate_gives_the_first_training_images(digits):
    images, labels = digits.for_choosing(40)
    assert torch.equal(images, digits.normalise(digits.x_train[:40]))
    assert torch.equal(labels, digits.y_train[:40])
    assert len(digits.for_choosing(10_000).images) == len(digits.y_train)
    with pytest.raises(ValueError, match="count must be at least 1; got 0"):
        digits.for_choosing(0)


def test_scores_of_channels_are_taken_on_training_images(digits):
    settings = replace(importance.PRESETS["smoke"], scored=48, score_batch=16)
    mine, others = importance.scoring_batches(digits, settings)
    for batches, place in ((mine, slice(48)), (others, slice(48, 96))):
        assert [len(images) for images, _ in batches] == [16] * 3
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        assert torch.equal(images, digits.normalise(digits.x_train[place]))
        assert torch.equal(labels, digits.y_train[place])


@pytest.fixture(scope="module")
def stitched(digits):
    """An untrained teacher, its candidates and settings that judge on few images."""
    settings = replace(lana.PRESETS["smoke"], judged=20, pool=("skip",))
    layered_ = replaceable(settings.teacher, digits)
    return layered_, build_pool(layered_, settings.pool), settings


def test_candidates_are_judged_on_training_images(digits, others, stitched):
    network, pool, settings = stitched
    images, labels = judging_set(digits, settings)
    assert torch.equal(images, digits.normalise(digits.x_train[:20]))
    assert torch.equal(labels, digits.y_train[:20])
    choices = (1, *(0 for _ in network.names[1:]))
    evaluate, unlike = (Evaluator(network, pool, one, settings) for one in (digits, others))
    assert evaluate(choices) == unlike(choices)
    full, other = evaluate.in_full(choices), unlike.in_full(choices)
    differing = {name for name in full if full[name] != other[name]}
    assert differing == {"test loss", "test accuracy"}
    plain = Evaluator(network, pool, digits, replace(settings, recalibrate=False))
    expected = evaluate_network(
        pool.stitched(network, choices), digits.normalise(digits.x_test[:40]), digits.y_test[:40]
    )
    assert plain.in_full(choices)["test loss"] == expected["loss"]
    scores, same = (score_candidates(network, pool, one, settings) for one in (digits, others))
    for kind, table in scores.items():
        for row, equal in zip(table, same[kind], strict=True):
            assert row.tolist() == equal.tolist()


def test_activations_are_calibrated_on_training_images(digits):
    settings = replace(genie.PRESETS["smoke"], images=12)
    images = genie.calibration_images(digits, settings)
    assert torch.equal(images, digits.normalise(digits.x_train[:12]))


@pytest.mark.parametrize(("variant", "widths", "renewed"), [("layered", (4, 2), 3), (4, (4,), 2)])
def test_statistics_of_layered_networks_are_renewed_on_training_images(
    digits, monkeypatch, variant, widths, renewed
):
    """Of every width that the file holds, and of the widths to which one network is cut."""
    settings = replace(
        layered.PRESETS["smoke"], network="convnet-4", widths=(4, 2), calibration=30, seeds=1
    )
    network = to_layered(build_network("convnet-4", digits, 0), widths)
    network.start(digits.for_choosing(8).images)
    seen = []
    place = "smallnets.studies.layered.experiments"
    monkeypatch.setattr(f"{place}.train_quantised", lambda *_: (network, [{}]))
    monkeypatch.setattr(
        f"{place}.recalibrate_width", lambda one, images, *_: seen.append(images) or one
    )
    layered.evaluate_variant(digits, settings, 0, variant)
    assert len(seen) == renewed
    for batches in seen:
        assert torch.equal(torch.cat(list(batches)), digits.normalise(digits.x_train[:30]))


def test_conflicts_of_gradients_are_those_of_training_images(digits, others):
    network = to_layered(build_network("convnet-4", digits, 0), (4, 2))
    network.start(digits.for_choosing(8).images)
    grams = [layered.gradient_gram(network, one, 16) for one in (digits, others)]
    assert torch.equal(*grams)
    assert not torch.equal(grams[0], layered.gradient_gram(network, digits, 24))


def test_weights_of_losses_are_scaled_on_training_images(digits, others, monkeypatch):
    settings = similarity.PRESETS["smoke"]
    monkeypatch.setattr(
        "smallnets.studies.similarity.experiments.train_teacher",
        lambda dataset, settings, *_: build_network(settings.teacher, dataset, 7).eval(),
    )
    asked = {"x": DistillationObjective(sp=10, normalise="none")}
    one, other = (similarity.equal_start(asked, data, settings, 0) for data in (digits, others))
    assert one == other != asked


def as_bytes(images):
    return {image.numpy().tobytes() for image in images}


def test_rates_are_chosen_on_held_out_training_images(digits, monkeypatch):
    settings = replace(fidelity.PRESETS["smoke"], held_out=20, rates=(0.1, 0.3), adam_rates=(1e-3,))
    trained, judged, rates = [], [], []
    place = "smallnets.studies.fidelity.choosing"

    def teacher(dataset, settings, *_):
        trained.append(dataset)
        rates.append(settings.teaching.lr)
        return fidelity.Trained(build_network("convnet-4", dataset, 0).eval(), None, [])

    def student(dataset, settings, seed, condition, cache_dir):
        trained.append(dataset)
        adam = condition.optimizer == "adam"
        rates.append(settings.adam_lr if adam else settings.training.lr)
        return fidelity.Trained(build_network("convnet-4", dataset, 0).eval(), None, [])

    def accuracy(network, dataset):
        judged.append(dataset)
        return 0.5

    monkeypatch.setattr(f"{place}.train_teacher", teacher)
    monkeypatch.setattr(f"{place}.train_student", student)
    monkeypatch.setattr(f"{place}.evaluate_accuracy", accuracy)
    assert set(fidelity.search(digits, settings, 0)) == {
        "teacher, 0.1", "teacher, 0.3", "SGD, 0.1", "SGD, 0.3", "Adam, 0.001",
    }  # fmt: skip
    assert rates == [0.1, 0.3, 0.1, 0.3, 0.001]
    known = as_bytes(digits.x_train)
    for dataset in judged:
        assert len(dataset.y_test) == 20
        assert as_bytes(dataset.x_test) <= known
    for dataset in trained:
        assert as_bytes(dataset.x_train) == known - as_bytes(judged[0].x_test)


def test_training_images_of_students_are_random_ones_of_the_training_part(digits, others):
    view = fidelity.PRESETS["smoke"].training.augmentation
    seen = [fidelity.seen_images(one, view, 16, 40) for one in (digits, others)]
    assert torch.equal(*seen)


def test_pretraining_has_none_of_the_transfer_images(digits, monkeypatch):
    settings = matching.PRESETS["smoke"]
    settings = replace(settings, transfer=64, training=replace(settings.training, batch_size=32))
    seen = []
    monkeypatch.setattr(
        "smallnets.studies.matching.experiments.match",
        lambda student, teachers, dataset, *_, **__: seen.append((tuple(teachers), dataset)),
    )
    matching.pretrained(digits, settings, "convnet-4", 0)
    (teachers, dataset), transfer = seen[0], matching.transfer_set(digits, settings)
    assert not teachers
    assert as_bytes(transfer.x_train) == as_bytes(digits.x_train[:64])
    assert as_bytes(dataset.x_train) == as_bytes(digits.x_train[64:])
    assert torch.equal(dataset.y_train, digits.y_train[64:])
    assert torch.equal(dataset.mean, digits.mean)
    for transfer in (100, 120):  # too few are left, or none
        matching.pretrained(digits, replace(settings, transfer=transfer), "convnet-4", 0)
        assert seen[-1][1] is digits


def test_accuracies_are_those_of_test_images(digits):
    network = build_network("convnet-4", digits, 0).eval()
    said = {
        part: fidelity.logits_of(network, digits, images).argmax(1)
        for part, images in (("train", digits.x_train), ("test", digits.x_test))
    }
    right = replace(digits, y_test=said["test"], y_train=(said["train"] + 1) % 10)
    wrong = replace(digits, y_test=(said["test"] + 1) % 10, y_train=said["train"])
    assert [evaluate_accuracy(network, data) for data in (right, wrong)] == [1, 0]
    assert [evaluate_and_size(network, data)["accuracy"] for data in (right, wrong)] == [1, 0]
