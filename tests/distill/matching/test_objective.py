import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smallnets.distill.classic import kd_loss
from smallnets.distill.matching import (
    VIEWS,
    FunctionMatching,
    Matching,
    PrecomputedLogits,
    ensemble,
    label_loss,
    match,
    mix,
    precomputed_logits,
    unlabelled,
)
from smallnets.models import convnet
from smallnets.training import Batch, seeded
from smallnets.training.checkpoint import weights_digest

CONSISTENT = [name for name, view in VIEWS.items() if view.relation == "same"]
FIXED = [name for name, view in VIEWS.items() if view.relation == "fixed"]


def network(seed=0, width=2, channels=1):
    with seeded(seed):
        return convnet(width, 10, channels, norm="group").eval()


def digest(model):
    return weights_digest(model.state_dict())


@pytest.fixture
def batch(digits, generator):
    which = torch.arange(24)
    return Batch(digits.normalise(digits.x_train[which]), digits.y_train[which], which, generator)


class Spy(nn.Module):
    """Remembers what it was shown."""

    def __init__(self, network):
        super().__init__()
        self.network, self.seen = network, []

    def forward(self, x):
        self.seen.append(x)
        return self.network(x)


@pytest.mark.parametrize("view", CONSISTENT)
def test_consistent_teachers_are_shown_the_very_tensor(batch, view):
    student, teacher = Spy(network(0)), Spy(network(1))
    terms = FunctionMatching((teacher,), Matching(view=view, resolution=8))(student, batch)
    assert teacher.seen[0] is student.seen[0]
    assert set(terms) == {"loss", "distance"}
    assert torch.equal(terms["loss"], terms["distance"])


@pytest.mark.parametrize("view", [name for name in VIEWS if name not in FIXED])
def test_a_copy_of_the_teacher_has_nothing_to_learn_where_both_see_the_same(batch, view):
    teacher = network()
    student = copy.deepcopy(teacher)
    loss = FunctionMatching((teacher,), Matching(view=view, resolution=8))(student, batch)["loss"]
    loss.backward()
    steepness = max(parameter.grad.abs().max() for parameter in student.parameters())
    if view in CONSISTENT:
        assert loss.item() == pytest.approx(0, abs=1e-7)
        assert steepness < 1e-6
    else:
        assert loss.item() > 1e-4
        assert steepness > 1e-4


def test_the_target_is_the_answer_to_the_mixture_and_not_the_mixture_of_answers(batch):
    teacher = network(1, 4)
    losses = {}
    for mixed_outputs in (False, True):
        batch.noise.manual_seed(0)
        student = Spy(network(0))
        spy = Spy(teacher)
        ask = Matching(resolution=8, mix_outputs=mixed_outputs)
        losses[mixed_outputs] = FunctionMatching((spy,), ask)(student, batch)["loss"].item()
        assert (spy.seen[0] is student.seen[0]) is not mixed_outputs
        seen = spy.seen[0]
    batch.noise.manual_seed(0)
    view, _ = ask.views(batch.images, batch.noise)
    torch.testing.assert_close(seen, view)  # not mixed
    assert losses[False] != losses[True]


@pytest.mark.parametrize("per_image", [False, True])
def test_labels_are_mixed_like_images(batch, per_image):
    logits = torch.randn(24, 10, generator=batch.noise)
    share = torch.rand(24 if per_image else (), generator=batch.noise)
    soft = mix(F.one_hot(batch.labels, 10).float(), share)
    expected = -(soft * logits.log_softmax(1)).sum(1)
    torch.testing.assert_close(label_loss(logits, batch.labels, share), expected)
    plain = F.cross_entropy(logits, batch.labels, reduction="none")
    torch.testing.assert_close(label_loss(logits, batch.labels), plain)


def test_labels_and_soft_targets_weigh_what_they_should(batch):
    student, teacher = network(0), network(1)
    ask = Matching(view="same/rc", side=1.0, labels=0.1, temperature=4.0)
    terms = FunctionMatching((teacher,), ask)(student, batch)
    images = batch.images
    expected = {
        "labels": F.cross_entropy(student(images), batch.labels),
        "distance": kd_loss(student(images), teacher(images), 4.0),
    }
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-4, atol=1e-6)
    total = 0.1 * terms["labels"] + 0.9 * terms["distance"]
    torch.testing.assert_close(terms["loss"], total)


def test_several_teachers_are_summed_and_predict_together(batch):
    student, teachers = network(0), (network(1), network(2))
    losses = []
    for asked in (teachers, teachers[:1], teachers[1:]):
        batch.noise.manual_seed(0)
        losses.append(FunctionMatching(asked, Matching(resolution=8))(student, batch)["loss"])
    torch.testing.assert_close(losses[0], losses[1] + losses[2])
    together = ensemble(teachers, batch.images).softmax(1)
    each = torch.stack([teacher(batch.images).softmax(1) for teacher in teachers])
    torch.testing.assert_close(together, each.mean(0))


@pytest.mark.parametrize("view", ["mix", "ind/ic"])
def test_networks_see_one_view_at_their_own_resolution(batch, view):
    student, teacher = Spy(network(0)), Spy(network(1))
    ask = Matching(view=view, resolution=6, teacher_resolution=12)
    FunctionMatching((teacher,), ask)(student, batch)
    assert student.seen[0].shape[-1] == 6
    assert teacher.seen[0].shape[-1] == 12
    if view == "mix":
        smaller = F.interpolate(teacher.seen[0], (6, 6), mode="bilinear", align_corners=False)
        torch.testing.assert_close(student.seen[0], smaller)


@pytest.mark.parametrize("view", FIXED)
def test_fixed_answers_follow_the_image_under_shuffling(digits, quick, view):
    """The answers name their image: a teacher that tells images apart finds its own."""
    ask = Matching(view=view, resolution=16, crops=3)
    teacher = Spy(network(1, 4))
    kept = precomputed_logits(teacher, digits, ask, seed=0)
    assert len(teacher.seen) == (3 if view == "fix/ic_ens" else 1)
    assert sum(len(seen) for seen in teacher.seen) <= ask.crops * len(digits.x_train)
    which = torch.randperm(160)[:24]
    if view != "fix/ic_ens":
        shown = digits.normalise(digits.x_train[which])
        crop = ask.draw(shown, ask.teaching.teacher, 16, torch.Generator())
        torch.testing.assert_close(kept(which), teacher.network(crop), rtol=1e-4, atol=1e-4)
    else:
        torch.testing.assert_close(kept.logits.exp().sum(1), torch.ones(160))
    calls = len(teacher.seen)
    match(network(0), teacher, digits, ask, quick, seed=0)
    assert len(teacher.seen) == 2 * calls + 1  # once for the check, and not once a step


def test_kept_answers_are_part_of_what_is_trained():
    one, other = (PrecomputedLogits(torch.full((3, 2), value)) for value in (0.0, 1.0))
    assert digest(one) != digest(other)


@pytest.mark.parametrize("view", VIEWS)
def test_students_learn_in_every_view_and_teachers_stay(digits, quick, view):
    teacher, student = network(1, 4), network(0)
    for parameter in teacher.parameters():
        parameter.data *= 2  # something to learn
    teacher.train()
    before = digest(teacher)
    history = match(
        student, teacher, digits, Matching(view=view, resolution=8, crops=2),
        replace(quick, epochs=5), seed=0,
    )  # fmt: skip
    assert digest(teacher) == before
    assert history[-1]["distance"] < history[0]["distance"]
    assert len(history) == 5


def test_labels_are_not_looked_at(digits, quick):
    teacher = network(1)
    other = replace(digits, y_train=(digits.y_train + 3) % 10)
    ends = []
    for data in (digits, other, unlabelled(digits, digits.x_train)):
        student = network(0)
        match(student, teacher, data, Matching(resolution=8), quick, seed=0)
        ends.append(digest(student))
    assert len(set(ends)) == 1


def test_labels_alone_need_no_teacher(digits, quick):
    ends = []
    for teachers in ((), network(1)):
        student = network(0)
        ask = Matching(view="mix", labels=1.0, resolution=8)
        history = match(student, teachers, digits, ask, quick, seed=0)
        ends.append(digest(student))
    assert ends[0] == ends[1]
    assert set(history[0]) == {"loss", "labels"}


class InterruptionError(Exception):
    pass


class Fragile(nn.Module):
    """A teacher that gives up once, at a given question."""

    calls, gives_up_at = 0, None

    def __init__(self):
        super().__init__()
        self.network = network(1)

    def forward(self, x):
        type(self).calls += 1
        if type(self).calls == type(self).gives_up_at:
            raise InterruptionError
        return self.network(x)


@pytest.mark.parametrize("optimizer", ["adamw", "shampoo"])
def test_a_training_that_broke_off_goes_on_bit_for_bit(
    digits, quick, tmp_path, monkeypatch, optimizer
):
    quick = replace(quick, epochs=4, optimizer=optimizer, batch_size=48)  # not a divisor of 160
    expected = network(0)
    history = match(expected, Fragile(), digits, Matching(resolution=8), quick, seed=0)

    monkeypatch.setattr(Fragile, "calls", 0)
    monkeypatch.setattr(Fragile, "gives_up_at", 9)  # a check and three steps an epoch
    with pytest.raises(InterruptionError):
        match(
            network(0), Fragile(), digits, Matching(resolution=8), quick, seed=0, cache_dir=tmp_path
        )
    assert list(tmp_path.glob("*.running"))
    again = network(0)
    resumed = match(
        again, Fragile(), digits, Matching(resolution=8), quick, seed=0, cache_dir=tmp_path
    )
    assert resumed == history
    assert digest(again) == digest(expected)


def test_other_images_keep_the_scale_on_which_the_teacher_learnt(digits):
    dark = unlabelled(digits, digits.x_train // 4)
    assert torch.equal(dark.mean, digits.mean)
    assert torch.equal(dark.std, digits.std)
    assert dark.key != unlabelled(digits, digits.x_train).key
    images = digits.x_train[:3]
    assert torch.equal(dark.normalise(images), digits.normalise(images))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"view": "both"}, "view must be one of fix/rs, .*, mix, mix/cc; got 'both'"),
        ({"temperature": 0}, "temperature must be greater than 0; got 0"),
        ({"distance": "l1"}, "distance must be one of kl, .*; got 'l1'"),
        ({"smoothing": -1}, "smoothing must be between 0 and 1; got -1"),
        ({"alpha": -0.5}, "alpha must be at least 0; got -0.5"),
        ({"labels": 1.1}, "labels must be between 0 and 1; got 1.1"),
        ({"geometry": "x"}, "geometry must be one of tf, torchvision; got 'x'"),
        ({"side": 0}, "side must be between 1e-06 and 1; got 0"),
        ({"crops": 0}, "crops must be at least 1; got 0"),
        ({"resolution": 0}, "resolution must be at least 1; got 0"),
        ({"teacher_resolution": 1.5}, "teacher_resolution must be a whole number"),
        ({"view": "same/ic", "mix_outputs": True}, "needs a view that mixes; got view 'same/ic'"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Matching(**arguments)


def nonsense():
    broken = network(1)
    broken.classifier.weight.data.fill_(torch.nan)
    return broken


@pytest.mark.parametrize(
    ("student", "teachers", "changes", "message"),
    [
        (
            network(0),
            (),
            {},
            "teachers must hold at least one network unless labels is 1",
        ),
        (network(0, channels=3), network(1), {}, r"student does not take .* shape \(1, 16, 16\)"),
        (network(0), network(1, channels=3), {}, r"teacher does not take .* shape \(1, 16, 16\)"),
        (network(0), convnet(2, 7, 1), {}, "teacher has 7 classes; the dataset has 10"),
        (network(0), nonsense(), {}, "teacher must say finite numbers; got .*nan"),
        (network(0), network(1), {"batch_size": 161}, "batch_size must be between 1 and 160"),
    ],
)
def test_what_does_not_fit_is_named_before_training(
    digits, quick, student, teachers, changes, message
):
    before = digest(student)
    with pytest.raises(ValueError, match=message) as error:
        match(student, teachers, digits, Matching(), replace(quick, **changes), seed=0)
    assert "\n" not in str(error.value)
    assert digest(student) == before


def test_a_teacher_within_the_student_is_refused(digits, quick):
    shared = network(0)
    with pytest.raises(ValueError, match="must not share parameters with the student"):
        match(shared, shared, digits, Matching(), quick, seed=0)


def test_a_teacher_that_breaks_down_is_named(batch):
    class Overflowing(nn.Module):
        def forward(self, x):
            logits = torch.zeros(len(x), 10)
            logits[7] = torch.inf
            return logits

    with pytest.raises(ValueError, match=r"must be finite; got .*inf.* for training image 7"):
        FunctionMatching((Overflowing(),), Matching())(network(0), batch)


def test_every_teacher_may_see_its_own_resolution(batch):
    seen = []

    class Notes(nn.Module):
        def forward(self, images):
            seen.append(images.shape[-1])
            return images.new_zeros(len(images), 10)

    ask = Matching(resolution=8, teacher_resolution=(12, 16))
    FunctionMatching((Notes(), Notes()), ask)(network(), batch)
    assert seen == [12, 16]
    with pytest.raises(ValueError, match=r"one for each of 1 teachers; got \(12, 16\)"):
        FunctionMatching((Notes(),), ask)(network(), batch)


def test_a_batch_without_random_numbers_is_refused(batch):
    with pytest.raises(
        ValueError, match="must have a generator to draw views from; got noise None"
    ):
        FunctionMatching((network(),), Matching())(network(), batch._replace(noise=None))
