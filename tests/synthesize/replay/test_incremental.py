"""Steps and sequences: every method, no old image, resuming, batch sizes, and what is refused."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from smallnets.data import Batches
from smallnets.synthesize import replay as r
from smallnets.synthesize.replay import incremental, objective, steps
from smallnets.training import Batch


def fit(fresh, tasks, settings, method="mfgr", **named):
    return r.incremental_fit(fresh, tasks, method, settings, **named)


def same_models(first, second):
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(mine, other) for mine, other in pairs)


@pytest.mark.parametrize("method", r.METHODS)
def test_every_method_learns_a_sequence(fresh, tasks, settings, shared_cache, method):
    before = copy.deepcopy(fresh.state_dict())
    result = fit(fresh, tasks[:2], settings, method, cache_dir=shared_cache)
    assert [one.model.classifier.out_features for one in result.steps] == [2, 4]
    uses_generator = r.METHODS[method].replay == "generator"
    assert [one.generator is not None for one in result.steps] == [False, uses_generator]
    for matrix in (result.agnostic, result.aware):
        assert np.isnan(matrix[0, 1])
        assert np.isfinite(matrix[np.tril_indices(2)]).all()
    last = result.accuracies[-1]
    assert (result.aware >= result.agnostic)[np.tril_indices(2)].all()
    assert last.old_among_old >= last.old
    assert last.confusion.sum(1).tolist() == [12] * 4
    assert last.total == pytest.approx(float(last.confusion.diag().sum()) / 48)
    needs = r.METHODS[method].penalty != "none"
    assert [one.importance is not None for one in result.steps] == [needs, needs]
    assert not any(p.requires_grad is False for p in result.steps[-1].model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in fresh.state_dict().items())
    summary = result.summary()
    for measure in ("last accuracy", "average incremental accuracy", "forgetting", "new"):
        assert {f"{measure}, agnostic", f"{measure}, aware"} <= set(summary)
    assert {"old, agnostic", "old, among old"} <= set(summary)


class Sealed:
    """Batches of a task that raise when they are read after the task has ended."""

    def __init__(self, task):
        data = task.train
        self.batches = [
            (data.normalise(x), y)
            for x, y in zip(data.x_train.split(32), data.y_train.split(32), strict=True)
        ]
        self.ended = False

    def __call__(self):
        if self.ended:
            raise AssertionError("a training image of an old task was read")
        return iter(self.batches)

    def task(self, task):
        return r.Task(task.classes, Batches(self, length=len(self.batches)), task.test)


def sealed_after_each_step(tasks, monkeypatch):
    """Tasks whose training data cannot be read once their step has ended."""
    seals = [Sealed(task) for task in tasks]
    original = r.evaluate

    def ends(model, seen):
        seals[len(seen) - 1].ended = True
        return original(model, seen)

    monkeypatch.setattr(incremental, "evaluate", ends)
    return seals, [seal.task(task) for seal, task in zip(seals, tasks, strict=True)]


@pytest.mark.parametrize("method", r.METHODS)
def test_no_old_training_image_reaches_a_later_step(fresh, tasks, settings, monkeypatch, method):
    seals, guarded = sealed_after_each_step(tasks[:2], monkeypatch)
    short = replace(settings, training=replace(settings.training, epochs=1), first=None)
    if r.METHODS[method].memory_free:
        fit(fresh, guarded, short, method)
        assert all(seal.ended for seal in seals)
    else:
        with pytest.raises(AssertionError, match="a training image of an old task was read"):
            fit(fresh, guarded, short, method)


@pytest.mark.parametrize("method", ["mfgr", "ewc"])
def test_a_sequence_goes_on_between_steps_without_its_past(
    fresh, tasks, settings, monkeypatch, tmp_path, method
):
    expected = fit(fresh, tasks, settings, method, seed=4)
    seals, guarded = sealed_after_each_step(tasks, monkeypatch)
    original = incremental.learn_task

    def dies(*args, **named):
        if named["step"] == 2:
            raise KeyboardInterrupt
        return original(*args, **named)

    # Kept steps are those of the same data, which here come from a Dataset.
    with monkeypatch.context() as patch:
        patch.setattr(incremental, "learn_task", dies)
        with pytest.raises(KeyboardInterrupt):
            fit(fresh, tasks, settings, method, seed=4, progress_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    seals[0].ended = seals[1].ended = True
    going_on = [*guarded[:2], tasks[2]]
    found = fit(fresh, going_on, settings, method, seed=4, progress_dir=tmp_path)
    for mine, other in zip(found.steps, expected.steps, strict=True):
        assert same_models(mine.model, other.model)
        assert mine.history == other.history
        if other.generator is not None:
            assert same_models(mine.generator.generator, other.generator.generator)
            assert mine.generator.history == other.generator.history
            assert torch.equal(mine.generator.class_histogram, other.generator.class_histogram)
    assert np.array_equal(found.agnostic, expected.agnostic, equal_nan=True)
    assert np.array_equal(found.aware, expected.aware, equal_nan=True)
    other_seed = fit(fresh, tasks[:1], settings, method, seed=5, progress_dir=tmp_path)
    assert not same_models(other_seed.steps[0].model, expected.steps[0].model)


def test_a_killed_step_goes_on_after_its_generator(fresh, tasks, settings, monkeypatch, tmp_path):
    expected = fit(fresh, tasks[:2], settings)
    original, made = steps.fit, []

    def dies(model, data, training, **named):
        if named["label"] == "step-1":
            raise KeyboardInterrupt
        return original(model, data, training, **named)

    with monkeypatch.context() as patch:
        patch.setattr(steps, "fit", dies)
        with pytest.raises(KeyboardInterrupt):
            fit(fresh, tasks[:2], settings, cache_dir=tmp_path)
    finished = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    assert sorted(name.split("-")[0] for name in finished) == ["generator", "step"]
    terms = r.GeneratorObjective.terms
    monkeypatch.setattr(
        r.GeneratorObjective, "terms", lambda *a, **k: made.append(1) or terms(*a, **k)
    )
    found = fit(fresh, tasks[:2], settings, cache_dir=tmp_path)
    assert not made  # the finished generator was not trained again
    assert same_models(found.steps[-1].model, expected.steps[-1].model)
    for name, written in finished.items():
        assert (tmp_path / name).stat().st_mtime_ns == written


def test_a_damaged_step_is_learned_again_with_a_word(fresh, tasks, settings, tmp_path):
    expected = fit(fresh, tasks[:2], settings, "lwf", progress_dir=tmp_path)
    last = max(tmp_path.iterdir(), key=lambda path: len(path.name))
    content = bytearray(last.read_bytes())
    content[-3] ^= 1
    last.write_bytes(content)
    with pytest.warns(UserWarning, match="its digest differs.*learning the step again"):
        found = fit(fresh, tasks[:2], settings, "lwf", progress_dir=tmp_path)
    assert same_models(found.steps[1].model, expected.steps[1].model)


@pytest.mark.parametrize(("batch", "replayed"), [(13, None), (13, 5), (33, None), (33, 50)])
def test_batch_sizes_and_growth_are_independent(
    fresh, tasks, settings, monkeypatch, batch, replayed
):
    counts = []
    original = r.Inheritance.__call__

    def counted(self, student, given):
        def draw(count, like, noise):
            counts.append((len(given.images), count))
            return torch.randn(count, *like.shape[1:], generator=noise)

        source = type("Counted", (), {"draw": staticmethod(draw)})()
        return original(replace(self, source=source), student, given)

    monkeypatch.setattr(r.Inheritance, "__call__", counted)
    own = replace(
        settings,
        training=replace(settings.training, batch_size=batch, epochs=1),
        replay_batch=replayed,
    )
    result = fit(fresh, tasks, own)
    assert [one.model.classifier.out_features for one in result.steps] == [2, 4, 6]
    # Two old classes to two new ones, then four to two.
    assert set(counts) == {(batch, replayed or batch), (batch, replayed or 2 * batch)}


@pytest.mark.parametrize(
    "change",
    [
        {"joint_pass": True},
        {"freeze_bn": True},
        {"replay_mode": "running"},
        {"alpha_rule": "steps", "temperature": 4.0},
        {"weights": r.TermWeights(0.1, 1.0, 0.2, 3.0)},
    ],
    ids=str,
)
def test_every_switch_changes_the_training(fresh, tasks, settings, shared_cache, change):
    plain = fit(fresh, tasks[:2], settings, cache_dir=shared_cache).steps[1].model
    changed = fit(fresh, tasks[:2], replace(settings, **change), cache_dir=shared_cache)
    first, model = (one.model for one in changed.steps)
    assert not same_models(plain, model)
    still = torch.equal(first.norm.running_mean, model.norm.running_mean)
    assert still == ("freeze_bn" in change)


def test_methods_share_the_first_step_and_the_generator(fresh, tasks, settings, tmp_path):
    for method in ("mfgr", "replay_only", "lwf"):
        fit(fresh, tasks[:2], settings, method, cache_dir=tmp_path)
    kinds = sorted(path.name.rsplit("-", 1)[0] for path in tmp_path.iterdir())
    assert kinds == ["generator", "step-0", "step-1", "step-1", "step-1"]


def test_tasks_as_loaders(fresh, tasks, settings):
    def loaders(task):
        data = task.train
        train = TensorDataset(data.normalise(data.x_train), data.y_train)
        test = TensorDataset(data.normalise(data.x_test), data.y_test)
        return r.Task(
            task.classes,
            DataLoader(train, 32, shuffle=True, drop_last=True),
            DataLoader(test, 32),
        )

    own = [loaders(task) for task in tasks[:2]]
    assert fit(fresh, own, settings, "mas").steps[1].importance is not None
    for method in ("joint", "real_replay"):
        first, again = (fit(fresh, own, settings, method) for _ in range(2))
        assert first.agnostic[0, 0] > 0.8
        assert same_models(first.steps[1].model, again.steps[1].model)


def test_a_learner_of_ones_own(fresh, tasks, settings):
    mine = r.Method(new="full", distil_new=True, replay="noise", distil_replay=True)
    result = fit(fresh, tasks[:2], settings, mine)
    assert set(result.steps[1].history[0]) == {"loss", "new_ce", "new_kd", "old_kd"}


def test_learning_rates_are_chosen_on_held_out_images(fresh, tasks, settings, tmp_path):
    held = r.hold_out(tasks[:2], 0.25)
    seen = []
    original = steps.fit

    def watched(model, data, training, **named):
        seen.append({tuple(x.flatten().tolist()) for x in data.x_train})
        return original(model, data, training, **named)

    judged = {tuple(x.flatten().tolist()) for task in held.choosing for x in task.test.x_test}
    steps.fit = watched
    try:
        found = r.choose_learning_rate(
            fresh, held, (1e-4, 0.05), "lwf", settings, cache_dir=tmp_path
        )
        fit(fresh, held.training, settings, "lwf", cache_dir=tmp_path)
    finally:
        steps.fit = original
    assert len(seen) == 6
    assert not any(one & judged for one in seen)
    assert set(found.scores) == set(found.aware) == {1e-4, 0.05}
    assert found.best == max(found.scores, key=found.scores.__getitem__)
    assert found.at_edge
    # Comparing trains on the same images: what choosing has trained at a rate is found again.
    assert len(list(tmp_path.glob("step-0*"))) == 1
    assert len(list(tmp_path.glob("step-1*"))) == 2


def test_a_rate_that_diverges_loses(fresh, tasks, settings):
    held = r.hold_out(tasks[:2], 0.25)
    found = r.choose_learning_rate(fresh, held, (0.05, 1e30), "finetune", settings)
    assert found.best == 0.05
    assert np.isnan(found.scores[1e30])
    with pytest.raises(ValueError, match=r"one at which training is stable; got \[1e\+30\]"):
        r.choose_learning_rate(fresh, held, [1e30], "finetune", settings)


def test_refused(fresh, tasks, settings, known):
    made = r.train_generator(known, (3, 8, 8), settings.generator, n_old=1)
    far = r.Task((4, 5), tasks[2].train)

    def learn(task=tasks[1], method="mfgr", model=known, **named):
        return lambda: r.learn_task(model, task, method, settings, **{"step": 1, **named})

    for call, message in (
        (learn(method="magic"), "method must be one of mfgr, .*; got 'magic'"),
        (learn(far), r"of step 1 must be \[2, 3\], after those that the model has; got \[4, 5\]"),
        (learn(earlier=tasks[:1]), "must not be given to a memory-free method"),
        (learn(method="joint"), "earlier must hold the 1 tasks before .*; got 0"),
        (learn(generator=made), "one for the 2 old classes; got one for 1"),
        (learn(method="ewc"), "importance must be that of the model's weights .*; got None"),
        (learn(step=-1), "step must be at least 0"),
        (learn(tasks[0], model=nn.Sequential(nn.Flatten()), step=0), "must be an nn.Linear"),
        (lambda: fit(known, [tasks[0], tasks[0]], settings), "class 0 is in tasks 0 and 1"),
        (
            lambda: fit(r.grow_head(fresh, 1), tasks, settings),
            "must have the 2 classes of the first task; got 3",
        ),
        (lambda: replace(settings, temperature=0), "temperature must be greater than 0"),
        (lambda: replace(settings, replay_batch=1), "replay_batch must be at least 2; got 1"),
        (lambda: replace(settings, alpha_rule="x"), "alpha_rule must be one of classes, steps"),
        (lambda: replace(settings, replay_mode="x"), "replay_mode must be one of batch, running"),
        (lambda: replace(settings, ewc_strength=-1), "ewc_strength must be at least 0"),
        (lambda: r.evaluate(known, tasks[:2]), "must have the 4 classes of its tasks; got 2"),
        (
            lambda: r.choose_learning_rate(fresh, r.hold_out(tasks, 0.5), [0.0]),
            "every one of rates must be greater than 0",
        ),
        (
            lambda: r.choose_learning_rate(fresh, r.hold_out(tasks, 0.5), [0.1], measure="best"),
            "measure must be one of last accuracy",
        ),
    ):
        with pytest.raises(ValueError, match=rf"^[^\n]*{message}[^\n]*$"):
            call()


def test_labels_of_another_task_are_refused(fresh, tasks, settings):
    strange = Batches([(torch.zeros(4, 3, 8, 8), torch.tensor([0, 1, 2, 3]))])
    one = [tasks[0], r.Task((2, 3), strange, tasks[1].test)]
    with pytest.raises(ValueError, match=r"labels must be between 2 and 3, .*; got 0 to 3"):
        fit(fresh, one, settings, "lwf")
    other = [tasks[0], r.Task((2, 3), tasks[1].train, strange)]
    with pytest.raises(ValueError, match=r"its classes \[2, 3\]; its test part has \[0, 1\]"):
        fit(fresh, other, settings, "lwf")


def test_empty_task(patterns):
    with pytest.raises(ValueError, match="every one of sizes must be at least 1; got 0"):
        r.task_split(patterns, [2, 0])


def test_replayed_images_lie_in_memory_as_the_new_ones_do():
    """A student that is trained in contiguous memory must not meet channels-last images: on some
    processors its weight gradients would crash, see `smallnets.models.layout`.
    """
    for given, wanted in (
        (torch.channels_last, torch.contiguous_format),
        (torch.contiguous_format, torch.channels_last),
    ):
        drawn = torch.rand(6, 3, 8, 8).contiguous(memory_format=given)
        source = SimpleNamespace(draw=lambda count, like, noise, drawn=drawn: drawn[:count])
        images = torch.rand(4, 3, 8, 8).contiguous(memory_format=wanted)
        batch = Batch(images, torch.zeros(4), noise=torch.Generator())
        found = objective._drawn(source, batch, 6, 2, 2)
        assert torch.equal(found, drawn)
        assert found.is_contiguous(memory_format=wanted)
        assert not found.is_contiguous(memory_format=given)
