import numpy as np
import pytest
import torch
from torch import nn

from smallnets.measure import accuracy, negative_log_likelihood
from smallnets.search.lana import (
    SCORES,
    Layered,
    Pool,
    predicted_loss,
    rank_agreement,
    score_pool,
)
from smallnets.search.lana.tuning import judged


class Block(nn.Module):
    """z + tanh(z V1^T) V2^T, or z + z A^T."""

    def __init__(self, *weights):
        super().__init__()
        self.weights = nn.ParameterList(torch.from_numpy(w.copy()) for w in weights)

    def forward(self, z):
        if len(self.weights) == 1:
            return z + z @ self.weights[0].T
        return z + (z @ self.weights[0].T).tanh() @ self.weights[1].T


@pytest.fixture(scope="module")
def toy(arrays):
    """The golden toy: four layers, four choices each."""
    w = {key: arrays[f"toy_{key}"] for key in ("W1", "W2", "H", "A", "V1", "V2")}
    blocks = [Block(a, b) for a, b in zip(w["W1"], w["W2"], strict=True)]
    head = nn.Linear(8, 5, bias=False, dtype=torch.float64)
    head.weight = nn.Parameter(torch.from_numpy(w["H"].copy()))
    network = nn.Sequential(*blocks, head).eval()
    x, y = (torch.from_numpy(arrays[f"toy_{key}"]) for key in "xy")
    layered = Layered(network, ("0", "1", "2", "3"), x[:2])
    pool = Pool(
        [
            {"identity": nn.Identity(), "linear": Block(a), "small": Block(v1, v2)}
            for a, v1, v2 in zip(w["A"], w["V1"], w["V2"], strict=True)
        ]
    )
    return layered, pool.eval(), x, y


@pytest.mark.parametrize("batch_size", [96, 40, 1])
def test_all_four_scores_are_the_golden_ones(arrays, toy, batch_size):
    layered, pool, x, y = toy
    tables = score_pool(layered, pool, x, y, batch_size=batch_size)
    assert tuple(tables) == SCORES
    for kind, key in zip(SCORES, ("loss", "acc", "kl", "mse"), strict=True):
        np.testing.assert_allclose(
            np.stack(tables[kind]), arrays[f"toy_score_{key}"], atol=1e-10, rtol=0, err_msg=kind
        )
        assert all(row[0] == 0 for row in tables[kind])


def test_the_teacher_is_the_golden_one(arrays, toy):
    layered, _, x, y = toy
    logits = layered.network(x)
    np.testing.assert_allclose(logits.detach(), arrays["toy_teacher_logits"], atol=1e-10)
    loss, share = arrays["toy_teacher_loss"].item(), arrays["toy_teacher_acc"].item()
    assert negative_log_likelihood(logits, y) == pytest.approx(loss, abs=1e-10)
    assert accuracy(logits, y) == pytest.approx(share, abs=1e-12)


def test_predictions_and_their_ranks_are_the_golden_ones(arrays, toy):
    layered, pool, x, y = toy
    score = score_pool(layered, pool, x, y)["loss"]
    base = arrays["toy_teacher_loss"].item()
    combos = arrays["toy_combos"].tolist()
    predicted = [predicted_loss(base, score, choices) for choices in combos]
    np.testing.assert_allclose(predicted, arrays["toy_pred_loss"], atol=1e-10)
    measured = []
    for choices in combos:
        with torch.no_grad():
            logits = pool.stitched(layered, choices)(x)
        measured.append(nn.functional.cross_entropy(logits, y).item())
    np.testing.assert_allclose(measured, arrays["toy_true_loss"], atol=1e-10)
    for name, value in rank_agreement(predicted, measured).items():
        assert value == pytest.approx(arrays[f"toy_{name}"].item(), abs=1e-9)


def test_one_replacement_is_predicted_exactly(layered, pool, digits):
    x, y = digits.normalise(digits.x_train[:40]), digits.y_train[:40]
    score = score_pool(layered, pool, x, y, batch_size=16)["loss"]
    base = judged(layered.network, x, y)["loss"]
    for layer, choice in pool.pairs:
        choices = [0, 0, 0]
        choices[layer] = choice
        measured = judged(pool.stitched(layered, choices), x, y)["loss"]
        assert predicted_loss(base, score, choices) == pytest.approx(measured, abs=1e-5)


def test_replaying_the_prefix_changes_nothing_and_saves_its_work(layered, pool, digits):
    """Only the layers behind a candidate run again."""
    x, y = digits.normalise(digits.x_train[:8]), digits.y_train[:8]
    runs = [0, 0, 0]

    def count(layer):
        return lambda *_: runs.__setitem__(layer, runs[layer] + 1)

    for layer, module in enumerate(layered.layers):
        module.register_forward_hook(count(layer))
    score_pool(layered, pool, x, y)
    candidates = [len(names) - 1 for names in pool.names]
    assert runs == [1, 1 + candidates[0], 1 + candidates[0] + candidates[1]]


def test_recalibrated_scores_are_those_of_recalibrated_networks(layered, pool, digits, snapshot):
    x, y = digits.normalise(digits.x_train[:40]), digits.y_train[:40]
    before = snapshot(layered.network) | snapshot(pool)
    score = score_pool(layered, pool, x, y, batch_size=7, recalibrate=True)["loss"]
    base = judged(layered.network, x, y, recalibrate=True)["loss"]
    for layer, choice in pool.pairs:
        choices = [0, 0, 0]
        choices[layer] = choice
        measured = judged(pool.stitched(layered, choices), x, y, recalibrate=True)["loss"]
        assert predicted_loss(base, score, choices) == pytest.approx(measured, abs=1e-5)
    after = layered.network.state_dict() | pool.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_scoring_leaves_everything_as_it_was(layered, pool, digits, snapshot):
    x, y = digits.normalise(digits.x_train[:8]), digits.y_train[:8]
    pool.train()
    before = snapshot(layered.network) | snapshot(pool)
    score_pool(layered, pool, x, y)
    after = layered.network.state_dict() | pool.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert pool.training
    assert not layered.network.training


def test_scores_are_not_clipped(toy):
    layered, pool, x, _ = toy
    wrong = (layered.network(x).argmax(dim=1) + 1) % 5  # labels that the teacher always misses
    table = score_pool(layered, pool, x, wrong)
    assert min(row.min() for row in table["loss"]) < 0
    assert min(row.min() for row in table["accuracy"]) < 0


def test_bad_scoring_sets_are_refused(layered, pool):
    x, y = torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.long)
    with pytest.raises(ValueError, match="at least one; got 0 and 0"):
        score_pool(layered, pool, x[:0], y[:0])
    with pytest.raises(ValueError, match="equally many and at least one; got 4 and 3"):
        score_pool(layered, pool, x, y[:3])
    with pytest.raises(ValueError, match="labels must be between 0 and 9; got 0 to 10"):
        score_pool(layered, pool, x, torch.tensor([0, 1, 2, 10]))
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        score_pool(layered, pool, x, y, batch_size=0)


def test_bad_predictions_are_refused():
    with pytest.raises(ValueError, match="one for each of 2 layers; got 1"):
        predicted_loss(1.0, [np.zeros(2), np.zeros(2)], [0])
    with pytest.raises(ValueError, match="at least two; got 1 and 1"):
        rank_agreement([1.0], [1.0])
