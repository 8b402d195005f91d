"""Confusion of label maps, and mean intersection over union."""

import math

import pytest
import torch
from torchmetrics.functional.classification import multiclass_jaccard_index

from smallnets.measure.segmentation import mean_iou, segmentation


def maps(seed=0, classes=4):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, classes, (2, 9, 11), generator=draw)


def test_perfect_maps_score_a_hundred():
    labels = maps()
    assert mean_iou(labels, labels, 4) == 100
    assert segmentation(labels, labels, 4).accuracy == 100


def test_ignored_pixels_do_not_count():
    labels, predictions = maps(), maps(1)
    value = mean_iou(predictions, labels, 4)
    framed = torch.nn.functional.pad(labels, (1, 1), value=255).to(torch.uint8)
    guessed = torch.nn.functional.pad(predictions, (1, 1), value=2)
    assert mean_iou(guessed, framed, 4) == value
    assert mean_iou(torch.full_like(framed, 77), torch.full_like(framed, 255), 4) != value


def test_a_class_that_never_occurs_is_left_out():
    labels, predictions = maps(classes=3), maps(1, classes=3)
    found = segmentation(predictions, labels, 5)
    assert found.iou.isnan().tolist() == [False, False, False, True, True]
    assert math.isclose(found.mean_iou, mean_iou(predictions, labels, 3))


def test_permuted_classes_leave_the_mean():
    labels, predictions = maps(), maps(1)
    order = torch.tensor([2, 0, 3, 1])
    assert math.isclose(
        mean_iou(order[predictions], order[labels], 4), mean_iou(predictions, labels, 4)
    )


def test_parts_add_up_and_torchmetrics_agrees():
    labels, predictions = maps(), maps(1)
    whole = segmentation(predictions, labels, 4)
    parts = [segmentation(predictions[i], labels[i], 4) for i in range(2)]
    assert torch.equal((parts[0] + parts[1]).confusion, whole.confusion)
    expected = multiclass_jaccard_index(predictions, labels, 4, average="macro")
    assert math.isclose(whole.mean_iou, 100 * float(expected), rel_tol=1e-5)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: mean_iou(x, x[:1], 4),
        lambda x: mean_iou(x.float(), x, 4),
        lambda x: mean_iou(x + 4, x, 4),
        lambda x: mean_iou(x, x, 0),
    ],
)
def test_bad_inputs_are_refused_in_one_line(call):
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        call(maps())
