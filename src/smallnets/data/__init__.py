"""What networks look at: data sets as tensors in memory, random changes to batches of them, and
batches of one's own.
"""

from smallnets.batches import Batches
from smallnets.data.augment import (
    Augmentation,
    cutmix,
    cutout,
    mixup,
    random_crop,
    random_flip,
)
from smallnets.data.dataset import Dataset, TrainingImages
from smallnets.data.files import npz_dataset
from smallnets.data.groups import FINE_GROUPS, fine_groups
from smallnets.data.load import load, names
from smallnets.data.mixing import beta_share, blend
from smallnets.data.photographs import photograph, photograph_names
from smallnets.data.training import TrainingData, as_batches

__all__ = [
    "FINE_GROUPS",
    "Augmentation",
    "Batches",
    "Dataset",
    "TrainingData",
    "TrainingImages",
    "as_batches",
    "beta_share",
    "blend",
    "cutmix",
    "cutout",
    "fine_groups",
    "load",
    "mixup",
    "names",
    "npz_dataset",
    "photograph",
    "photograph_names",
    "random_crop",
    "random_flip",
]
