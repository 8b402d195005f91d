"""The toy in the plane: clouds can be learned, and learning others makes a network forget them."""

import torch
from torch.nn import functional as F

from smallnets.studies.replay import toy
from smallnets.synthesize import replay


def trained(network, points, labels, steps):
    optimizer = torch.optim.Adam(network.parameters(), 0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(network(points), labels).backward()
        optimizer.step()
    return network.eval()


def test_clouds_lie_around_their_middles_and_are_the_same_twice():
    points, labels = toy.clouds(toy.AMONG, 400, seed=2, first=3)
    assert labels.unique().tolist() == [3, 4]
    for one, middle in enumerate(toy.AMONG):
        found = points[labels == 3 + one]
        assert torch.allclose(found.mean(0), torch.tensor(middle), atol=0.05)
        assert torch.allclose(found.std(0), torch.tensor(toy.SPREAD), atol=0.04)
    assert torch.equal(points, toy.clouds(toy.AMONG, 400, seed=2, first=3)[0])
    assert not torch.equal(points, toy.clouds(toy.AMONG, 400, seed=3, first=3)[0])


def test_a_network_learns_the_first_classes_and_forgets_them_with_the_next():
    points, labels = toy.clouds(toy.KNOWN, 150, seed=1)
    old = trained(toy.small_network(seed=0), points, labels, 60)
    assert (old(points).argmax(1) == labels).float().mean() > 0.95
    new_points, new_labels = toy.clouds(toy.AMONG, 100, seed=2, first=3)
    new = trained(replay.grow_head(old, 2), new_points, new_labels, 60)
    assert (new(new_points).argmax(1) == new_labels).float().mean() > 0.95
    assert (new(points).argmax(1) == labels).float().mean() < 0.2


def test_the_plane_is_covered_row_by_row():
    plane = toy.grid(side=5)
    assert plane.shape == (25, 2)
    assert plane[0].tolist() == [-toy.EDGE, -toy.EDGE]
    assert plane[1, 1] == -toy.EDGE
    assert plane[-1].tolist() == [toy.EDGE, toy.EDGE]
