"""Similarity, visibility and damage of pairs of classes."""

import math

import pytest
import torch
from torch import nn

from smallnets.models import cifar_resnet
from smallnets.synthesize import replay as r


class Plain(nn.Sequential):
    """A classifier whose head has given rows; its features are its inputs."""

    def __init__(self, rows):
        super().__init__(nn.Identity(), nn.Linear(len(rows[0]), len(rows), bias=False))
        self[1].weight.data = torch.tensor(rows)


ROWS = [[1.0, 0.1], [1.0, -0.1], [-1.0, 0.0], [0.0, 3.0]]


def test_similarity_of_head_rows():
    found = r.head_similarity(Plain(ROWS))
    rows = torch.tensor(ROWS) - torch.tensor(ROWS).mean(0)
    for i in range(4):
        for j in range(4):
            expected = torch.cosine_similarity(rows[i], rows[j], dim=0)
            torch.testing.assert_close(found[i, j], expected)
    three = torch.tensor(ROWS[:3]) - torch.tensor(ROWS[:3]).mean(0)
    expected = torch.cosine_similarity(three[0], three[1], dim=0)
    torch.testing.assert_close(r.head_similarity(Plain(ROWS), 3)[0, 1], expected)
    nearest = r.nearest_class(found)
    assert nearest[0] == nearest[1] == found[0, 1] > nearest[3]


def test_confusion_similarity_and_order_by_group():
    confusion = torch.tensor([[8, 2, 0], [4, 6, 0], [0, 0, 10]])
    found = r.confusion_similarity(confusion)
    assert found[0, 1] == found[1, 0] == pytest.approx((0.2 + 0.4) / 2)
    assert r.grouped_order(torch.tensor([1, 0, 1, 0])).tolist() == [1, 3, 0, 2]


def test_visibility_by_hand():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 4.0]])
    p = (logits / 2).softmax(1)
    d = torch.tensor([1.0, -1.0, 0.0])  # (o_0 - o_1) / 2, of mean 0
    expected = ((p[:, 0] + p[:, 1]) * d.abs()).mean()
    found = r.visibility_of_logits(logits, torch.tensor([[0, 1], [1, 0]]), 2.0)
    torch.testing.assert_close(found, expected.expand(2))


def test_what_new_images_cannot_show():
    pairs = r.class_pairs(3)
    assert pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    along = torch.randn(20, 1)
    same = torch.cat([along, along + 1, -along], 1)  # the first two always differ by the same
    found = r.visibility_of_logits(same, pairs)
    assert float(found[0]) == pytest.approx(0, abs=1e-6)
    assert found[1] > 0.1
    absent = torch.cat([torch.randn(20, 2), torch.full((20, 1), 50.0)], 1)
    assert r.visibility_of_logits(absent, pairs)[0] < 1e-6  # no probability, nothing taught
    images = torch.randn(30, 2)
    torch.testing.assert_close(
        r.pair_visibility(Plain(ROWS), images, pairs, 3.0, n_old=3),
        r.visibility_of_logits(Plain(ROWS)(images).detach()[:, :3], pairs, 3.0),
    )


def test_pair_accuracy_and_damage():
    logits = torch.tensor([[3.0, 1, 9], [0, 1, 9], [0, 2, 9], [0, 0, 1]])
    labels = torch.tensor([0, 0, 1, 2])
    found = r.pair_accuracy(logits, labels, torch.tensor([[0, 1], [0, 2]]))
    assert found.tolist() == pytest.approx([2 / 3, 1 / 3])
    damage = r.PairDamage(torch.tensor([0.9, 0.7, 0.5]), torch.tensor([0.7, 0.8, 0.5]))
    torch.testing.assert_close(damage.damage, torch.tensor([0.2, -0.1, 0.0]))
    torch.testing.assert_close(damage.relative[:2], torch.tensor([0.5, -0.5]))
    assert damage.relative[2].isnan()


def test_class_accuracy():
    logits = torch.eye(3)[[0, 1, 1]]
    found = r.class_accuracy(logits, torch.tensor([0, 0, 1]), 3)
    assert found[:2].tolist() == [0.5, 1]
    assert found[2].isnan()


def test_the_plane_shows_differences_of_logits():
    model = Plain([[2.0, 0, 0], [0.0, 2, 0], [-2.0, -2, 0]]).eval()
    images = torch.randn(300, 3)
    plane = r.head_plane(model, images, [0, 1, 2])
    assert plane.rows.shape == (3, 2)
    assert plane.images.shape == (300, 2)
    logits = model(images).detach()
    shown = plane.images @ plane.rows.T
    torch.testing.assert_close(
        shown[:, 0] - shown[:, 1], logits[:, 0] - logits[:, 1], rtol=1e-4, atol=1e-5
    )
    assert not model[1]._forward_pre_hooks


def test_everything_from_models_that_exist(tasks, known):
    before = r.grow_head(known, 1, seed=1)  # three old classes, the last of which is unknown
    after = r.grow_head(before, 1)
    old = [tasks[0], r.Task((2,), tasks[1].train.classes((0, 1, 2)))]
    images = {"new": torch.randn(40, 3, 8, 8), "noise": torch.randn(40, 3, 8, 8)}
    found = r.fine_grained(before, {"same": before, "grown": after}, old, images)
    assert found.pairs.shape == (3, 2)
    assert set(found.visibility) == {"new", "noise"}
    assert float(found.damage["same"].damage.abs().max()) == 0
    assert float(found.damage["grown"].damage.abs().max()) == 0  # old rows are what they were
    correlations = found.correlations()
    assert set(correlations) == {
        "visibility, new", "visibility, noise", "damage, same", "damage, grown",
        "relative damage, same", "relative damage, grown",
    }  # fmt: skip
    assert math.isnan(correlations["damage, same"])
    assert -1 <= correlations["visibility, new"] <= 1
    report = r.class_report(before, after, old)
    assert sorted(report.classes.tolist()) == [0, 1, 2]
    assert (report.nearest[1:] >= report.nearest[:-1]).all()
    torch.testing.assert_close(report.before, report.after)
    assert (report.after_agnostic <= report.after).all()


LOGITS = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: r.class_pairs(1), "classes must be at least 2; got 1"),
        (
            lambda: r.head_similarity(cifar_resnet(8, 3, width=4), 4),
            "n_old must be between 1 and 3",
        ),
        (
            lambda: r.visibility_of_logits(LOGITS, torch.tensor([[0, 3]])),
            "pairs must be of classes 0 to 2; got 0 to 3",
        ),
        (
            lambda: r.visibility_of_logits(LOGITS, torch.tensor([0, 1])),
            r"pairs must be \(pairs, 2\); got \(2,\)",
        ),
        (
            lambda: r.visibility_of_logits(LOGITS, torch.tensor([[0, 1]]), 0.0),
            "temperature must be greater than 0",
        ),
        (
            lambda: r.visibility_of_logits(LOGITS * math.nan, torch.tensor([[0, 1]])),
            "logits must be finite",
        ),
        (
            lambda: r.pair_accuracy(LOGITS, torch.tensor([0, 0]), torch.tensor([[0, 1]])),
            "must have images; classes 0, 1 have not",
        ),
        (lambda: r.head_plane(Plain(ROWS), torch.zeros(2, 2), [0, 1]), "at least 3; got 2"),
        (
            lambda: r.head_plane(Plain(ROWS), torch.zeros(2, 2), [0, 1, 4]),
            "every one of classes must be between 0 and 3; got 4",
        ),
    ],
)
def test_refused(call, message):
    with pytest.raises(ValueError, match=rf"^[^\n]*{message}[^\n]*$"):
        call()
