import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from smallnets.search.lana import FineTuning, evaluate_network, fine_tune, tuning_loss
from smallnets.surgery import recalibrate


def test_alpha_mixes_the_two():
    draw = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 6, 10, generator=draw, dtype=torch.float64)
    labels = torch.arange(6)
    values = [tuning_loss(student, teacher, labels, alpha=a).item() for a in (0, 0.25, 1)]
    assert values[1] == pytest.approx(0.75 * values[0] + 0.25 * values[2], abs=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 1.5}, "alpha must be between 0 and 1; got 1.5"),
        ({"temperature": 0}, "temperature must be greater than 0; got 0"),
    ],
)
def test_bad_weights_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        tuning_loss(torch.rand(2, 3), torch.rand(2, 3), torch.tensor([0, 1]), **change)
    with pytest.raises(ValueError, match=message):
        FineTuning(nn.Identity(), **change)


def test_logits_that_do_not_fit_are_refused():
    with pytest.raises(
        ValueError, match=r"must both be \(batch, classes\) .*; got \(2, 3\) and \(2, 4\)"
    ):
        tuning_loss(torch.rand(2, 3), torch.rand(2, 4), torch.tensor([0, 1]))


def test_fine_tuning_brings_a_student_closer_and_leaves_the_rest(
    layered, pool, digits, quick, snapshot
):
    x, y = digits.normalise(digits.x_train), digits.y_train
    student = pool.stitched(layered, (1, 0, 2))
    before, candidates = snapshot(layered.network), snapshot(pool)
    start = evaluate_network(student, x, y)["loss"]
    longer = replace(quick, epochs=5, lr=1e-2)
    history = fine_tune(student, layered.network, digits, longer, seed=0)
    assert evaluate_network(student, x, y)["loss"] < start
    assert set(history[0]) == {"loss"}
    after = layered.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(torch.equal(pool.state_dict()[k], v) for k, v in candidates.items())


def test_the_objective_has_what_was_asked_for(layered, digits, quick, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "smallnets.search.lana.tuning.fit", lambda *_, objective, **__: seen.append(objective)
    )
    student = copy.deepcopy(layered.network)
    fine_tune(student, layered.network, digits, quick, seed=0, alpha=0.25, temperature=3.0)
    assert seen[0].teacher is layered.network
    assert (seen[0].alpha, seen[0].temperature) == (0.25, 3.0)


def test_recalibration_takes_the_statistics_of_the_network_it_is_in(layered, pool, digits):
    x, y = digits.normalise(digits.x_train), digits.y_train
    student = pool.stitched(layered, (2, 2, 1))
    changed = recalibrate(copy.deepcopy(student), x.split(128))
    assert changed is not student
    for (name, old), new in zip(
        student.state_dict().items(), changed.state_dict().values(), strict=True
    ):
        if "running" not in name and "tracked" not in name:
            assert torch.equal(old, new)
    seen = []
    hook = changed.norm.register_forward_hook(lambda m, inputs, _: seen.append(inputs[0]))
    changed(x)
    hook.remove()
    torch.testing.assert_close(changed.norm.running_mean, seen[0].mean(dim=(0, 2, 3)))
    assert all(m.momentum == 0.1 for m in changed.modules() if isinstance(m, nn.BatchNorm2d))
    assert not changed.training
    found, expected = (
        evaluate_network(student, x, y, recalibrate=True),
        evaluate_network(changed, x, y),
    )
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-2)
    assert found["loss"] != evaluate_network(student, x, y)["loss"]
    with pytest.raises(ValueError, match="a batch must hold examples"):
        recalibrate(student, x[:0].split(1))
