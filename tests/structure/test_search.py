"""A tiny search: its space, its budget, its supernet, and the baseline."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from smallnets import measure
from smallnets import structure as st
from smallnets.data import Dataset
from smallnets.structure.search import Choosing, endless
from smallnets.training import TrainSettings


@pytest.fixture(scope="module")
def quarters():
    """Which quarter of a picture is bright."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 4
    images = (torch.rand(120, 1, 8, 8, generator=generator) * 120).byte()
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[0, row : row + 4, column : column + 4] += 120
    parts = (images[:100], labels[:100], images[100:], labels[100:])
    return Dataset("quarters", *parts, tuple("abcd"), flips=False)


@pytest.fixture(scope="module")
def space(quarters):
    return st.SearchSpace.of(quarters, width=4, blocks=2)


SETTINGS = TrainSettings(epochs=2, batch_size=20, lr=0.05, precision="32-true", device="cpu")


def all_of(space):
    return list(itertools.product(*space.options))


def test_costs_are_those_of_the_counter(space):
    generator = np.random.default_rng(0)
    for place in generator.integers(len(all_of(space)), size=5):
        choices = all_of(space)[place]
        network = space.network(choices)
        assert space.cost(choices) == measure.macs(network, (1, 8, 8))
        assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 4)


def test_costs_of_odd_sizes_are_those_of_the_counter():
    space = st.SearchSpace(4, 1, (9, 7), width=4, blocks=1, stem_stride=2)
    for choices in all_of(space)[::7]:
        assert space.cost(choices) == measure.macs(space.network(choices), (1, 9, 7))


def test_nothing_is_kept_only_where_the_shape_stays(space):
    assert ["skip" in names for names in space.options] == [True, True, False, True, False, True]


def test_the_likeliest_within_a_budget_are_found_exactly(space):
    generator = np.random.default_rng(1)
    rows = [generator.normal(size=len(names)).tolist() for names in space.options]
    score = {
        choices: sum(
            row[names.index(one)]
            for row, names, one in zip(rows, space.options, choices, strict=True)
        )
        for choices in all_of(space)
    }
    for budget in (5_000, 12_000, 20_000, 10**9):
        allowed = [one for one in score if space.cost(one) <= budget]
        best = sorted(allowed, key=score.get, reverse=True)[:4]
        assert space.likeliest(rows, budget, 4) == best


def test_random_architectures_keep_the_budget_and_differ(space):
    smallest = space.check_budget(10**9) and min(map(space.cost, all_of(space)))
    for budget in (smallest, smallest + 1_000, 15_000):
        drawn = space.at_random(budget, 6, np.random.default_rng(0))
        assert len(set(drawn)) == len(drawn)
        assert all(space.cost(one) <= budget for one in drawn)
        assert len(drawn) == min(6, sum(space.cost(one) <= budget for one in all_of(space)))
    assert space.at_random(15_000, 3, np.random.default_rng(0)) == drawn[:3]


def test_random_architectures_are_uniform(space):
    tiny = st.SearchSpace(4, 1, (8, 8), width=4, blocks=1, candidates=("dense", "separable"))
    counts = {}
    for seed in range(60):
        (one,) = tiny.at_random(10**9, 1, np.random.default_rng(seed))
        counts[one] = counts.get(one, 0) + 1
    assert len(counts) == 8
    assert max(counts.values()) < 20


def test_gumbel_weights_become_a_choice():
    theta = torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.0, -torch.inf]])
    generator = torch.Generator().manual_seed(0)
    hot = st.gumbel_weights(theta, 100.0, generator)
    cold = st.gumbel_weights(theta, 0.001, generator)
    torch.testing.assert_close(hot.sum(dim=1), torch.ones(2))
    assert (hot[0] - 1 / 3).abs().max() < 0.05
    assert hot[1, 2] == cold[1, 2] == 0
    assert cold.max(dim=1).values.min() > 0.999
    many = torch.stack([st.gumbel_weights(theta, 0.1, generator).argmax(1) for _ in range(2000)])
    shares = torch.bincount(many[:, 0], minlength=3) / 2000
    torch.testing.assert_close(shares, theta[0].softmax(0), atol=0.04, rtol=0)


def test_the_penalty():
    cost = torch.tensor(50.0)
    assert float(st.mac_penalty(cost, 100)) == pytest.approx(np.log(0.5))
    assert float(st.mac_penalty(cost, 100, "hinge")) == 0
    assert float(st.mac_penalty(2 * cost, 50, "hinge")) == 1
    theta = torch.tensor([[0.0, 0.0]])
    assert float(st.expected_macs(theta, torch.tensor([[10.0, 30.0]]), 5)) == 25
    assert st.ChoiceSettings().temperature(0) == 5
    assert st.ChoiceSettings().temperature(1) == pytest.approx(0.5)


def test_a_supernet_with_one_choice_is_that_network(space):
    torch.manual_seed(0)
    supernet = st.Supernet(space).eval()
    choices = tuple(names[-1] for names in space.options)
    weights = torch.zeros(len(choices), 5)
    for place, names in enumerate(space.options):
        weights[place, len(names) - 1] = 1
    network = space.network(choices).eval()
    network.stem = supernet.stem
    taken = iter(places[-1] for places in supernet.places)
    for stage in (network.stage1, network.stage2, network.stage3):
        for i in range(len(stage)):
            stage[i] = next(taken)
    network.classifier = supernet.head.classifier
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(supernet(x, weights), network(x))


def test_theta_follows_a_penalty_alone(space, quarters):
    """With a large weight, cheap blocks win; with none, and no signal, the hinge does nothing."""
    theta, history = st.search_theta(
        space, quarters, quarters, SETTINGS, budget=5_000, seed=0,
        choice=st.ChoiceSettings(weight=100.0, lr=0.1),
    )  # fmt: skip
    costs = [torch.tensor(row).float() for row in space.macs]
    for row, cost in zip(theta, costs, strict=True):
        assert row[: len(cost)].argmax() == cost.argmin()
    assert history[-1]["expected macs"] < history[0]["expected macs"]
    assert theta[2, 4] == -torch.inf


def test_weights_and_theta_learn_on_their_own_halves(space, quarters):
    seen = []

    def others():
        for batch in endless(quarters, 20, 0):
            seen.append(batch)
            yield batch

    torch.manual_seed(0)
    supernet = st.Supernet(space)
    objective = Choosing(space, others(), 4, 10_000, st.ChoiceSettings())
    batch = st.search.Batch(
        quarters.normalise(quarters.x_train[:20]),
        quarters.y_train[:20],
        noise=torch.Generator().manual_seed(0),
    )
    before = [one.clone() for one in supernet.parameters()]
    terms = objective(supernet, batch)
    assert len(seen) == 1
    assert objective.theta.abs().nan_to_num(0, 0, 0).max() > 0
    pairs = zip(before, supernet.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)  # a step of theta moves no weight
    assert all(one.grad is None for one in supernet.parameters())
    theta = objective.theta.detach().clone()
    terms["loss"].backward()
    assert torch.equal(objective.theta, theta)
    assert any(one.grad is not None for one in supernet.parameters())


def test_both_searches_keep_the_budget_and_train_as_many(space, quarters, tmp_path):
    budget = 9_000
    found = st.gradient_search(
        space, quarters, SETTINGS, budget=budget, seed=0, count=2, cache_dir=tmp_path
    )
    drawn = st.random_search(
        space, quarters, SETTINGS, budget=budget, seed=0, count=2, cache_dir=tmp_path
    )
    for outcome in (found, drawn):
        assert len({one.choices for one in outcome.trained}) == 2
        for one in outcome.trained:
            assert one.macs == measure.macs(one.network, (1, 8, 8)) <= budget
            assert 0 <= one.accuracy <= 1
            assert len(one.history) == SETTINGS.epochs
        assert outcome.best.accuracy == max(one.accuracy for one in outcome.trained)
    assert found.theta.shape == (6, 5)
    assert drawn.theta is None
    again = st.random_search(
        space, quarters, SETTINGS, budget=budget, seed=0, count=2, cache_dir=tmp_path
    )
    assert [one.accuracy for one in again.trained] == [one.accuracy for one in drawn.trained]
    assert len([*tmp_path.iterdir()]) <= 4  # nothing was trained again


def test_a_search_is_repeated_exactly(space, quarters):
    once = replace(SETTINGS, epochs=1, batch_size=50)
    first, second, other = (
        st.search_theta(space, quarters, quarters, once, budget=9_000, seed=seed)[0]
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_batches_of_ones_own(space, quarters):
    images = quarters.normalise(quarters.x_train)
    pairs = list(zip(images.split(25), quarters.y_train.split(25), strict=True))
    wide = [(inputs.double(), labels) for inputs, labels in pairs[2:]]
    found = st.gradient_search(space, pairs[:2], SETTINGS, budget=9_000, seed=0, choosing=wide)
    assert found.best.macs <= 9_000
    with pytest.raises(ValueError, match=r"^with batches of your own, choosing must be others"):
        st.random_search(space, pairs, SETTINGS, budget=9_000, seed=0)


def test_what_judges_trained_nothing(space, quarters, monkeypatch):
    trained = []

    def fit(model, data, *_, **__):
        trained.append(data)
        model.eval()
        return [{}]

    monkeypatch.setattr("smallnets.structure.search.fit", fit)
    monkeypatch.setattr("smallnets.structure.search.endless", lambda data, *_: trained.append(data))
    st.gradient_search(space, quarters, SETTINGS, budget=9_000, seed=0)
    choosing, weights, whole = trained
    assert len(weights.y_train) == len(choosing.y_train) == 40
    assert len(whole.y_train) == 80
    assert len(whole.y_test) == 20
    training = {one.numpy().tobytes() for one in quarters.x_train}
    used = [{one.numpy().tobytes() for one in part} for part in (
        weights.x_train, choosing.x_train, whole.x_test
    )]  # fmt: skip
    assert set.union(*used) == training
    assert sum(map(len, used)) == len(training)
