"""Learning rates, chosen on training images that were held out."""

from dataclasses import replace
from pathlib import Path

from smallnets.data import Dataset
from smallnets.studies.fidelity.conditions import Condition
from smallnets.studies.fidelity.plan import Settings
from smallnets.studies.fidelity.students import own_images, train_student, train_teacher
from smallnets.studies.networks import evaluate_accuracy
from smallnets.studies.study import Measures


def search(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> Measures:
    """Accuracy on held-out training images of teachers and students at several learning rates.

    Returns:
        "teacher, 0.3" (trained on labels), "SGD, 0.3" and "Adam, 0.01" (students of the settings'
        teacher) -> "accuracy".
    """
    judged = dataset.held_out(settings.held_out, seed)
    networks = {
        f"teacher, {rate:g}": train_teacher(
            judged, replace(settings, teaching=replace(settings.teaching, lr=rate)), seed, 0,
            cache_dir,
        )
        for rate in settings.rates
    }  # fmt: skip
    students = {f"SGD, {rate:g}": ("sgd", rate) for rate in settings.rates}
    students |= {f"Adam, {rate:g}": ("adam", rate) for rate in settings.adam_rates}
    for name, (optimizer, rate) in students.items():
        tried = replace(settings, adam_lr=rate, training=replace(settings.training, lr=rate))
        networks[name] = train_student(
            judged, tried, seed, Condition(optimizer=optimizer), cache_dir
        )
    judged = judged.normalised_like(own_images(judged, seed))  # as all of them know it
    return {
        name: {"accuracy": evaluate_accuracy(one.network, judged)} for name, one in networks.items()
    }
