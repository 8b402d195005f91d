"""Movements: real clips made of still images, and networks that see clips.

A clip of six kinds: what is in it moves left, right, up or down, or comes nearer or goes away. No
single frame tells which. The teacher learns it from clips of the data set's images; its student
sees fake clips of one photograph.
"""

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smallnets.data import Dataset
from smallnets.distill.single_image import (
    NO_VIEW,
    ClipGenerator,
    Imitation,
    fresh_batches,
    source_image,
)
from smallnets.studies.networks import evaluate_accuracy
from smallnets.studies.seeds import teacher_seed
from smallnets.studies.single_image.plan import Settings
from smallnets.studies.single_image.students import CLIPS, LARGEST, Trained, imitate
from smallnets.studies.watching import train_watched
from smallnets.training import seeded

MOVEMENTS = ("left", "right", "up", "down", "nearer", "away")
FARTHEST = 0.35  # of a side, from the first frame to the last
GROWTH = 1.8  # from the first frame to the last, at most
VIDEO = Imitation(temperature=5.0, mixing="none", view=NO_VIEW)


def moving(images: Tensor, frames: int, seed: int) -> tuple[Tensor, Tensor]:
    """Still images, uint8 (n, channels, height, width), that are set in motion.

    Args:
        images: of which each makes one clip.
        frames: of a clip.
        seed: of how far and how fast.

    Returns:
        Clips uint8 (n, channels, frames, height, width), and which of `MOVEMENTS` each is (n,).
    """
    count = len(images)
    kinds = torch.arange(count) % len(MOVEMENTS)
    generator = torch.Generator().manual_seed(seed)
    strength = 0.3 + 0.7 * torch.rand(count, generator=generator)
    time = torch.linspace(-0.5, 0.5, frames)
    direction = torch.tensor([[-1.0, 0], [1, 0], [0, -1], [0, 1], [0, 0], [0, 0]])[kinds]
    shift = 2 * FARTHEST * strength[:, None, None] * direction[:, None] * time[:, None]
    turn = torch.tensor([0.0, 0, 0, 0, 1, -1])[kinds] * strength
    growth = GROWTH ** (turn[:, None] * time)
    matrix = torch.zeros(count, frames, 2, 3)
    matrix[..., 0, 0] = matrix[..., 1, 1] = 1 / growth  # from the frame back to the image
    matrix[..., 2] = -shift / growth[..., None]
    still = images.float().repeat_interleave(frames, 0)
    places = F.affine_grid(matrix.flatten(0, 1), list(still.shape), align_corners=False)
    moved = F.grid_sample(still, places, padding_mode="border", align_corners=False)
    clips = moved.round().to(torch.uint8).unflatten(0, (count, frames)).transpose(1, 2)
    return clips.contiguous(), kinds


def real_clips(dataset: Dataset, settings: Settings) -> Dataset:
    """The data set's images in motion; of each clip, channels and frames lie one after the other.

    Returns:
        A data set whose images are (channels * frames, height, width), normalised as the still
        ones are, and whose classes are `MOVEMENTS`.
    """
    some = dataset.take(min(settings.clips, len(dataset.y_train)))
    x_train, y_train = moving(some.x_train, settings.frames, 0)
    x_test, y_test = moving(some.x_test, settings.frames, 1)
    mean, std = (one.repeat_interleave(settings.frames) for one in (dataset.mean, dataset.std))
    return Dataset(
        "movements", x_train.flatten(1, 2), y_train, x_test.flatten(1, 2), y_test, MOVEMENTS,
        flips=False, moments=(mean, std),
    )  # fmt: skip


class AsClip(nn.Module):
    """Images of channels * frames planes as clips; clips stay.

    Args:
        channels: of a frame.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels * frames, height, width) -> (n, channels, frames, height, width)."""
        return x if x.dim() == 5 else x.unflatten(1, (self.channels, -1))


def clip_network(width: int, channels: int, classes: int = len(MOVEMENTS)) -> nn.Sequential:
    """Three stages of 3x3x3 convolutions, which halve height and width and keep the frames."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(clip=AsClip(channels))
    for number, (below, above, stride) in enumerate(
        ((channels, width, 2), (width, 2 * width, 2), (2 * width, 2 * width, 1)), start=1
    ):
        parts[f"stage{number}"] = nn.Sequential(
            nn.Conv3d(below, above, 3, (1, stride, stride), padding=1, bias=False),
            nn.BatchNorm3d(above),
            nn.ReLU(),
        )
    parts["pool"] = nn.AdaptiveAvgPool3d(1)
    parts["flat"] = nn.Flatten()
    parts["classifier"] = nn.Linear(2 * width, classes)
    return nn.Sequential(parts)


def train_clip_teacher(
    dataset: Dataset, settings: Settings, seed: int, cache_dir: Path | None = None
) -> Trained:
    """A network that learned movements from real clips, or the kept one."""
    clips, number = real_clips(dataset, settings), teacher_seed(seed, CLIPS)
    with seeded(number):
        network = clip_network(settings.clip_width, dataset.channels)
    training = settings.clip_teaching
    still = replace(training.view, crop=0, flip=False)
    history = train_watched(
        network, clips, replace(training, augmentation=still), number, cache_dir, "clips"
    )
    return Trained(network, history)


def fake_clips(source: str, settings: Settings, seed: int) -> ClipGenerator:
    """Clips of a slow movement over a photograph."""
    picture = source_image(source, at_most=LARGEST)
    return ClipGenerator(picture, settings.patches, settings.frames, seed)


def train_clip_student(
    dataset: Dataset, settings: Settings, seed: int, source: str, cache_dir: Path | None = None
) -> Trained:
    """A network that imitates the teacher of movements on fake clips of one photograph."""
    teacher = train_clip_teacher(dataset, settings, seed, cache_dir).network
    with seeded(seed):
        network = clip_network(settings.clip_width, dataset.channels)
    training = settings.clip_training
    batches = fresh_batches(
        fake_clips(source, settings, seed), training.batch_size, settings.clip_steps
    )
    history = imitate(
        network, teacher, batches, dataset, training, VIDEO, seed, cache_dir,
        label="clip student", real=real_clips(dataset, settings),
    )  # fmt: skip
    return Trained(network, history)


def measure_clips(
    dataset: Dataset, settings: Settings, seed: int, source: str, cache_dir: Path | None = None
) -> dict[str, float]:
    """Share of the real test clips whose movement is recognised: by the "teacher", by its student
    from the "photograph", by one from "noise", and by an "untrained" network.
    """
    with seeded(seed):
        untrained = clip_network(settings.clip_width, dataset.channels).eval()
    networks = {
        "teacher": train_clip_teacher(dataset, settings, seed, cache_dir).network,
        "photograph": train_clip_student(dataset, settings, seed, source, cache_dir).network,
        "untrained": untrained,
    }
    if settings.thorough:
        student = train_clip_student(dataset, settings, seed, "noise", cache_dir)
        networks["noise"] = student.network
    clips = real_clips(dataset, settings)
    return {name: evaluate_accuracy(one, clips) for name, one in networks.items()}
