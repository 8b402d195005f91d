"""Training on two cores: our loop against one image at a time through a DataLoader, in float32.

Both train the same network on the same 4,000 glyphs with the same batches, crops and SGD. The plain
way takes every image through torchvision's transforms, batches in channels-first float32, and uses
all cores in one process. Ours augments whole batches, keeps channels last, takes bfloat16 where the
processor has it, and trains one seed a core. The seeds begin together, after a warm-up, and the
seconds of a seed are its own, so that starting processes is no part of them.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from _race import meet
from joblib import cpu_count
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms

from smallnets import measure
from smallnets.data import Augmentation, Dataset, load
from smallnets.models import named
from smallnets.training import TrainSettings, fit, for_seeds, run_parallel, seeded

SETTINGS = TrainSettings(epochs=2, batch_size=64, augmentation=Augmentation(crop=4), device="cpu")


class OneByOne(torch.utils.data.Dataset):
    """Images of a Dataset through torchvision's transforms, one at a time."""

    def __init__(self, dataset: Dataset) -> None:
        self.images = list(dataset.x_train.permute(0, 2, 3, 1).numpy())
        self.labels = dataset.y_train.tolist()
        self.transform = transforms.Compose(
            [
                transforms.ToPILImage(),
                transforms.RandomCrop(dataset.size, padding=4, padding_mode="reflect"),
                transforms.ToTensor(),
                transforms.Normalize(dataset.mean.tolist(), dataset.std.tolist()),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def plain_training(name: str, dataset: Dataset) -> float:
    """Images a second of the plain way."""
    model = named(name, dataset.num_classes)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    loader = DataLoader(OneByOne(dataset), SETTINGS.batch_size, shuffle=True, drop_last=True)
    began, count = time.perf_counter(), 0
    for _ in range(SETTINGS.epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
            count += len(labels)
    return count / (time.perf_counter() - began)


def our_training(name: str, dataset: Dataset, seed: int, seeds: int, folder: Path) -> float:
    """Images a second of one seed's training, which begins when all seeds are there."""
    with seeded(seed):
        model: nn.Module = named(name, dataset.num_classes)
    fit(model, dataset.take(256), replace(SETTINGS, epochs=1), seed=seed)  # warm-up
    meet(folder, seed, seeds)
    began = time.perf_counter()
    fit(model, dataset, SETTINGS, seed=seed)
    seconds = time.perf_counter() - began
    images = len(dataset.y_train) // SETTINGS.batch_size * SETTINGS.batch_size * SETTINGS.epochs
    return images / seconds


def matrix_peak(dtype: torch.dtype, size: int = 2048) -> float:
    """Multiply-accumulates a second of one thread in a large matrix product."""
    torch.set_num_threads(1)
    a, b = torch.rand(size, size).to(dtype), torch.rand(size, size).to(dtype)
    best = float("inf")
    for _ in range(6):
        began = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - began)
    return size**3 / best


def main() -> None:
    dataset = load("glyphs10", train=4000, test=100)
    cores = cpu_count()
    arithmetic = SETTINGS.arithmetic
    print(f"{cores} cores, ours in {arithmetic}")
    for name in ("convnet-8", "convnet-32", "resnet-20"):
        torch.set_num_threads(cores)
        plain = [plain_training(name, dataset) for _ in range(2)]
        with tempfile.TemporaryDirectory() as folder:
            jobs = for_seeds(cores, name=name, dataset=dataset, seeds=cores, folder=Path(folder))
            ours = sum(run_parallel(our_training, jobs, workers=cores))
        macs = measure.macs(named(name, dataset.num_classes), (dataset.channels, *dataset.size))
        dtype = torch.bfloat16 if arithmetic == "bf16-mixed" else torch.float32
        share = 3 * macs * ours / (cores * matrix_peak(dtype))
        print(
            f"{name:11} plain {max(plain):7.0f} images/s   ours {ours:7.0f} images/s   "
            f"ratio {ours / max(plain):.1f}   {share:.1%} of the matrix-multiply peak"
        )


if __name__ == "__main__":
    main()
