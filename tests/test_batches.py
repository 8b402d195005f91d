"""Batches of one's own: what is read, when, and what is refused."""

from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
)

from smallnets.batches import Batches, first_weights
from smallnets.data import Dataset, as_batches
from smallnets.training.checkpoint import cache_path

X = torch.arange(20.0).view(10, 2)
Y = torch.arange(10) % 3
IN_ORDER = "in_order" in signature(DataLoader).parameters  # since torch 2.6
PAIRS = [(X[:4], Y[:4]), (X[4:8], Y[4:8]), (X[8:], Y[8:])]


class Stream(IterableDataset):
    def __iter__(self):
        return zip(X, Y, strict=True)


@pytest.mark.parametrize(
    "source",
    [
        PAIRS,
        DataLoader(TensorDataset(X, Y), 4),
        DataLoader(Stream(), 4),
        lambda: (pair for pair in PAIRS),
        lambda: PAIRS,
        [(x.numpy(), y.tolist()) for x, y in PAIRS],
        [(x, y.to(torch.int32)) for x, y in PAIRS],
    ],
    ids=["list", "loader", "stream", "generator function", "function", "numpy", "int32"],
)
def test_whatever_gives_batches_is_read_anew_in_every_epoch(source):
    data = as_batches(source)
    assert as_batches(data) is data
    for _ in range(2):
        assert torch.equal(data.first()[0], X[:4])
        inputs, labels = (torch.cat(side) for side in zip(*data, strict=True))
        assert torch.equal(inputs, X)
        assert torch.equal(labels, Y)
        assert labels.dtype == torch.int64


def test_what_can_be_read_once_is_read_once_and_its_first_batch_is_not_lost():
    data = Batches(iter(PAIRS)).without_labels()
    assert data.once
    assert len(data.glance()) == 2
    assert torch.equal(data.first()[0], X[:4])
    assert torch.equal(torch.cat([inputs for inputs, _ in data.of_classes(3)]), X)
    with pytest.raises(ValueError, match=r"at least one batch; got none: .* makes it anew"):
        list(data)


def test_an_iterable_that_does_not_start_anew_is_told_when_it_is_empty():
    class Once:
        def __init__(self):
            self.left = iter(PAIRS)

        def __iter__(self):
            return self.left

    data = Batches(Once())
    assert len(list(data)) == 3
    with pytest.raises(ValueError, match="at least one batch; got none"):
        data.first()


def test_nothing_is_read_before_it_is_needed():
    made = []

    def source():
        for number, pair in enumerate(PAIRS):
            made.append(number)
            yield pair

    for number, _ in enumerate(Batches(source)):
        assert made == list(range(number + 1))
    made.clear()
    assert torch.equal(Batches(source).take(5), X[:5])
    assert made == [0, 1]
    assert len(Batches(source).take(100)) == 10


def test_a_glance_leaves_the_global_random_numbers_as_they_were():
    loader = DataLoader(TensorDataset(X, Y), 4, shuffle=True)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    Batches(loader).first()
    assert torch.equal(torch.rand(3), expected)


def test_inputs_take_the_type_of_a_network_and_labels_stay_whole():
    network = nn.Linear(2, 3).double()
    inputs, labels = Batches(PAIRS).on(network).first()
    assert (inputs.dtype, labels.dtype) == (torch.float64, torch.int64)
    words = [(torch.zeros(4, 5, dtype=torch.int64), Y[:4])]
    assert Batches(words).on(network).first()[0].dtype == torch.int64
    assert first_weights(nn.ReLU()) is None
    assert torch.equal(Batches(PAIRS).on(nn.ReLU()).first()[0], X[:4])


def test_batches_without_labels_have_zeros_only_where_that_was_said():
    for source in (DataLoader(X, 4), DataLoader(TensorDataset(X), 4), PAIRS):
        labels = Batches(source, labelled=False).first()[1]
        assert torch.equal(labels, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"pairs .* of tensors; got Tensor"):
        Batches(DataLoader(X, 4)).first()


def test_grey_levels_need_a_word():
    levels = [((X * 10).to(torch.uint8), Y)]
    with pytest.raises(ValueError, match="got uint8: normalise them"):
        Batches(levels).first()
    prepared = Batches(levels, prepare=lambda x: x.float() / 10).first()[0]
    assert torch.equal(prepared, X)


def test_a_length_is_known_said_or_unknown():
    assert Batches(PAIRS).steps == Batches(DataLoader(TensorDataset(X, Y), 4)).steps == 3
    assert Batches(DataLoader(Stream(), 4)).steps is None
    assert Batches(lambda: PAIRS).steps is None
    assert Batches(lambda: PAIRS, length=3).steps == 3


def test_labels_of_a_loss_of_ones_own_are_left_alone():
    wishes = [(X, torch.rand(10, 3))]
    assert torch.equal(Batches(wishes, any_labels=True).first()[1], wishes[0][1])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (3, "data must be a Dataset, a DataLoader, .* got int"),
        (X, "got Tensor"),
        ({"x": X}, "got dict"),
        (TensorDataset(X, Y), "got TensorDataset"),
        ([], "at least one batch; got none"),
        ([{"x": X, "y": Y}], "batches must be pairs .*; got dict"),
        ([(X, Y, Y)], "got tuple of Tensor, Tensor, Tensor"),
        ([([X], Y)], "got tuple of list, Tensor"),
        (["ab"], "got str"),
        ([(X[:0], Y[:0])], r"must hold examples; got inputs \(0, 2\)"),
        ([(X, Y[:3])], r"whole numbers \(10,\), one an example; got torch.int64 \(3,\)"),
        ([(X, Y.float())], "got torch.float32"),
        ([(X, Y == 0)], "got torch.bool"),
        ([(X, Y - 1)], "labels must be between 0 and 2; got -1 to 1"),
        ([(X, Y + 1)], "labels must be between 0 and 2; got 1 to 3"),
    ],
)
def test_other_things_are_refused_in_one_line(source, message):
    with pytest.raises(ValueError, match=message) as error:
        Batches(source, num_classes=3).of_classes(9).first()
    assert "\n" not in str(error.value)


def test_numbers_are_checked():
    for name in ("num_classes", "length"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1; got 0"):
            Batches(PAIRS, **{name: 0})
    with pytest.raises(ValueError, match="labels must be at least 0; got -1 to 1"):
        Batches([(X, Y - 1)]).first()


def test_a_loader_without_a_whole_batch_is_told_so():
    for source in (DataLoader(TensorDataset(X, Y), 11, drop_last=True), drawn(X, 11, True)):
        with pytest.raises(ValueError, match="got none: with drop_last=True, fewer examples than"):
            list(Batches(source))
    with pytest.raises(ValueError, match=r"got none$"):
        list(Batches([]))


def test_the_first_examples_come_with_their_labels():
    inputs, labels = Batches(PAIRS).take_with_labels(5)
    assert torch.equal(inputs, X[:5])
    assert torch.equal(labels, Y[:5])


def test_a_dataset_is_data_as_it_is():
    pixels = torch.zeros(2, 1, 3, 3, dtype=torch.uint8)
    labels = torch.tensor([0, 1])
    data = Dataset("toy", pixels, labels, pixels, labels, ("a", "b"), flips=False)
    assert as_batches(data) is data


def loader(x=X, y=Y, size=4, **how):
    return DataLoader(TensorDataset(x, y), size, **how)


def drawn(order, size=4, drop_last=False, **how):
    sampler = BatchSampler(order, size, drop_last)
    return DataLoader(TensorDataset(X, Y), batch_sampler=sampler, **how)


def named(data):
    return cache_path(Path(), "kept", data=data.key).name


def test_every_thing_that_decides_batches_changes_their_name():
    different = [
        Batches(PAIRS),
        Batches(PAIRS[:2]),
        Batches([(x + 1, y) for x, y in PAIRS]),
        Batches([(x, y.roll(1)) for x, y in PAIRS]),
        Batches(PAIRS, length=7),
        Batches(PAIRS, labelled=False),
        Batches(PAIRS, prepare=lambda x: 2 * x),
        Batches(loader()),
        Batches(loader(x=X + 1)),
        Batches(loader(y=Y.roll(1))),
        Batches(loader(size=5)),
        Batches(loader(drop_last=True)),
        Batches(loader(shuffle=True)),
        Batches(loader(), labelled=False),
        Batches(loader(), length=7),
        Batches(loader(), prepare=lambda x: 2 * x),
        Batches(loader(sampler=RandomSampler(X, replacement=True))),
        Batches(loader(sampler=RandomSampler(X, num_samples=8))),
        Batches(loader(sampler=RandomSampler(X[:9], num_samples=8))),
        Batches(drawn(RandomSampler(X), 5)),
        Batches(drawn(RandomSampler(X), 5, drop_last=True)),
        Batches(drawn(SequentialSampler(X), 3)),
    ]
    assert len({named(data) for data in different}) == len(different)


def test_equal_batches_have_one_name():
    again = [(x.numpy().copy(), y.tolist()) for x, y in PAIRS]
    assert named(Batches(PAIRS)) == named(Batches(again))
    one, other = (Batches(loader(x=X.clone(), shuffle=True)) for _ in range(2))
    assert named(one) == named(other.on(nn.Linear(2, 3)).of_classes(3))


def test_a_list_is_named_by_what_is_done_to_it_not_by_what_that_gave_once():
    def noisy(x):
        return x + torch.rand(())

    data = Batches(PAIRS, prepare=noisy)
    assert named(data) == named(data) != named(Batches(PAIRS, prepare=lambda x: x))
    levels = [((X * 10).to(torch.uint8), Y)]
    assert named(Batches(levels, prepare=noisy)) != named(data)


def test_a_loader_with_a_sampler_of_batches_is_named_by_it():
    assert named(Batches(drawn(RandomSampler(X)))) == named(Batches(loader(shuffle=True)))
    assert named(Batches(drawn(SequentialSampler(X)))) == named(Batches(loader()))


class Other(TensorDataset):
    def __getitem__(self, index):
        return X[index], Y[index]


@pytest.mark.parametrize(
    "source",
    [
        lambda: PAIRS,
        iter(PAIRS),
        DataLoader(Stream(), 4),
        DataLoader(Other(X, Y), 4),
        loader(shuffle=True, generator=torch.Generator()),
        loader(sampler=RandomSampler(X, generator=torch.Generator())),
        loader(collate_fn=lambda rows: PAIRS[0]),
        loader(worker_init_fn=print),
        loader(size=None),
        loader(sampler=list(range(10))),
        drawn(RandomSampler(X, generator=torch.Generator())),
        drawn(RandomSampler(X), generator=torch.Generator()),
        drawn(list(range(10))),
        loader(num_workers=1, persistent_workers=True),
        *([loader(num_workers=1, in_order=False)] if IN_ORDER else []),
    ],
)
def test_batches_whose_content_cannot_be_told_have_no_name(source):
    with pytest.raises(ValueError, match=r"has no name; got \w+: leave cache_dir out") as error:
        _ = Batches(source).key
    assert "\n" not in str(error.value)


def test_arrays_of_words_are_no_inputs():
    with pytest.raises(ValueError, match="got tuple of str, Tensor"):
        Batches([("a", Y[:1])]).first()
    assert torch.equal(Batches([(np.zeros((2, 1)), Y[:2])]).first()[0], torch.zeros(2, 1))
