"""What a condition is called is what is trained, and with what.

The trainings themselves are left out; what they would be given is looked at.
"""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from smallnets.distill import single_image as si
from smallnets.studies import single_image as study
from smallnets.studies.networks import build_network
from smallnets.studies.questions import Questioned, Questions
from smallnets.studies.seeds import teacher_seed
from smallnets.studies.single_image import students
from smallnets.studies.single_image.learning import Learning
from smallnets.training import Batch
from smallnets.training.checkpoint import weights_digest


def digest(network):
    return weights_digest(network.state_dict())


@pytest.fixture
def trained(digits, quick, monkeypatch):
    """trained(condition) -> what its student would be trained with."""
    seen = []

    def fit(network, dataset, training, *, seed, objective=None, label, cache_dir):
        seen.append(SimpleNamespace(
            data=dataset, training=training, seed=seed, objective=objective, label=label,
            start=digest(network), network=network,
        ))  # fmt: skip
        return [{"loss": 0.0, "train": 0.0, "real": 0.0}]

    monkeypatch.setattr(students, "fit", fit)

    def of(condition, seed=0):
        study.train_student(digits, quick, seed, condition)
        return seen[-1]

    return of


def first_batch(one):
    torch.manual_seed(0)
    return next(iter(one.data))[0]


def test_a_student_starts_with_its_seed_and_is_asked_as_the_settings_say(trained, digits, quick):
    one = trained(study.Condition("astronaut"), seed=3)
    assert one.seed == 3
    assert one.start == digest(build_network(quick.network, digits, 3))
    step = one.objective.objective
    assert step.imitation == quick.imitation
    assert torch.equal(step.normalise.mean.flatten(), digits.mean)
    start = build_network(quick.network, digits, teacher_seed(3, 0))
    assert digest(step.teacher) == digest(start)
    assert one.data.steps == quick.steps
    assert one.training.augmentation is None


def test_conditions_change_what_they_say(trained, digits, quick):
    plain = trained(study.Condition("astronaut"))
    every = study.core_conditions(replace(quick, thorough=True), "astronaut")
    every |= study.further_conditions(replace(quick, foreign="digits"), "astronaut")
    assert trained(every["longer"]).training.epochs == 2 * plain.training.epochs
    assert trained(every["argmax"]).objective.objective.imitation.loss == "argmax"
    assert trained(every["T = 20"]).objective.objective.imitation.temperature == 20
    assert trained(every["T² in the loss"]).objective.objective.imitation.squared
    assert trained(every["no light view"]).objective.objective.imitation.view == si.NO_VIEW
    narrow = trained(every["narrower"])
    assert narrow.start == digest(build_network(quick.narrow, digits, 0))
    teachers = [
        digest(trained(every[name]).objective.objective.teacher)
        for name in ("student", "short teacher", "heavily augmented teacher")
    ]
    assert len(set(teachers)) == 3
    labelled = trained(every["10 labelled images"])
    assert labelled.objective is None
    assert len(labelled.data.y_train) == 10
    assert labelled.training.epochs == quick.training.epochs * quick.steps


def test_what_is_shown(trained, digits, quick):
    every = study.core_conditions(quick, "astronaut")
    every |= study.further_conditions(replace(quick, foreign="digits"), "astronaut")
    sizes = {
        name: tuple(first_batch(trained(every[name])).shape)
        for name in ("student", "few images", "few images, patchified", "another data set")
    }
    batch = quick.training.batch_size
    assert set(sizes.values()) == {(batch, 1, 16, 16)}
    known = {x.tobytes() for x in digits.x_train.numpy()}
    shown = (255 * first_batch(trained(every["all images"]))).round().to(torch.uint8)
    assert {x.tobytes() for x in shown.numpy()} <= known
    few = (255 * first_batch(trained(every["few images"]))).round().to(torch.uint8)
    assert len({x.tobytes() for x in few.numpy()} & known) == quick.few
    pool = [first_batch(trained(study.Condition("astronaut", pool=5))) for _ in range(2)]
    assert len(torch.unique(pool[0], dim=0)) == 5
    foreign = students.foreign_pool(digits, replace(quick, foreign="glyphs10"))
    assert foreign.shape[1:] == (1, 16, 16)


def test_patches_of_students_and_those_held_out_are_others(quick):
    mine = study.patches_of("astronaut", quick, 0).take(range(20))
    unseen = study.held_out_patches("astronaut", quick, 0).take(range(20))
    assert not torch.equal(mine, unseen)
    plain = study.patches_of("astronaut", quick, 0, {"degrees": 0.0, "shear": 0.0})
    assert float(plain.parameters(range(9)).angle.abs().max()) == 0


def test_an_untrained_student_is_not_trained(digits, quick):
    student = study.train_student(digits, quick, 2, study.Condition("noise", length=0))
    assert student.history == []
    assert digest(student.network) == digest(build_network(quick.network, digits, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "patches are those of a source"),
        ({"source": "noise", "shown": "real"}, "patches are those of a source"),
        ({"source": "noise", "pool": 0}, "pool must be at least 1; got 0"),
        ({"source": "noise", "length": -1}, "length must be at least 0; got -1"),
        ({"source": "noise", "teacher": "bad"}, "teacher must be one of own, .*; got 'bad'"),
        ({"shown": "all"}, "shown must be one of patches, .*; got 'all'"),
    ],
)
def test_conditions_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        study.Condition(**options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1; got 0"),
        ({"pools": ()}, "pools must hold at least one number; got none"),
        ({"many": 5}, "many must be at least 10; got 5"),
        ({"frames": 1}, "frames must be at least 2; got 1"),
        ({"temperatures": (0.0,)}, "every one of temperatures must be greater than 0; got 0.0"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(study.PRESETS["small"], **changes)


def test_a_student_is_watched_without_a_change(digits):
    network = build_network("convnet-3", digits, 0)
    asked = Questions(digits.normalise(digits.x_test), digits.y_test)

    def objective(model, batch):
        return {"loss": model(batch.images).sum()}

    images = digits.normalise(digits.x_train[:8])
    terms = Questioned(objective, {"real": asked})(
        network.train(), Batch(images, digits.y_train[:8])
    )
    assert terms.keys() == {"loss", "real"}
    assert 0 <= terms["real"] <= 1
    assert network.training
    own = Questions(asked.images, network.eval()(asked.images).argmax(1))
    right = Questioned(lambda *_: {}, {"real": own})
    assert right(network, Batch(images, digits.y_train[:8]))["real"] == 1
    taught = Learning()(network, Batch(images, network(images).argmax(1)))
    assert taught["train"] == 1


def test_the_toy_is_what_it_says():
    points = study.scattered(50, 0, low=0.0)
    assert points.shape == (50, 2)
    assert points.min() >= 0
    assert study.spiral_teacher(study.grid(20)).argmax(1).unique().tolist() == [0, 1, 2]
    assert study.small_network(0)(points).shape == (50, 3)
