"""Every baseline shows what it was published for, on a task of seconds."""

from dataclasses import replace

import pytest
import torch

from smallnets.synthesize import replay as r


@pytest.fixture(scope="module")
def learned(fresh_of_two, noisy, longer, shared_cache):
    """learned(method): accuracies after two tasks."""
    found = {}

    def of(method):
        if method not in found:
            result = r.incremental_fit(
                fresh_of_two, noisy[:2], method, longer, seed=1, cache_dir=shared_cache
            )
            found[method] = result.accuracies[-1]
        return found[method]

    return of


def test_fine_tuning_forgets(learned):
    assert learned("finetune").old < 0.1
    assert learned("finetune").new > 0.8


def test_joint_training_is_above_all(learned):
    best = learned("joint").total
    assert best > 0.8
    for method in ("finetune", "lwf", "mfgr", "ewc", "mas", "abd", "replay_only"):
        assert best > learned(method).total


@pytest.mark.parametrize("method", ["ewc", "mas"])
def test_held_weights_keep_what_was_known(learned, method):
    assert learned(method).old_among_old > learned("finetune").old_among_old + 0.03


@pytest.mark.parametrize("method", ["abd", "mfgr", "lwf", "real_replay"])
def test_protected_classes_are_known_better(learned, method):
    assert learned(method).total > learned("finetune").total
    assert learned(method).old > learned("finetune").old + 0.2


def test_fisher_information_of_a_linear_model():
    """Of softmax regression it is known: E[(p - y)_c^2 x_d^2] = p_c (1 - p_c) x_d^2."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4)).double()
    one = torch.randn(1, 3, dtype=torch.float64)
    p = model(one).softmax(1)[0].detach()
    expected = (p * (1 - p))[:, None] * one.square()
    images = one.expand(8_000, 3)
    found = r.fisher_importance(model, images, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found["0.weight"], expected, rtol=0.1, atol=1e-3)
    assert found["0.bias"].shape == (4,)


def test_sensitivity_of_a_linear_model():
    """d |W x|^2 / dW = 2 W x x^T."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2, bias=False)).double()
    x = torch.randn(40, 3, dtype=torch.float64)
    each = 2 * torch.einsum("no,ni->noi", model(x).detach(), x)
    found = r.sensitivity_importance(model, x)
    torch.testing.assert_close(found["0.weight"], each.abs().mean(0))


def test_penalty_pulls_old_rows_alone():
    new = [torch.ones(3, 2, requires_grad=True)]
    old, importance = [torch.zeros(2, 2)], [torch.tensor([[1.0, 2.0], [0.0, 4.0]])]
    penalty = r.drift_penalty(new, old, importance, 10.0)
    assert float(penalty.detach()) == 10 / 2 * 7
    (gradient,) = torch.autograd.grad(penalty, new)
    assert gradient.tolist() == [[10, 20], [0, 40], [0, 0]]
    with pytest.raises(ValueError, match="must be as many; got 1, 1 and 0"):
        r.drift_penalty(new, old, [], 1.0)
    with pytest.raises(ValueError, match="strength must be at least 0"):
        r.drift_penalty(new, old, importance, -1.0)


def test_importance_is_summed_over_tasks(fresh_of_two, tasks, longer):
    short = replace(longer, training=replace(longer.training, epochs=1), first=None)
    result = r.incremental_fit(fresh_of_two, tasks[:2], "mas", short)
    first, second = (one.importance for one in result.steps)
    alone = r.learn_task(
        result.steps[0].model, tasks[1], "mas", short, step=1,
        importance={name: torch.zeros_like(one) for name, one in first.items()},
    )  # fmt: skip
    assert set(first) == set(second) == set(alone.importance)
    assert second["classifier.weight"].shape[0] == 4
    assert all((second[name][: len(one)] >= one - 1e-6).all() for name, one in first.items())
