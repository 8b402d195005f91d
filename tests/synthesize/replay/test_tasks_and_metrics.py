"""Splits by class, held-out images, and accuracies over time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smallnets.data import Batches
from smallnets.synthesize import replay as r


def test_published_groups():
    assert r.group_sizes(100, 20, 20) == [20] * 5
    assert r.group_sizes(10, 6, 4) == [6, 4]
    assert r.group_sizes(5, 5, 3) == [5]


def test_columns_follow_the_order_of_classes(patterns):
    tasks = r.task_split(patterns, [3, 1], order=(4, 0, 5, 2, 1, 3))
    assert [task.classes for task in tasks] == [(0, 1, 2), (3,)]
    assert tasks[1].train.class_names == ("e", "a", "f", "c")
    for task, originals in zip(tasks, ((4, 0, 5), (2,)), strict=True):
        for column, original in zip(task.classes, originals, strict=True):
            mine = task.train.x_train[task.train.y_train == column]
            assert torch.equal(mine, patterns.x_train[patterns.y_train == original])
            test = task.test.x_test[task.test.y_test == column]
            assert torch.equal(test, patterns.x_test[patterns.y_test == original])
    again = r.task_split(patterns, groups=[(4, 0, 5), (2,)])
    assert torch.equal(again[0].train.x_train, tasks[0].train.x_train)
    assert torch.equal(again[1].train.y_test, tasks[1].train.y_test)


def test_orders():
    assert r.class_order(5) == (0, 1, 2, 3, 4)
    assert r.class_order(9, 1) == r.class_order(9, 1) != r.class_order(9, 2)
    assert sorted(r.class_order(9, 1)) == list(range(9))


def test_normalisation_knows_the_first_task_or_all(patterns):
    first, *later = r.task_split(patterns, [2, 2, 2])
    own = replace(first.train, moments=None)
    for task in (first, *later):
        assert torch.equal(task.train.mean, own.mean)
        assert torch.equal(task.train.std, own.std)
    for task in r.task_split(patterns, [2, 2, 2], moments="all"):
        assert torch.equal(task.train.mean, patterns.mean)


def test_held_out_images_are_of_all_tasks_and_in_no_training(patterns, tasks):
    held = r.hold_out(tasks, 0.25, seed=1)
    for before, training, choosing in zip(tasks, held.training, held.choosing, strict=True):
        rows = {tuple(x.flatten().tolist()) for x in before.train.x_train}
        judged = [tuple(x.flatten().tolist()) for x in choosing.test.x_test]
        assert len(judged) == len(before.train.x_train) // 4
        assert set(judged) <= rows
        assert torch.bincount(choosing.test.y_test)[list(before.classes)].min() == len(judged) // 2
        for one in (training, choosing):
            kept = {tuple(x.flatten().tolist()) for x in one.train.x_train}
            assert len(one.train.x_train) == len(before.train.x_train) - len(judged)
            assert not kept & set(judged)
            assert torch.equal(one.train.mean, before.train.mean)
        assert torch.equal(training.test.x_test, before.test.x_test)


def test_batches_of_ones_own_make_tasks():
    batches = Batches([(torch.zeros(2, 3), torch.tensor([0, 1]))])
    task = r.Task((0, 1), batches, batches)
    assert r.check_tasks([task]) == [2]


def split(patterns, *args, **named):
    return lambda: r.task_split(patterns, *args, **named)


def test_refused_splits(patterns, tasks):
    first, second, _ = tasks
    own = patterns.classes((0, 1))
    empty = replace(patterns, x_test=patterns.x_test[:3], y_test=patterns.y_test[:3])
    batches = Batches([(torch.zeros(2, 3), torch.tensor([0, 1]))])
    for call, message in (
        (split(patterns, groups=[(0, 1), (1, 2)]), r"different classes from 0 to 5; got \[1\]"),
        (split(patterns, groups=[(0, 9)]), r"got \[9\] twice or beyond"),
        (split(patterns, groups=[(0,), ()]), "task 1 has none"),
        (split(patterns, groups=[(0,)] * 7), "as many tasks as classes, 6; got 7"),
        (split(patterns, [1] * 7), "as many tasks as classes, 6; got 7"),
        (split(patterns, [4, 3]), "sum to at most the 6 classes; got 7"),
        (split(patterns, [3, 0]), "every one of sizes must be at least 1; got 0"),
        (split(patterns), "got both or neither"),
        (split(patterns, [1], groups=[(0,)]), "got both or neither"),
        (split(patterns, [1], moments="none"), "moments must be one of first, all"),
        (split(empty, [3, 3]), "must have training and test images; task 1 lacks some"),
        (lambda: r.Task((2, 3), own), r"among its classes \[2, 3\]; its train part has \[0, 1\]"),
        (lambda: r.Task((), own), "must have at least one class; got none"),
        (lambda: r.Task((0, 1), batches), "test must be given"),
        (lambda: r.check_tasks([]), "at least one task; got none"),
        (lambda: r.check_tasks([first, first]), "class 0 is in tasks 0 and 1"),
        (
            lambda: r.check_tasks([second, first]),
            r"columns of the head in order.*got \[2, 3, 0, 1\]",
        ),
        (lambda: r.group_sizes(10, 4, 4), "must be a multiple of later; got 4"),
        (lambda: r.group_sizes(10, 11, 1), "first must be between 1 and 10; got 11"),
        (lambda: r.hold_out(tasks, 1.0), "share must be between 0 and 1, exclusive; got 1.0"),
        (lambda: r.hold_out([r.Task((0, 1), batches, batches)], 0.5), "got batches of your own"),
    ):
        with pytest.raises(ValueError, match=rf"^[^\n]*{message}[^\n]*$"):
            call()


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=5), st.floats(0, 1), st.integers(0, 99)
)  # fmt: skip
def test_metrics(sizes, constant, seed):
    count = len(sizes)
    flat = np.full((count, count), constant)
    assert r.step_accuracy(flat, sizes) == pytest.approx([constant] * count)
    a = np.random.default_rng(seed).random((count, count))
    hidden = np.where(np.tri(count) > 0, a, np.nan)
    steps = r.step_accuracy(hidden, sizes)
    assert steps[0] == pytest.approx(a[0, 0])  # of one task, its accuracy
    assert r.last_accuracy(hidden, sizes) == steps[-1]
    assert r.average_incremental_accuracy(hidden, sizes) == pytest.approx(steps.mean())
    if count > 1:
        assert r.forgetting(flat) == pytest.approx(0)
        without = r.average_incremental_accuracy_without_first(hidden, sizes)
        both = r.average_incremental_accuracy(hidden, sizes)
        assert count * both == pytest.approx((count - 1) * without + steps[0])
        for j, lost in enumerate(r.forgetting_per_task(hidden)):
            assert lost == pytest.approx(max(a[t, j] for t in range(j, count - 1)) - a[-1, j])


def test_step_accuracy_counts_classes():
    assert r.step_accuracy([[1.0, 0], [0.5, 0.2]], [3, 1]) == pytest.approx([1, 0.425])
    assert r.forgetting([[0.4, 0], [0.9, 0.2]]) == pytest.approx(-0.5)  # it may be negative


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: r.step_accuracy([[1.0]], [1, 2]), "sizes must be 1 numbers, one a task; got 2"),
        (lambda: r.step_accuracy([[1.0, 0.0]], [1]), r"matrix must be square.*\(1, 2\)"),
        (lambda: r.step_accuracy([[np.nan]], [1]), "finite up to its diagonal"),
        (lambda: r.forgetting([[1.0]]), "number of steps must be at least 2; got 1"),
        (
            lambda: r.average_incremental_accuracy_without_first([[1.0]], [1]),
            "number of steps must be at least 2; got 1",
        ),
    ],
)
def test_refused_metrics(call, message):
    with pytest.raises(ValueError, match=rf"^[^\n]*{message}[^\n]*$"):
        call()
