import pytest
import torch
from torch.nn import functional as F

from smallnets.distill.matching import (
    VIEWS,
    Matching,
    crop_and_resize,
    evaluation_view,
    resize_area,
    sample_boxes,
)


@pytest.mark.parametrize("geometry", ["tf", "torchvision"])
@pytest.mark.parametrize("size", [(8, 8), (32, 32), (20, 50), (1, 1)])
def test_boxes_lie_in_their_images(size, geometry, generator):
    for crop in ("rs", "cc", "rc", "ic"):
        drawn = sample_boxes(crop, 200, *size, generator, geometry=geometry)
        assert drawn.shape == (200, 4)
        assert drawn.min() >= 0
        assert drawn[:, 2:].min() >= 1
        assert (drawn[:, :2] + drawn[:, 2:] <= torch.tensor(size)).all()


def test_kinds_of_crop(generator):
    assert sample_boxes("rs", 2, 32, 24, generator).tolist() == [[0, 0, 32, 24]] * 2
    assert sample_boxes("cc", 2, 32, 32, generator).tolist() == [[2, 2, 28, 28]] * 2
    mild = sample_boxes("rc", 500, 32, 32, generator)
    assert (mild[:, 2:] == 28).all()
    assert set(mild[:, 0].tolist()) == set(mild[:, 1].tolist()) == set(range(5))
    area = sample_boxes("ic", 500, 32, 32, generator, area=(0.3, 1.0))[:, 2:].prod(dim=1) / 1024
    assert 0.3 <= area.min() < 0.4 < 0.9 < area.max() <= 1


def test_a_cut_is_the_crop_resized_and_mirrored():
    images = torch.rand(3, 2, 12, 10)
    where = torch.tensor([[0, 0, 12, 10], [2, 3, 5, 6], [11, 0, 1, 10]])
    mirrored = torch.tensor([False, True, False])
    views = crop_and_resize(images, where, 7, mirrored)
    for view, image, (top, left, tall, wide), turned in zip(
        views, images, where.tolist(), mirrored.tolist(), strict=True
    ):
        part = image[None, :, top : top + tall, left : left + wide]
        expected = F.interpolate(part, (7, 7), mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(view, expected.flip(2) if turned else expected)


def test_resizing_to_the_same_size_changes_nothing():
    images = torch.rand(2, 3, 9, 9)
    torch.testing.assert_close(crop_and_resize(images, torch.tensor([0, 0, 9, 9]), 9), images)
    torch.testing.assert_close(evaluation_view(images, 9), images)
    torch.testing.assert_close(resize_area(images, 3, 3), F.avg_pool2d(images, 3))


@pytest.mark.parametrize("view", VIEWS)
def test_every_way_of_teaching(view, generator):
    images = torch.rand(16, 3, 12, 12)
    own, shown = Matching(view=view, resolution=6).views(images, generator)
    assert own.shape == (16, 3, 6, 6)
    relation = VIEWS[view].relation
    if relation == "same":
        assert shown is own
    elif relation == "fixed":
        assert shown is None
    else:
        assert shown.shape == own.shape
        assert not torch.equal(shown, own)


def test_flips_mirror_half_of_the_views(generator):
    images = torch.arange(4.0).expand(400, 1, 4, 4)
    views = Matching(view="same/rc", side=1.0, flip=True).draw(images, "rs", 4, generator)
    mirrored = (views[:, 0, 0, 0] == 3).float().mean()
    assert 0.4 < mirrored < 0.6
    still = Matching(view="same/rc", side=1.0).draw(images, "rs", 4, generator)
    torch.testing.assert_close(still, images)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda g: sample_boxes("oval", 1, 8, 8, g),
            "crop must be one of rs, cc, rc, ic; got 'oval'",
        ),
        (
            lambda g: sample_boxes("rc", 1, 8, 8, g, side=0),
            "side must be between 1e-06 and 1; got 0",
        ),
        (
            lambda g: sample_boxes("ic", 1, 8, 8, g, area=(0.5, 0.2)),
            r"area\[0\] must be between 0",
        ),
        (
            lambda g: sample_boxes("ic", 1, 8, 8, g, aspect=(0, 1)),
            r"aspect\[0\] must be greater than 0",
        ),
        (
            lambda g: sample_boxes("ic", 1, 8, 8, g, geometry="x"),
            "geometry must be one of tf, torchv",
        ),
        (
            lambda g: crop_and_resize(torch.rand(2, 8, 8), torch.tensor([0, 0, 8, 8]), 4),
            r"got .*\(2, 8, 8",
        ),
        (
            lambda g: crop_and_resize(torch.rand(1, 1, 8, 8), torch.tensor([0, 0, 9, 8]), 4),
            "must lie in",
        ),
        (
            lambda g: crop_and_resize(torch.rand(1, 1, 8, 8), torch.tensor([0, 0, 8, 8]), 0),
            "resolution must",
        ),
        (lambda g: evaluation_view(torch.rand(1, 1, 8, 8), 4, 0), "side must be between"),
    ],
)
def test_bad_inputs_are_named(call, message, generator):
    with pytest.raises(ValueError, match=message):
        call(generator)
