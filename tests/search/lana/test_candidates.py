from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from smallnets.search.lana import (
    LayerwiseDistillation,
    Pool,
    ReplaceableLayers,
    build_pool,
    distil_candidates,
    feature_loss,
    relative_error,
)
from smallnets.training import Batch, seeded


def test_half_precision_is_compared_in_float32():
    student = torch.full((2, 4), 300.0, dtype=torch.float16)
    assert feature_loss(student, torch.zeros(2, 4, dtype=torch.float16)).item() == 90000


def test_features_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"one shape and not be empty; got \(2, 3\) and \(2, 4\)"):
        feature_loss(torch.rand(2, 3), torch.rand(2, 4))
    with pytest.raises(ValueError, match="reduction must be one of mean, sum; got 'max'"):
        feature_loss(torch.rand(2, 3), torch.rand(2, 3), "max")
    with pytest.raises(ValueError, match="must vary in some channel; all are constant"):
        relative_error(torch.rand(2, 3), torch.ones(2, 3))


def test_every_candidate_gets_its_own_gradient(layered, pool):
    x = torch.randn(6, 1, 8, 8)
    together = LayerwiseDistillation(layered)(pool, Batch(x, None))
    assert len(together) == 1 + len(pool.pairs)
    together["loss"].backward()
    for layer, choice in pool.pairs:
        module = pool.rows[layer][choice - 1]
        if not list(module.parameters()):
            continue
        gradients = [p.grad.clone() for p in module.parameters()]
        module.zero_grad()
        alone = LayerwiseDistillation(layered)(pool.part([(layer, choice)]), Batch(x, None))
        alone["loss"].backward()
        for parameter, gradient in zip(module.parameters(), gradients, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)


def test_a_pool_of_early_layers_needs_no_later_inputs(layered, pool):
    early = pool.part(pair for pair in pool.pairs if pair[0] == 0)
    assert len(early([torch.rand(2, *layered.sizes[0][0])])[0]) == len(pool.names[0]) - 1
    with pytest.raises(ValueError, match="one a layer with candidates; got 1"):
        pool([torch.rand(2, *layered.sizes[0][0])])


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_side_by_side_is_one_after_the_other(layered, digits, quick, optimizer):
    results, losses = [], []
    settings = replace(quick, optimizer=optimizer)
    for together in (True, False):
        with seeded(1):
            pool = build_pool(layered, ("skip", "dwsep3"))
        losses.append(distil_candidates(layered, pool, digits, settings, seed=0, together=together))
        results.append(pool.state_dict())
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(np.concatenate(losses[0]), np.concatenate(losses[1]), rtol=1e-4)


def test_the_teacher_stays_bit_for_bit_and_candidates_learn(layered, pool, digits, quick, snapshot):
    before = snapshot(layered.network)
    first = distil_candidates(layered, pool, digits, quick, seed=0)
    later = distil_candidates(layered, pool, digits, replace(quick, epochs=4), seed=0)
    after = layered.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not layered.network.training
    for layer, choice in pool.pairs:
        if pool.names[layer][choice] != "skip":
            assert later[layer][choice] < first[layer][choice], (layer, choice)
    assert all(row[0] == 0 for row in first)


def test_finished_candidates_are_kept(layered, digits, quick, tmp_path):
    results = []
    for _ in range(2):
        with seeded(1):
            pool = build_pool(layered, ("conv1",))
        results.append(distil_candidates(layered, pool, digits, quick, seed=0, cache_dir=tmp_path))
    assert len(list(tmp_path.glob("candidates-*.safetensors"))) == 1
    np.testing.assert_array_equal(np.concatenate(results[0]), np.concatenate(results[1]))


def test_pools_without_anything_to_train_are_refused(layered, digits, quick):
    with pytest.raises(ValueError, match="a candidate with weights to train; it has none"):
        distil_candidates(layered, Pool([{}, {}, {}]), digits, quick, seed=0)
    with pytest.raises(ValueError, match="reduction must be one of mean, sum; got 'max'"):
        LayerwiseDistillation(layered, "max")


def test_a_linear_layer_is_learnt_to_its_least_squares(digits, quick):
    """A candidate of the teacher's own kind, started elsewhere, comes close to the teacher."""
    with seeded(0):
        network = nn.Sequential(
            nn.Conv2d(1, 3, 1), nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        pool = Pool([{"same": nn.Conv2d(3, 3, 1)}])
    layered = ReplaceableLayers(network.eval(), ("1",), torch.rand(2, 1, 8, 8))
    longer = replace(quick, epochs=60, lr=3e-2)
    losses = distil_candidates(layered, pool, digits, longer, seed=0)
    assert losses[0][1] < 1e-4
