"""What one photograph is compared with: a few real images, whole or as patches.

Noise and blank pictures are `source_image("noise")` and `source_image("blank")`; the whole training
set, and other data sets, are pools like any other: `pool_batches(dataset.x_train)`.
"""

from dataclasses import replace

from smallnets.checks import between, whole
from smallnets.data import Dataset
from smallnets.distill.single_image.settings import PUBLISHED_PATCHES, PatchSettings
from smallnets.distill.single_image.streams import PatchGenerator


def real_images(dataset: Dataset, count: int, seed: int = 0) -> Dataset:
    """The data set with `count` of its training images, normalised as with all of them.

    Its `x_train` is a pool of real images for distillation, not patchified; with its labels it is
    the training set of the supervised baseline.

    Args:
        dataset: any.
        count: images, 1 to all; every class gives its share, to within one image.
        seed: which ones.

    Raises:
        ValueError: a number out of range.
    """
    between("count", whole("count", count, 1), 1, len(dataset.y_train))
    chosen = dataset if count == len(dataset.y_train) else dataset.divided(count, seed)[1]
    return replace(chosen, moments=(dataset.mean, dataset.std))


def patchified(
    dataset: Dataset, settings: PatchSettings = PUBLISHED_PATCHES, seed: int = 0
) -> PatchGenerator:
    """Patches of a data set's training images instead of a photograph's; each patch comes from one
    of them, at random.

    Args:
        dataset: such as `real_images(dataset, 10)`.
        settings: of the patches.
        seed: which images and patches.

    Raises:
        ValueError: images that are too small for the settings' first square, or of another number
            of channels than 1 or 3.
    """
    return PatchGenerator(dataset.x_train, replace(settings, channels=dataset.channels), seed)
