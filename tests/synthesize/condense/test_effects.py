"""Every method shows its published effect where it must: learned sets beat random ones.

Smooth pictures under strong noise: ten random images say little about a class, and a hundred and
fifty say much, so a set that stands for all of them is worth more than ten of them.
"""

import pytest
import torch
from torch.nn import functional as F

from smallnets.synthesize import condense as dm

CLASSES, NOISE = 4, 3.5
MARGIN = 0.02  # of accuracy
JUDGED = dm.EvalSettings(epochs=30, lr=0.1, strategy=None, device="cpu")
PLACE = {"precision": "32-true", "device": "cpu", "batch_real": 150}
LOOPS = {"outer": 2, "inner": 5, "lr": 1.0, **PLACE}
NET = dm.Fresh(CLASSES, 1, (8, 8), spec=dm.ConvNetSpec(depth=2, width=16))


def noisy(seed, each=150):
    draws = torch.Generator().manual_seed(99)
    small = torch.randn(CLASSES, 1, 4, 4, generator=draws)
    pictures = 1.3 * F.interpolate(small, scale_factor=2, mode="bilinear")
    labels = torch.arange(CLASSES).repeat_interleave(each)
    noise = torch.randn(len(labels), 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return dm.image_set(pictures[labels] + NOISE * noise, labels)


@pytest.fixture(scope="module")
def train():
    return noisy(1)


@pytest.fixture(scope="module")
def judge():
    test = noisy(2)
    return lambda sets: dm.evaluate_set(sets, test, NET, JUDGED, range(2), workers=1).mean


@pytest.fixture(scope="module")
def of_random(train, judge):
    return judge([dm.select(train, "random", 10, seed=seed) for seed in range(3)])


def test_distribution_matching_beats_random(train, judge, of_random):
    settings = dm.DMSettings(10, iterations=40, lr=20.0, strategy=None, **PLACE)
    sets = [dm.condense(train, settings, seed=s, embed_factory=NET).set for s in range(2)]
    assert judge(sets) > of_random + MARGIN


def test_gradient_matching_from_noise_beats_random(train, judge, of_random):
    settings = dm.GradientMatchingSettings(10, iterations=30, **LOOPS)
    sets = [dm.match_gradients(train, settings, seed=s, factory=NET).set for s in range(2)]
    assert judge(sets) > of_random + MARGIN


def test_siamese_gradient_matching_beats_random(train, judge, of_random):
    settings = dm.dsa(10, "color_cutout", iterations=10, **LOOPS)
    sets = [dm.match_gradients(train, settings, seed=s, factory=NET).set for s in range(2)]
    assert judge(sets) > of_random + MARGIN


def test_whole_set_is_the_best(train, judge, of_random):
    assert judge(train) > of_random + MARGIN
