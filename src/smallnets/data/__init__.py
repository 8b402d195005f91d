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
from smallnets.data.photographs import photograph, photograph_file, photograph_names
from smallnets.data.recordings import Recordings, npz_clip, npz_recordings
from smallnets.data.spoken_words import speak, spoken_clip, spoken_recordings
from smallnets.data.synthetic_speech import synthetic_clip, synthetic_recordings
from smallnets.data.training import TrainingData, as_batches

__all__ = [
    "FINE_GROUPS",
    "Augmentation",
    "Batches",
    "Dataset",
    "Recordings",
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
    "npz_clip",
    "npz_dataset",
    "npz_recordings",
    "photograph",
    "photograph_file",
    "photograph_names",
    "random_crop",
    "random_flip",
    "speak",
    "spoken_clip",
    "spoken_recordings",
    "synthetic_clip",
    "synthetic_recordings",
]
