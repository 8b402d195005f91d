"""One protocol for every set: fresh networks, trained on the set alone, tested on real images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from smallnets.data import Dataset
from smallnets.storage import Arrays, kept_arrays
from smallnets.studies.condense.making import build, kept_under
from smallnets.studies.condense.plan import Settings
from smallnets.studies.seeds import member_seed
from smallnets.synthesize import condense as method
from smallnets.synthesize.condense.sets import check_same_constants


def judge(
    images: method.ImageSet,
    dataset: Dataset,
    settings: Settings,
    seed: int,
    *,
    network: str | None = None,
    how: method.EvalSettings | None = None,
    cache_dir: Path | None = None,
) -> float:
    """What a set is worth: the mean accuracy of `settings.networks` networks, 0 to 1.

    All sets of a repetition are judged by networks of the same first weights.

    Args:
        images: the set.
        dataset: for its test part, which `Dataset.held_out` makes of training images.
        settings: of the study.
        seed: of the repetition.
        network: name of what is trained; None is the settings'.
        how: it is trained; None is the settings' protocol.
        cache_dir: folder for what was judged.

    Raises:
        ValueError: the set is normalised otherwise than the data set.
    """
    check_same_constants(images, method.test_set(dataset))
    name, protocol = network or settings.network, how or settings.judging
    numbers = [member_seed(seed, n) for n in range(settings.networks)]
    file = kept_under(
        cache_dir, "judged", images=images.images, labels=images.labels, data=dataset.key,
        how=protocol, network=name, numbers=numbers,
    )  # fmt: skip

    def one(number: int) -> float:
        trained = method.train_on(images, lambda: build(images, name), protocol, number)
        return method.accuracy(trained.network, dataset)

    def accuracies() -> Arrays:
        found = [unless_it_diverges(lambda n=n: one(n), dataset) for n in numbers]  # type: ignore[misc]
        return {"accuracies": np.array(found)}

    return float(kept_arrays(file, accuracies)["accuracies"].mean())


def unless_it_diverges(accuracy: Callable[[], float], dataset: Dataset) -> float:
    """What `accuracy()` returns, or that of guessing where a training's loss does not stay finite:
    some networks of a table do not stand a rate that suits the others.
    """
    try:
        return accuracy()
    except ValueError as error:
        if "the loss must stay finite" not in str(error):
            raise
        return 1 / dataset.num_classes
