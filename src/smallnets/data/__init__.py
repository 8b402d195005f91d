"""What networks look at: data sets as tensors in memory, and random changes to batches of them."""

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

__all__ = [
    "FINE_GROUPS",
    "Augmentation",
    "Dataset",
    "TrainingImages",
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
