"""Choosing real images: herding, k-center, forgetting, random."""

from itertools import combinations

import pytest
import torch

from smallnets.synthesize import condense as dm


def points(n=40, dimension=5, seed=0):
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(n, dimension, generator=draws, dtype=torch.float64)


def test_herding_keeps_the_running_mean_near_the_mean_of_all():
    """The error falls about as 1/n, that of random points as the root of it."""
    features = points(400)
    order = dm.herding(features, 64)
    mean = features.mean(0)
    error = {n: float((features[order[:n]].mean(0) - mean).norm()) for n in (4, 16, 64)}
    assert error[64] < error[16] / 2 < error[4] / 4
    draws = torch.Generator().manual_seed(1)
    at_random = [
        float((features[torch.randperm(400, generator=draws)[:64]].mean(0) - mean).norm())
        for _ in range(20)
    ]
    assert error[64] < 0.2 * min(at_random)


@pytest.mark.parametrize("choose", [dm.herding, dm.k_center])
def test_all_points_are_a_permutation(choose):
    features = points(17)
    assert sorted(choose(features, 17).tolist()) == list(range(17))
    assert choose(features, 5).tolist() == choose(features, 17)[:5].tolist()


@pytest.mark.parametrize("choose", [dm.herding, dm.k_center])
def test_of_equal_points_the_first_is_taken_and_none_twice(choose):
    same = torch.ones(4, 2)
    assert choose(same, 4).tolist() == [0, 1, 2, 3]


def test_first_centre_is_nearest_to_the_mean_and_the_next_is_farthest():
    features = torch.tensor([[0.0], [1.0], [1.2], [5.0], [-3.0]])
    assert dm.k_center(features, 3).tolist() == [1, 3, 4]


def test_covering_radius_never_grows_and_is_within_twice_the_best():
    features = points(12, 2)
    order = dm.k_center(features, 6)
    radii = [dm.covering_radius(features, order[:n]) for n in range(1, 7)]
    assert radii == sorted(radii, reverse=True)
    for n in (1, 2, 3):
        best = min(
            dm.covering_radius(features, torch.tensor(some)) for some in combinations(range(12), n)
        )
        assert radii[n - 1] <= 2 * best + 1e-12


def test_forgetting_by_hand():
    correct = torch.tensor([[1, 0, 0, 1], [0, 0, 1, 1], [1, 0, 1, 1], [0, 0, 0, 1]]).bool()
    found = dm.forgetting_events(correct)
    assert found.events.tolist() == [2, 0, 1, 0]
    assert found.never.tolist() == [False, True, False, False]


@pytest.mark.parametrize("method", dm.METHODS)
def test_every_method_chooses_so_many_of_every_class(real, method):
    needs = {}
    if method == "forgetting":
        events = torch.arange(48) % 12
        needs["forgetting"] = dm.Forgetting(events, torch.arange(48) % 12 == 3)
    elif method != "random":
        needs["features"] = points(48)
    chosen = dm.select(real, method, 3, **needs)
    assert chosen.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    places = [
        (real.images - image).abs().amax((1, 2, 3)).argmin().item() for image in chosen.images
    ]
    assert real.labels[places].tolist() == chosen.labels.tolist()
    assert len(set(places)) == 12
    if method == "forgetting":  # never learned comes first, then the most forgotten
        assert [place % 12 for place in places] == [3, 11, 10] * 4
    elif method != "random":
        choose = dm.herding if method == "herding" else dm.k_center
        for label in range(4):
            mine = real.labels == label
            order = choose(needs["features"][mine], 3)
            assert torch.equal(chosen.images[chosen.labels == label], real.images[mine][order])


def test_random_follows_the_seed_class_by_class(real):
    one, again, other = (dm.select(real, "random", 3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.images, again.images)
    assert not torch.equal(one.images, other.images)
    alone = dm.select(real, "random", 3, only=[2])
    assert torch.equal(alone.images, one.images[6:9])


def test_bad_inputs_are_refused_in_one_line(real):
    features = points(48)
    nan = features.clone()
    nan[3] = torch.nan
    for call, words in (
        (lambda: dm.herding(points(5), 6), "n must be between 1 and 5; got 6"),
        (lambda: dm.k_center(points(5), 6), "n must be between 1 and 5; got 6"),
        (lambda: dm.herding(points(5), 0), "n must be at least 1"),
        (lambda: dm.k_center(nan, 2), "features must be finite; got nan or inf"),
        (lambda: dm.herding(points(5)[0], 1), r"features must be \(points, D\)"),
        (lambda: dm.forgetting_events(torch.zeros(3)), r"must be \(epochs, examples\)"),
        (lambda: dm.forgetting_events(torch.full((2, 2), 2)), "truth values"),
        (lambda: dm.select(real, "herding", 2), "herding needs features of a trained network"),
        (lambda: dm.select(real, "forgetting", 2), "forgetting needs forgetting events"),
        (lambda: dm.select(real, "k-center", 2, features=features[:7]), "all 48 images; got 7"),
        (lambda: dm.select(real, "best", 2), "method must be one of random, herding"),
        (lambda: dm.select(real, "random", 13), "at least 13 images; class 0 has 12"),
        (lambda: dm.select(real, "random", 0), "ipc must be at least 1"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
