"""Function matching with the teacher inside the loop: our loop against the naive one.

Both train the same student under the same teacher on the same 1,000 glyphs for the same number of
steps with Adam. The naive way crops every image by itself through torchvision, keeps channels
first, runs student and teacher in float32, and uses all cores in one process. Ours crops whole
batches with two matrix products an image, keeps channels last, takes bfloat16 where the processor
has it, and trains one seed a core. The seeds begin each round together, after a warm-up, and the
seconds of a seed are its own, so that starting processes is no part of them. Of both ways the best
round counts.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from _race import meet
from joblib import cpu_count
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms

from smallnets.data import Dataset
from smallnets.distill import matching as fm
from smallnets.studies import matching as study
from smallnets.training import for_seeds, run_parallel

EPOCHS = 4
ROUNDS = 3


class OneByOne(torch.utils.data.Dataset):
    """Images through torchvision's inception crop, one at a time."""

    def __init__(self, dataset: Dataset, resolution: int) -> None:
        self.images = list(dataset.x_train.permute(0, 2, 3, 1).numpy())
        self.transform = transforms.Compose(
            [
                transforms.ToPILImage(),
                transforms.RandomResizedCrop(resolution, scale=(0.3, 1.0), antialias=False),
                transforms.ToTensor(),
                transforms.Normalize(dataset.mean.tolist(), dataset.std.tolist()),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(self.images[index])


def naive(dataset: Dataset, settings: study.Settings) -> float:
    """Epochs a minute of the naive way."""
    teacher = study.build_network(settings.teacher, dataset, 0).eval()
    student = study.build_network(settings.student, dataset, 1)
    optimizer = torch.optim.AdamW(student.parameters(), settings.training.lr)
    crops = OneByOne(dataset, settings.matching.resolution or 32)
    loader = DataLoader(crops, settings.training.batch_size, shuffle=True)
    began = time.perf_counter()
    for _ in range(EPOCHS):
        for images in loader:
            share = max(share := torch.rand(()).item(), 1 - share)
            images = share * images + (1 - share) * images.roll(1, 0)
            with torch.no_grad():
                target = F.log_softmax(teacher(images), dim=1)
            prediction = F.log_softmax(student(images), dim=1)
            optimizer.zero_grad()
            F.kl_div(prediction, target, reduction="batchmean", log_target=True).backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
    return 60 * EPOCHS / (time.perf_counter() - began)


def ours(
    dataset: Dataset, settings: study.Settings, seed: int, seeds: int, folder: Path
) -> list[float]:
    """Seconds of every round of one seed's training, which begin when all seeds are there."""
    teacher = study.build_network(settings.teacher, dataset, 0).eval()
    seconds = []
    for number in range(1 + ROUNDS):
        student = study.build_network(settings.student, dataset, seed)
        training = replace(settings.training, epochs=EPOCHS if number else 1)  # first a warm-up
        meet(folder / str(number), seed, seeds)
        began = time.perf_counter()
        fm.match(student, teacher, dataset, settings.matching, training, seed=seed)
        seconds.append(time.perf_counter() - began)
    return seconds[1:]


def our_rate(dataset: Dataset, settings: study.Settings, cores: int) -> float:
    """Epochs a minute of one seed a core."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1 + ROUNDS):
            (Path(folder) / str(number)).mkdir()
        jobs = for_seeds(
            cores, dataset=dataset, settings=settings, seeds=cores, folder=Path(folder)
        )
        runs = run_parallel(ours, jobs, workers=cores)
    return max(sum(60 * EPOCHS / one for one in together) for together in zip(*runs, strict=True))


def main() -> None:
    cores = cpu_count()
    for resolution in (16, 32):
        dataset, settings = study.prepare(
            "glyphs10",
            "small",
            study.Options(train=3400, transfer=1000, resolution=resolution, device="cpu"),
        )
        training = replace(settings.training, batch_size=64)
        settings = replace(settings, teacher="convnet-32", training=training)
        part = study.transfer_set(dataset, settings)
        torch.set_num_threads(cores)
        plain = max(naive(part, settings) for _ in range(ROUNDS))
        rate = our_rate(part, settings, cores)
        print(
            f"{settings.teacher} -> {settings.student} at {resolution} pixels, {cores} cores, "
            f"ours in {settings.training.arithmetic}: naive {plain:6.0f} epochs of "
            f"{len(part.x_train)} images a minute, ours {rate:6.0f}, ratio {rate / plain:.1f}"
        )


if __name__ == "__main__":
    main()
