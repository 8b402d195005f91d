"""The toy in the plane."""

import torch

from smallnets.studies.condense import toy


def test_ring_and_disc_share_their_mean_and_nothing_else():
    points, labels = toy.ring_and_disc(2000, seed=0)
    radius = points.norm(dim=1)
    disc, ring = radius[labels == toy.DISC], radius[labels == toy.RING]
    assert disc.max() <= 0.4 < ring.min()
    assert torch.allclose(ring.mean(), torch.tensor(1.0), atol=0.02)
    for label in (toy.DISC, toy.RING):
        assert points[labels == label].mean(0).norm() < 0.08


def test_points_depend_on_the_seed_alone():
    first, again, other = (toy.ring_and_disc(50, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_heap_lies_apart_from_the_disc():
    heap = toy.heap(classes=2, each=6, seed=3)
    assert heap.shape == (2, 6, 2)
    assert heap.mean((0, 1)).norm() > 0.7
    assert heap.std((0, 1)).max() < 0.2
