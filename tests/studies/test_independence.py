"""Networks that should be independent are, and what is kept is kept under all that decides it."""

from dataclasses import replace

import pytest

from smallnets.data import load
from smallnets.distill import matching as method
from smallnets.distill.fidelity import Objective
from smallnets.studies import (
    condense,
    fidelity,
    genie,
    importance,
    lana,
    layered,
    matching,
    replay,
    similarity,
    single_image,
)
from smallnets.studies.matching import StudentConfig
from smallnets.studies.networks import build_network, train_network
from smallnets.training import TrainSettings
from smallnets.training.checkpoint import weights_digest

BRIEF = TrainSettings(epochs=1, batch_size=32, device="cpu", precision="32-true")


def digest(network):
    return weights_digest(network.state_dict())


@pytest.fixture(scope="module")
def digits():
    return load("digits").take(96, 40)


def test_members_of_an_ensemble_are_different_networks(digits, monkeypatch):
    settings = replace(
        fidelity.PRESETS["smoke"], teaching=BRIEF, training=BRIEF, network="convnet-2"
    )
    asked = []
    monkeypatch.setattr(
        "smallnets.studies.fidelity.students.fit",
        lambda model, *_, objective, label, **__: (
            asked.append(objective.objective.teacher.members) if label == "student" else None
        ),
    )
    ask = fidelity.Condition(objective=Objective(members=3))
    fidelity.train_student(digits, settings, 1, ask)
    fidelity.train_student(digits, settings, 1, fidelity.Condition(teacher=1))
    three, another = asked
    digests = [digest(member) for member in three]
    assert len(set(digests)) == 3
    assert [digest(member) for member in another] == digests[1:2]


@pytest.fixture
def taught(digits, monkeypatch):
    """taught(seed) -> the teachers of a matched student with two, and the student's start."""
    preset = matching.PRESETS["smoke"]
    settings = replace(
        preset, teaching=BRIEF, training=BRIEF, teacher="convnet-2", student="convnet-2",
        transfer=40, matching=replace(preset.matching, resolution=8),
    )  # fmt: skip
    real, asked = method.match, []

    def match(student, teachers, *arguments, label, **others):
        if label == "teacher":
            return real(student, teachers, *arguments, label=label, **others)
        asked.append((tuple(map(digest, teachers)), digest(student)))
        return []

    monkeypatch.setattr("smallnets.studies.matching.experiments.match", match)

    def call(seed):
        config = StudentConfig(settings.matching, 1, teachers=2)
        matching.train_pair(digits, config, settings, seed)
        return asked[-1]

    return call


def test_two_teachers_are_two_networks_and_those_of_other_seeds_are_others(taught):
    teachers, starts = zip(taught(0), taught(5), strict=True)
    assert len({*teachers[0], *teachers[1]}) == 4
    assert starts[0] != starts[1]


def test_networks_of_a_seed_start_and_are_trained_by_it(digits):
    starts = [digest(build_network("convnet-2", digits, seed)) for seed in (0, 0, 1)]
    assert starts[0] == starts[1] != starts[2]
    ends = [digest(train_network("convnet-2", digits, BRIEF, seed)) for seed in (0, 0, 1)]
    assert ends[0] == ends[1] != ends[2]


def test_the_training_of_a_network_draws_from_its_seed(digits, monkeypatch):
    seeds = []
    monkeypatch.setattr("smallnets.studies.networks.fit", lambda *_, seed, **__: seeds.append(seed))
    for seed in (3, 4):
        train_network("convnet-2", digits, BRIEF, seed)
    assert seeds == [3, 4]


def brief(study, **changes):
    """Smoke settings of a study whose trainings are one epoch long."""
    preset = study.PRESETS["smoke"]
    trainings = {
        name: BRIEF for name, one in vars(preset).items() if isinstance(one, TrainSettings)
    }
    return replace(preset, **trainings, **changes)


@pytest.mark.parametrize(
    ("train", "settings"),
    [
        (
            lambda data, settings, seed: condense.embedding_bands(
                data, settings, seed
            ).seen.networks[-1],
            brief(condense),
        ),
        (similarity.train_teacher, brief(similarity, teacher="convnet-2")),
        (
            lambda data, settings, seed: fidelity.train_teacher(data, settings, seed).network,
            brief(fidelity, network="convnet-2"),
        ),
        (
            matching.train_teacher,
            brief(matching, teacher="convnet-2", published=None),
        ),
        (importance.train_whole, brief(importance, network="convnet-2")),
        (layered.train_float, brief(layered, network="convnet-2")),
        (genie.train_teacher, brief(genie, network="convnet-2")),
        (
            lambda data, settings, seed: single_image.train_teacher(data, settings, seed).network,
            brief(single_image, network="convnet-2"),
        ),
        (
            lambda data, settings, seed: replay.train_first(data, settings, seed).network,
            brief(replay, network="convnet-2", old=tuple(range(6)), new=tuple(range(6, 10))),
        ),
        (
            lambda data, settings, seed: lana.train_member("resnet-8", data, settings, seed),
            brief(lana),
        ),
    ],
    ids=["10", "02", "03", "04", "05", "08", "09", "11", "12", "06"],
)
def test_a_chapters_first_network_depends_on_its_seed(digits, train, settings):
    ends = [digest(train(digits, settings, seed)) for seed in (0, 0, 1)]
    assert ends[0] == ends[1] != ends[2]


def test_every_assessment_is_kept_under_its_own_name(digits, tmp_path, monkeypatch):
    """What decides a quantised network decides the name under which its measures are kept."""
    settings = brief(genie, network="convnet-2", images=16)
    asked = []

    def quantised(network, case, images, settings, seed):
        asked.append((case, seed))
        return network, []

    place = "smallnets.studies.genie.experiments"
    network = build_network("convnet-2", digits, 3)
    monkeypatch.setattr(f"{place}.train_teacher", lambda *_: network)
    monkeypatch.setattr(f"{place}.quantize_case", quantised)
    monkeypatch.setattr(f"{place}.evaluate_quantised", lambda *_: {"accuracy": 0.5})
    case, images = genie.Case(4, 4), genie.calibration_images(digits, settings)
    longer = replace(settings.reconstruction, iterations=99)
    different = [
        {},
        {"case": replace(case, weights=3)},
        {"case": replace(case, drop=0.25)},
        {"images": images + 1e-3},
        {"seed": 1},
        {"settings": replace(settings, reconstruction=longer)},
        {"dataset": digits.take(test=20)},
    ]
    for count, changes in enumerate(different, start=1):
        job = {"dataset": digits, "settings": settings, "seed": 0, "case": case, "images": images}
        for _ in range(2):
            genie.assess(**{**job, **changes}, cache_dir=tmp_path)
        assert len(asked) == len(list(tmp_path.iterdir())) == count, changes
