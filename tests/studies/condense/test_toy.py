"""The toy in the plane, and the listings of the chapter."""

import torch

from smallnets.studies.condense import listing, toy


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


SOURCE = """def f(x, y):
    checks.whole("x", x, 1)
    check_classes(y, x)
    if y is None:
        raise ValueError(
            "y must be given"
        )
    assert x
    if x > y:
        return x
    z = checks.above("y", y, 0)
    return z + y"""
KEPT = """def f(x, y):
    if x > y:
        return x
    z = checks.above("y", y, 0)
    return z + y"""


def test_checks_are_left_out_of_listings_and_nothing_else_is():
    assert listing.without_checks(SOURCE) == KEPT
    assert listing.without_checks(f"```python\n{SOURCE}\n```") == f"```python\n{KEPT}\n```"
