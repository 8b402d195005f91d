"""Patches of a photograph a second of one core, and whole steps of a distillation: whole batches
against one picture at a time.

The published way is torchvision on PIL pictures with the published settings, colour jitter with hue
included, from a photograph of 512 x 512 that is open all the time, to a tensor in memory (the
official script would also write a JPEG file). Ours draws the parameters anew for every batch, too;
the pyramid, made once a photograph, is not counted. A step makes its patches, mirrors, shifts and
mixes them, asks the teacher and changes the student; the plain way does all of this but the two
networks one patch at a time. Seconds are those of the processor, so that a busy machine changes
little.
"""

import math
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional as TF

from smallnets.distill import single_image as si
from smallnets.models import named
from smallnets.training import Batch

SIZE, COUNT, ROUNDS, BATCH = 32, 2048, 7, 128


def published(photograph: torch.Tensor, settings: si.PatchSettings) -> Callable[[int], object]:
    """make(count): patches by torchvision's transforms, as in the official data set class."""
    picture = Image.fromarray(photograph.permute(1, 2, 0).contiguous().numpy())
    side = int(settings.initial_crop * min(picture.size))
    r0, r1 = settings.inverse_scale

    class RandomBox(transforms.RandomResizedCrop):
        """Boxes of the official generator: rejection without a way out."""

        @staticmethod
        def get_params(img, scale, ratio):
            width, height = img.size
            while True:
                area = height * width * torch.empty(1).uniform_(*scale).item()
                aspect = math.exp(
                    torch.empty(1).uniform_(math.log(ratio[0]), math.log(ratio[1])).item()
                )
                w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
                if 0 < w <= width and 0 < h <= height:
                    top = int(torch.randint(0, height - h + 1, (1,)))
                    return top, int(torch.randint(0, width - w + 1, (1,))), h, w

    steps = transforms.Compose(
        [
            transforms.RandomCrop(side),
            RandomBox(
                settings.resized, scale=(1 / r0, 1 / r1), ratio=settings.aspect,
                interpolation=transforms.InterpolationMode.BICUBIC,
            ),
            transforms.RandomAffine(
                settings.degrees, shear=settings.shear,
                interpolation=transforms.InterpolationMode.BILINEAR, fill=0,
            ),
            transforms.CenterCrop(settings.size),
            transforms.RandomApply([transforms.ColorJitter(*settings.jitter)], 0.5),
        ]
    )  # fmt: skip
    return lambda count: torch.stack([TF.pil_to_tensor(steps(picture)) for _ in range(count)])


def ours(photograph: torch.Tensor, settings: si.PatchSettings) -> Callable[[int], object]:
    """make(count): patches of a generator."""
    generator, place = si.PatchGenerator(photograph, settings), [0]

    def make(count: int) -> object:
        place[0] += count
        return generator.take(range(place[0], place[0] + count))

    return make


def networks() -> tuple[torch.nn.Module, torch.nn.Module, torch.optim.Optimizer]:
    """A teacher, a student, and what changes the student."""
    torch.manual_seed(0)
    teacher, student = (named("convnet-16", 10) for _ in range(2))
    return teacher.eval(), student, torch.optim.Adam(student.parameters(), 1e-3)


def plain_step(photograph: torch.Tensor, settings: si.PatchSettings) -> Callable[[int], object]:
    """step(count): everything but the networks one patch at a time."""
    make = published(photograph, settings)
    view = transforms.Compose([transforms.RandomHorizontalFlip(), transforms.RandomCrop(SIZE, 4)])
    teacher, student, optimizer = networks()

    def step(count: int) -> object:
        x = torch.stack([view(one / 255) - 0.5 for one in make(count)])
        share = float(torch.distributions.Beta(0.25, 0.25).sample())
        y1, y2, x1, x2 = _box(share)
        x[:, :, y1:y2, x1:x2] = x.flip(0)[:, :, y1:y2, x1:x2].clone()
        with torch.no_grad():
            target = F.log_softmax(teacher(x) / 8, 1)
        answer = F.log_softmax(student(x) / 8, 1)
        loss = F.kl_div(answer, target, reduction="batchmean", log_target=True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def _box(share: float) -> tuple[int, int, int, int]:
    half = int(SIZE * math.sqrt(1 - share)) // 2
    row, column = torch.randint(SIZE, (2,)).tolist()
    low, high = (max(at - half, 0) for at in (row, column)), (min(at + half, SIZE) for at in
                                                             (row, column))  # fmt: skip
    (y1, x1), (y2, x2) = low, high
    return y1, y2, x1, x2


def our_step(photograph: torch.Tensor, settings: si.PatchSettings) -> Callable[[int], object]:
    """step(count): the library's."""
    batches = iter(si.fresh_batches(si.PatchGenerator(photograph, settings), BATCH, 10**6))
    teacher, student, optimizer = networks()
    normalise = si.Normalise(torch.full((3,), 0.5), torch.ones(3))
    objective = si.SingleImageDistillation(teacher, normalise, si.Imitation())
    noise = torch.Generator().manual_seed(0)

    def step(count: int) -> object:
        for _ in range(count // BATCH):
            images, _ = next(batches)
            loss = objective(student, Batch(images, torch.zeros(0), None, noise))["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss

    return step


def race(rivals: dict[str, tuple[Callable[[int], object], int]]) -> dict[str, float]:
    """Name -> patches a CPU-second, the median of rounds in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for make, count in rivals.values():
        make(count)
    for _ in range(ROUNDS):
        for name, (make, count) in rivals.items():
            began = time.process_time()
            make(count)
            seconds[name].append((time.process_time() - began) / count)
    return {name: 1 / statistics.median(each) for name, each in seconds.items()}


def report(title: str, rate: dict[str, float]) -> None:
    print(title)
    for name, each in rate.items():
        print(f"  {name:22} {each:8.0f} patches a CPU-second")
    plain, ours_ = rate.values()
    print(f"  ratio {ours_ / plain:.1f}")


def main() -> None:
    torch.set_num_threads(1)
    settings = si.PatchSettings(size=SIZE)
    photograph = si.source_image("astronaut")
    height, width = photograph.shape[1:]
    report(
        f"patches of {SIZE} pixels from {height} x {width}, hue jitter on, one thread",
        race(
            {
                "torchvision and PIL": (published(photograph, settings), 256),
                "whole batches": (ours(photograph, settings), COUNT),
            }
        ),
    )
    report(
        f"steps of a distillation, {BATCH} patches each, teacher and student convnet-16",
        race(
            {
                "one patch at a time": (plain_step(photograph, settings), BATCH),
                "the library": (our_step(photograph, settings), 4 * BATCH),
            }
        ),
    )


if __name__ == "__main__":
    main()
