"""The paper's experiments, one seed a call so that seeds can run side by side.

Every experiment trains students without looking at test labels, and measures each against its
teacher on the test images ("agreement", "kl", ...) and on training images as the student saw them
("train agreement", "train kl").
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from smallnets import checks, measure
from smallnets.data import Augmentation, Dataset, load
from smallnets.distill.fidelity.objective import Ensemble, Objective, Reduced, distill_from_ensemble
from smallnets.distill.fidelity.policies import policies
from smallnets.distill.fidelity.sources import ClassGaussian, foreign_images, halves
from smallnets.measure import CalibrationBins
from smallnets.studies.fidelity.plan import Settings
from smallnets.studies.fidelity.students import (
    StudentEvaluator,
    calibration_on_test,
    distill_and_evaluate,
    evaluate_plain,
    logits_on_test,
    plain_student,
    train_teacher,
)
from smallnets.studies.networks import build_network, evaluate_accuracy
from smallnets.studies.study import Measures
from smallnets.training import TrainSettings, observe


class Outcome(NamedTuple):
    """What one seed of the main comparison gave."""

    measures: Measures
    teachers: dict[str, Tensor]  # test logits (n, classes) of the teacher of every student
    students: dict[str, Tensor]  # test logits (n, classes) of every student
    calibration: dict[str, CalibrationBins]  # of every student, on the test images


def name_of(members: int, temperature: float) -> str:
    """How a student of the main comparison is called."""
    return f"m = {members}, τ = {temperature:g}"


def ensembles(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> Outcome:
    """Students of the teacher's own architecture under ensembles of several sizes.

    The students of a seed start alike, see the same images, and differ in how many teachers they
    have and at which temperature.
    """
    teachers = [
        train_teacher(dataset, settings, seed, member, cache_dir)
        for member in range(max(settings.members))
    ]
    objectives = {
        name_of(m, tau): Objective(members=m, temperature=tau)
        for m in settings.members
        for tau in settings.temperatures
    }
    students = {name: build_network(settings.network, dataset, seed) for name in objectives}
    plain, rest = name_of(1, settings.temperature), dict(students)
    if rest.pop(plain, None) is not None:  # other experiments need it too
        students[plain] = plain_student(dataset, settings, teachers[0], seed, cache_dir)
    wanted = {name: objectives[name] for name in rest}
    distill_from_ensemble(
        rest, Ensemble(teachers), dataset, wanted, settings.training, seed=seed, cache_dir=cache_dir
    )
    outcome = Outcome({}, {}, {}, {})
    for m in settings.members:
        teacher = Reduced(Ensemble(teachers[:m]))
        evaluate = StudentEvaluator(teacher, dataset, settings.training)
        for name in (name_of(m, tau) for tau in settings.temperatures):
            outcome.measures[name] = evaluate(students[name])
            outcome.teachers[name] = evaluate.teacher_logits[0]
            outcome.students[name] = logits_on_test(students[name], dataset)
            outcome.calibration[name] = calibration_on_test(outcome.students[name], dataset)
    return outcome


def with_control(outcomes: list[Outcome]) -> list[Measures]:
    """Measures of every seed, with the agreement that costs no distillation.

    "control" is the agreement of a teacher with the student of *another* seed's teacher: two
    networks trained by the same recipe that have never met. "excess" is what agreement adds to it.

    Raises:
        ValueError: fewer than two seeds.
    """
    count = checks.at_least("number of seeds for a control", len(outcomes), 2)
    results = []
    for seed, outcome in enumerate(outcomes):
        others = outcomes[(seed + 1) % count].students
        one: Measures = {}
        for name, known in outcome.measures.items():
            control = measure.agreement(outcome.teachers[name], others[name])
            one[name] = {**known, "control": control, "excess": known["agreement"] - control}
        results.append(one)
    return results


def data_policies(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> Measures:
    """Self-distillation on each of the paper's kinds of distillation data, as often as any other.

    Generated images come from `ClassGaussian`, a stand-in for the paper's adversarial network.
    """
    teacher = train_teacher(dataset, settings, seed, 0, cache_dir)
    generator = torch.Generator().manual_seed(seed)
    made = ClassGaussian.fitted(dataset).sample(len(dataset.y_train), generator)
    foreign = None
    if settings.foreign is not None:
        foreign = foreign_images(
            dataset, load(settings.foreign, train=settings.foreign_images, test=1)
        )
    views = policies(dataset, settings.training.view, made, foreign, settings.share)
    results: Measures = {}
    for name in [one for one in views if settings.views is None or one in settings.views]:
        if name == "baseline":
            results |= evaluate_plain(name, dataset, settings, teacher, seed, cache_dir)
            continue
        students = {name: build_network(settings.network, dataset, seed)}
        objectives = {name: Objective(temperature=settings.temperature)}
        training = replace(settings.training, augmentation=views[name])
        results |= distill_and_evaluate(
            dataset, teacher, students, objectives, training, seed, cache_dir
        )
    return results


def of_equal_length(training: TrainSettings, images: int, reference: int) -> TrainSettings:
    """The training on `images` images with about as many steps as on `reference` of them."""
    batch_size = min(training.batch_size, images)
    steps = training.epochs * (reference // training.batch_size)
    per_epoch = images // batch_size
    longer = training.with_epochs(max(1, round(steps / per_epoch)))
    return replace(longer, batch_size=batch_size)


def growing(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> Measures:
    """The easy case: a teacher of few labelled images, and more and more unlabelled ones for the
    student.

    No augmentation, and the same number of steps for every amount. Train agreement is measured on
    the images that the student was shown.
    """
    count = max(settings.training.batch_size, int(settings.labelled * len(dataset.y_train)))
    bare = Augmentation(crop=0)
    few = dataset.take(train=count)
    teaching = of_equal_length(
        replace(settings.teaching, augmentation=bare), count, len(dataset.y_train)
    )
    teacher = train_teacher(few, replace(settings, teaching=teaching), seed, 0, cache_dir)
    results: Measures = {}
    for amount in settings.amounts:
        shown = dataset.take(train=min(count * amount, len(dataset.y_train)))
        training = of_equal_length(
            replace(settings.training, augmentation=bare),
            len(shown.y_train),
            len(dataset.y_train),
        )
        name = str(len(shown.y_train))
        students = {name: build_network(settings.network, dataset, seed)}
        objectives = {name: Objective(temperature=settings.temperature)}
        # Pixels are normalised as for the teacher, whatever the student is shown.
        shown = shown.normalised_like(few)
        results |= distill_and_evaluate(
            shown, teacher, students, objectives, training, seed, cache_dir
        )
    return results


def recycled(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> Measures:
    """Is it harm to distil on the teacher's own images? Section 5.2.

    The teacher learns from one half, D0; students are distilled on D0, on the other half D1, and on
    both, all for the same number of steps.
    """
    own, fresh = halves(dataset, seed)
    whole = len(dataset.y_train)
    teaching = of_equal_length(settings.teaching, len(own.y_train), whole)
    teacher = train_teacher(own, replace(settings, teaching=teaching), seed, 0, cache_dir)
    results: Measures = {}
    for name, part in (("D0", own), ("D1", fresh), ("D0 and D1", dataset)):
        training = of_equal_length(settings.training, len(part.y_train), whole)
        students = {name: build_network(settings.network, dataset, seed)}
        objectives = {name: Objective(temperature=settings.temperature)}
        shown = part.normalised_like(own)
        results |= distill_and_evaluate(
            shown, teacher, students, objectives, training, seed, cache_dir
        )
    return results


def capacities(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> Measures:
    """Students narrower, equal and wider than one teacher, side by side."""
    teacher = train_teacher(dataset, settings, seed, 0, cache_dir)
    others = {name: build_network(name, dataset, seed) for name in settings.others}
    objectives = {name: Objective(temperature=settings.temperature) for name in others}
    found = distill_and_evaluate(
        dataset, teacher, others, objectives, settings.training, seed, cache_dir
    )
    found |= evaluate_plain(settings.network, dataset, settings, teacher, seed, cache_dir)
    sizes = {name: measure.parameters(build_network(name, dataset, 0)) for name in found}
    return {name: found[name] for name in sorted(found, key=lambda name: sizes[name])}


def targets(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> Measures:
    """What the student is asked to match: labels in several weights, and other losses."""
    teacher = train_teacher(dataset, settings, seed, 0, cache_dir)
    base = Objective(temperature=settings.temperature)
    objectives = {f"α = {a:g}": replace(base, alpha=a) for a in settings.alphas}
    others = ("symmetric", "reverse", "hard", "mixed", "brier", "logit")
    objectives |= {loss: replace(base, loss=loss) for loss in others}
    students = {name: build_network(settings.network, dataset, seed) for name in objectives}
    plain = evaluate_plain("α = 0", dataset, settings, teacher, seed, cache_dir)
    return plain | distill_and_evaluate(
        dataset, teacher, students, objectives, settings.training, seed, cache_dir
    )


def optimisers(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> Measures:
    """SGD and Adam, each for several lengths of training: names like "SGD, 16 epochs"."""
    teacher = train_teacher(dataset, settings, seed, 0, cache_dir)
    results: Measures = {}
    for label, name, rate in (
        ("SGD", "sgd", settings.training.lr),
        ("Adam", "adam", settings.adam_lr),
    ):
        for length in settings.lengths:
            epochs = max(1, round(length * settings.training.epochs))
            final = min(settings.training.final_lr, rate)
            training = settings.training.with_epochs(epochs)
            training = replace(training, optimizer=name, lr=rate, final_lr=final)
            called = f"{label}, {epochs} epochs"
            if training == settings.training:
                results |= evaluate_plain(called, dataset, settings, teacher, seed, cache_dir)
                continue
            students = {called: build_network(settings.network, dataset, seed)}
            objectives = {called: Objective(temperature=settings.temperature)}
            results |= distill_and_evaluate(
                dataset, teacher, students, objectives, training, seed, cache_dir
            )
    return results


def search(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> Measures:
    """Learning rates of teacher and student, judged on held-out training images.

    Returns:
        Measures on them, "accuracy" among them, of "teacher, 0.3" (trained on labels), "SGD, 0.3"
        and "Adam, 0.01" (students of the settings' teacher).
    """
    judged = dataset.held_out(settings.held_out, seed)
    results: Measures = {}
    for rate in settings.rates:
        teaching = replace(settings.teaching, lr=rate)
        taught = train_teacher(judged, replace(settings, teaching=teaching), seed, 0, cache_dir)
        results[f"teacher, {rate:g}"] = {"accuracy": evaluate_accuracy(taught, judged)}
    teacher = train_teacher(judged, settings, seed, 0, cache_dir)
    candidates = {f"SGD, {rate:g}": ("sgd", rate) for rate in settings.rates}
    candidates |= {f"Adam, {rate:g}": ("adam", rate) for rate in settings.adam_rates}
    for name, (optimizer, rate) in candidates.items():
        final = min(settings.training.final_lr, rate)
        training = replace(settings.training, optimizer=optimizer, lr=rate, final_lr=final)
        students = {name: build_network(settings.network, judged, seed)}
        objectives = {name: Objective(temperature=settings.temperature)}
        results |= distill_and_evaluate(
            judged, teacher, students, objectives, training, seed, cache_dir
        )
    return results


def other_networks(
    dataset: Dataset,
    settings: Settings,
    seed: int,
    cache_dir: Path | None = None,
    network: str = "rows-16",
) -> Measures:
    """Ensembles of a recurrent network: a stand-in for the paper's experiment on text.

    Where the paper's LSTM reads words, this one reads the rows of an image.
    """
    changed = replace(settings, network=network, temperatures=(settings.temperature,))
    outcome = ensembles(dataset, changed, seed, cache_dir)
    return outcome.measures


def representations(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> dict[str, dict[str, float]]:
    """CKA with the teacher's stages of a student's, and of another teacher's, on test images.

    Returns:
        "student" and "another teacher" -> stage -> alignment.
    """
    teacher = train_teacher(dataset, settings, seed, 0, cache_dir)
    other_teacher = train_teacher(dataset, settings, seed, 1, cache_dir)
    student = plain_student(dataset, settings, teacher, seed, cache_dir)
    images = dataset.normalise(dataset.x_test[:500])
    stages = teacher.stage_names
    with torch.no_grad():
        theirs = observe(teacher.eval(), images, stages).features
        return {
            name: {
                stage: measure.cka(
                    theirs[stage], observe(one.eval(), images, stages).features[stage]
                )
                for stage in stages
            }
            for name, one in (("student", student), ("another teacher", other_teacher))
        }
