"""One protocol for every set: fresh networks, trained on the set alone, tested on real images."""

from pathlib import Path

import numpy as np

from smallnets.data import Dataset
from smallnets.storage import Arrays, kept_arrays
from smallnets.studies.condense.making import build, kept_under
from smallnets.studies.condense.plan import Settings
from smallnets.studies.seeds import member_seed
from smallnets.synthesize import condense as method


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
    """
    name, protocol = network or settings.network, how or settings.judging
    numbers = [member_seed(seed, n) for n in range(settings.networks)]
    file = kept_under(
        cache_dir, "judged", images=images.images, labels=images.labels, data=dataset.key,
        how=protocol, network=name, numbers=numbers,
    )  # fmt: skip

    def accuracies() -> Arrays:
        networks = (
            method.train_on(images, lambda: build(images, name), protocol, number).network
            for number in numbers
        )
        return {"accuracies": np.array([method.accuracy(one, dataset) for one in networks])}

    return float(kept_arrays(file, accuracies)["accuracies"].mean())
