"""Architecture search with a small set: 720 ConvNets trained on it, ranked, and one chosen.

A proxy is good if it ranks the best architectures as training on the whole set does, and if the one
that it chooses is good.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from smallnets import checks
from smallnets.measure.ranking import Correlations, correlations
from smallnets.synthesize.condense.convnets import ConvNet, ConvNetSpec
from smallnets.synthesize.condense.evaluation import EvalSettings, accuracy, train_on
from smallnets.synthesize.condense.sets import (
    Data,
    ImageSet,
    check_same_constants,
    test_set,
    training_set,
)
from smallnets.training import run_parallel

PUBLISHED_SEARCH = EvalSettings(epochs=200)
BEST_BY = ("whole", "proxy")


@dataclass(frozen=True, eq=False)
class ProxyRanking:
    """What one way of ranking found.

    Attributes:
        accuracies: float64 (architectures,), on held-out images.
        seconds: of all trainings together, in processes of one thread.
        images: how many the training sees.
        test_accuracies: as `accuracies`, on test images, to report and never to choose by; None
            where none were given.
    """

    accuracies: Tensor
    seconds: float
    images: int
    test_accuracies: Tensor | None = None

    @property
    def chosen(self) -> int:
        """Place of the best architecture; of equal ones the first."""
        return int(self.accuracies.argmax())


@dataclass(frozen=True, eq=False)
class SearchResult:
    """How a proxy compares with training on the whole set.

    Attributes:
        rank_correlation: Spearman's, over the best share; nan where one side is constant.
        correlation_of_all: Pearson's, Spearman's and Kendall's over all architectures.
        chosen: place of the architecture that the proxy ranks first.
        chosen_accuracy: of that one, trained on the whole set, on held-out images.
        best_accuracy: of the best one, trained on the whole set, on held-out images.
        seconds, images: of the proxy.
        chosen_test_accuracy: as `chosen_accuracy`, on test images (the paper's figure); None where
            the ranking of the whole set has none.
    """

    rank_correlation: float
    correlation_of_all: Correlations
    chosen: int
    chosen_accuracy: float
    best_accuracy: float
    seconds: float
    images: int
    chosen_test_accuracy: float | None = None


def rank_architectures(
    space: Sequence[ConvNetSpec],
    train: Data,
    held_out: Data,
    settings: EvalSettings = PUBLISHED_SEARCH,
    *,
    seed: int = 0,
    workers: int | None = None,
    build: Callable[[ConvNetSpec, ImageSet], torch.nn.Module] | None = None,
    test: Data | None = None,
) -> ProxyRanking:
    """Train every architecture on a set and judge it by held-out training images.

    Args:
        space: the candidates, such as `convnet_space()`.
        train: a small set, or the whole training images; with `settings.iterations` the latter is
            early stopping.
        held_out: images for choosing (as of `Dataset.held_out`), never test images.
        settings: of all trainings.
        seed: of weights, order and augmentation.
        workers: see `smallnets.training.run_parallel`.
        build: (spec, images) -> a network, for candidates of another family.
        test: test images, on which the candidates are judged besides; see `ProxyRanking`.

    Raises:
        ValueError: no candidates, or sets that are normalised differently.
    """
    if not space:
        raise ValueError("space must hold at least one architecture; got none")
    images = training_set(train)
    judges = [test_set(one) for one in (held_out, test) if one is not None]
    for judge in judges:
        check_same_constants(images, judge)

    def job(spec: ConvNetSpec) -> tuple[list[float], float]:
        began = time.perf_counter()

        def factory() -> torch.nn.Module:
            if build is not None:
                return build(spec, images)
            return ConvNet(images.num_classes, images.channels, images.size, spec)

        trained = train_on(images, factory, settings, seed)
        found = accuracy(trained.network, judges[0])
        seconds = time.perf_counter() - began
        return [found, *(accuracy(trained.network, judge) for judge in judges[1:])], seconds

    jobs = [{"spec": spec} for spec in space]
    found = run_parallel(job, jobs, workers=workers, description="searching")
    accuracies, *tested = torch.tensor([each for each, _ in found], dtype=torch.float64).T
    seconds = sum(seconds for _, seconds in found)
    return ProxyRanking(accuracies, seconds, len(images), tested[0] if tested else None)


def compare_rankings(
    proxy: ProxyRanking, whole: ProxyRanking, top: float = 0.05, by: str = "whole"
) -> SearchResult:
    """Compare a proxy with training on the whole set.

    Args:
        proxy, whole: of the same architectures.
        top: share of the best architectures over which ranks are correlated, at least two of them;
            poor ones are unstable and of no interest (the authors' advice).
        by: whose best these are, "whole" or "proxy".

    Raises:
        ValueError: rankings of different lengths, or fewer than two architectures.
    """
    checks.one_of("by", by, BEST_BY)
    checks.between("top", checks.above("top", top, 0), 0, 1)
    total = len(whole.accuracies)
    if len(proxy.accuracies) != total or total < 2:
        raise ValueError(
            "both rankings must be of the same architectures, at least 2; got "
            f"{len(proxy.accuracies)} and {total}"
        )
    judge = whole if by == "whole" else proxy
    best = judge.accuracies.argsort(descending=True, stable=True)[: max(2, round(top * total))]
    tested = whole.test_accuracies
    of_best = correlations(proxy.accuracies[best], whole.accuracies[best])
    return SearchResult(
        rank_correlation=of_best.spearman,
        correlation_of_all=correlations(proxy.accuracies, whole.accuracies),
        chosen=proxy.chosen,
        chosen_accuracy=float(whole.accuracies[proxy.chosen]),
        best_accuracy=float(whole.accuracies.max()),
        seconds=proxy.seconds,
        images=proxy.images,
        chosen_test_accuracy=None if tested is None else float(tested[proxy.chosen]),
    )


def search(
    space: Sequence[ConvNetSpec],
    proxies: Mapping[str, Data],
    whole: Data,
    held_out: Data,
    settings: EvalSettings = PUBLISHED_SEARCH,
    *,
    whole_settings: EvalSettings | None = None,
    top: float = 0.05,
    seed: int = 0,
    workers: int | None = None,
    test: Data | None = None,
) -> dict[str, SearchResult]:
    """The search with several proxies, early stopping and the whole set itself.

    Args:
        space, held_out, seed, workers: see `rank_architectures`.
        proxies: name -> small set, such as random, DSA and DM.
        whole: the training images without those held out.
        settings: of trainings on proxies. Early stopping takes as many steps on `whole` as the
            first proxy does.
        whole_settings: of trainings on `whole`; None is as `settings`.
        top: see `compare_rankings`.
        test: test images. Every choice is judged by them once it is made, trained on `whole`.

    Returns:
        Name -> result, with "early stopping" and "whole" after the proxies.

    Raises:
        ValueError: no proxy, or see `rank_architectures`.
    """
    if not proxies:
        raise ValueError("proxies must hold at least one set; got none")

    def ranked(images: Data, how: EvalSettings, test: Data | None = None) -> ProxyRanking:
        return rank_architectures(
            space, images, held_out, how, seed=seed, workers=workers, test=test
        )

    rankings = {name: ranked(images, settings) for name, images in proxies.items()}
    steps = settings.steps(len(training_set(next(iter(proxies.values())))))
    rankings["early stopping"] = ranked(whole, replace(settings, iterations=steps))
    reference = ranked(whole, whole_settings or settings, test)
    rankings["whole"] = reference
    return {name: compare_rankings(one, reference, top) for name, one in rankings.items()}
