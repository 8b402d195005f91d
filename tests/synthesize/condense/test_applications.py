"""Class-incremental learning, architecture search, and the scores of DD-Ranking."""

from dataclasses import replace
from math import e, exp, isnan

import pytest
import torch

from smallnets.synthesize import condense as dm

QUICK = dm.EvalSettings(epochs=4, lr=0.05, batch_size=16, device="cpu")
SETTINGS = dm.DMSettings(ipc=2, iterations=2, batch_real=8, precision="32-true", device="cpu")


def test_memory_grows_by_the_step_and_all_classes_seen_are_tested(real, net, made):
    given, kept = [], []

    def condenser(images, classes, order):
        given.append((sorted(set(images.labels.tolist())), sorted(classes), order))
        return dm.condense(images, SETTINGS, embed_factory=net(), only=classes, seed=order).set

    result = dm.continual(
        real, made(seed=7), condenser, net(), 2, QUICK, orders=[[3, 1, 0, 2], [0, 1, 2, 3]],
        networks=2, workers=1, after_step=lambda order, step, memory: kept.append(memory),
    )  # fmt: skip
    assert [classes for classes, *_ in given] == [[1, 3], [0, 2], [0, 1], [2, 3]]
    assert all(seen == classes for seen, classes, _ in given)
    assert [order for *_, order in given] == [0, 0, 1, 1]
    assert result.accuracies.shape == (2, 2, 2)
    assert result.memory.tolist() == [4, 8]
    assert result.mean.shape == (2,)
    assert [len(memory) for memory in kept] == [4, 8, 4, 8]
    whole = dm.condense(real, SETTINGS, embed_factory=net(), seed=1).set
    torch.testing.assert_close(kept[3].images, whole.images, rtol=1e-4, atol=1e-5)


def test_unseen_classes_are_not_masked(real, made):
    """A network that always says an unseen class is wrong about all images."""

    class Says(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = torch.nn.Parameter(torch.tensor([0.0, 0.0, 0.0, 1e3]))

        def forward(self, x):
            return self.bias.expand(len(x), 4)

    result = dm.continual(
        real, made(seed=7), lambda images, classes, order: dm.select(images, "random", 1,
        only=classes), Says, 2, replace(QUICK, epochs=0, lr=1e-9), orders=[[0, 1, 2, 3]],
        networks=1, workers=1,
    )  # fmt: skip
    assert result.accuracies[0, 0].tolist() == [0, 0.25]


def test_bad_steps_orders_and_condensers_are_refused(real, net, made):
    test = made(seed=7)

    def random(images, classes, order):
        return dm.select(images, "random", 1, only=classes)

    for call, words in (
        (
            lambda: dm.continual(real, test, random, net(), 3),
            "steps must divide the number of classes, 4; got 3",
        ),
        (lambda: dm.continual(real, test, random, net(), 0), "steps must be at least 1"),
        (
            lambda: dm.continual(real, test, random, net(), 2, orders=[[0, 1, 2, 2]]),
            "every order must name the classes 0 to 3 once",
        ),
        (
            lambda: dm.continual(
                real, test, lambda images, classes, order: random(images, classes[:1], 0), net(), 2
            ),
            "the condenser must return images of the classes",
        ),
        (lambda: dm.class_orders(0), "classes must be at least 1"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


def ranking(*accuracies, seconds=1.0, images=10):
    return dm.ProxyRanking(torch.tensor(accuracies, dtype=torch.float64), seconds, images)


def test_rankings_are_compared_over_the_best():
    whole = ranking(0.9, 0.8, 0.7, 0.1, 0.2, 0.3)
    same = dm.compare_rankings(whole, whole, top=0.5)
    assert same.rank_correlation == pytest.approx(1)
    assert same.chosen_accuracy == same.best_accuracy == 0.9
    proxy = ranking(0.3, 0.4, 0.5, 0.1, 0.0, 0.2, seconds=3.0, images=5)
    found = dm.compare_rankings(proxy, whole, top=0.5)
    assert found.rank_correlation == pytest.approx(-1)
    assert found.correlation_of_all.spearman > 0
    assert (found.chosen, found.chosen_accuracy, found.seconds) == (2, 0.7, 3.0)
    by_proxy = dm.compare_rankings(
        ranking(0.5, 0.1, 0.1, 0.4, 0.2, 0.1), whole, top=0.5, by="proxy"
    )
    assert by_proxy.rank_correlation == pytest.approx(0.5)
    with pytest.warns(UserWarning, match="correlation with a constant is undefined"):
        constant = dm.compare_rankings(ranking(*[0.1] * 6), whole)
    assert isnan(constant.rank_correlation)
    with pytest.raises(ValueError, match="of the same architectures, at least 2; got 2 and 6"):
        dm.compare_rankings(ranking(0.1, 0.2), whole)
    with pytest.raises(ValueError, match="by must be one of whole, proxy"):
        dm.compare_rankings(whole, whole, by="test")
    with pytest.raises(ValueError, match="top must be greater than 0"):
        dm.compare_rankings(whole, whole, top=0)


def test_search_ranks_with_every_proxy(real, made, net):
    space = [
        dm.ConvNetSpec(depth, 4, norm=norm) for depth in (1, 2) for norm in ("none", "instance")
    ]
    held_out = made(each=20, seed=7)
    proxies = {"random": dm.select(real, "random", 2)}
    test = made(each=10, seed=8)
    found = dm.search(space, proxies, real, held_out, QUICK, top=1.0, workers=1, test=test)
    assert list(found) == ["random", "early stopping", "whole"]
    assert found["whole"].rank_correlation == pytest.approx(1)
    assert found["whole"].images == 48
    assert found["random"].images == 8
    assert found["early stopping"].images == 48
    assert found["random"].best_accuracy == found["whole"].chosen_accuracy
    whole = dm.rank_architectures(space, real, held_out, QUICK, workers=1, test=test)
    assert not torch.equal(whole.test_accuracies, whole.accuracies)
    for result in found.values():
        assert result.chosen_accuracy == float(whole.accuracies[result.chosen])
        assert result.chosen_test_accuracy == float(whole.test_accuracies[result.chosen])
    own = dm.rank_architectures(
        space[:1], real, held_out, QUICK, build=lambda spec, images: net()(), workers=1
    )
    assert own.accuracies.shape == (1,)
    assert own.test_accuracies is None
    assert dm.compare_rankings(whole, whole, top=1.0).chosen_test_accuracy is not None
    untested = dm.ProxyRanking(whole.accuracies, 1.0, 8)
    assert dm.compare_rankings(whole, untested, top=1.0).chosen_test_accuracy is None
    with pytest.raises(ValueError, match="at least one architecture"):
        dm.rank_architectures([], real, held_out)
    with pytest.raises(ValueError, match="at least one set"):
        dm.search(space, {}, real, held_out)


def test_scores_by_hand():
    difference = 0.5 * (0.6 - 0.5) - 0.5 * (0.85 - 0.55)
    expected = 100 * (exp(difference) - exp(-1)) / (e - exp(-1))
    assert dm.label_robust_score(0.85, 0.55, 0.6, 0.5) == pytest.approx(expected)
    assert dm.label_robust_score(0.85, 0.55, 0.6, 0.5, weight=1) == pytest.approx(
        dm.normalised_score(0.1)
    )
    assert dm.augmentation_robust_score(0.6, 0.5, 0.5, 0.45, weight=0.25) == pytest.approx(
        dm.normalised_score(0.25 * 0.1 + 0.75 * 0.05)
    )
    assert dm.normalised_score(1) == pytest.approx(100)
    assert dm.normalised_score(-1) == pytest.approx(0)
    for call, words in (
        (lambda: dm.label_robust_score(85, 55, 60, 50), "every accuracy must be between 0 and 1"),
        (lambda: dm.label_robust_score(0.8, 0.5, 0.6, 0.5, 2), "weight must be between 0 and 1"),
        (
            lambda: dm.augmentation_robust_score(0.6, 0.5, 0.5, 0.4, weight=-1),
            "weight must be between 0 and 1",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            call()
