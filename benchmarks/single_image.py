"""Patches of a photograph a second of one core: whole batches against one picture at a time.

The published way is torchvision on PIL pictures with the published settings, colour jitter with hue
included, from a photograph of 512 x 512 that is open all the time, to a tensor in memory (the
official script would also write a JPEG file). Ours draws the parameters anew for every batch, too;
the pyramid, made once a photograph, is not counted. Seconds are those of the processor, so that a
busy machine changes little.
"""

import math
import statistics
import time
from collections.abc import Callable

import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional as TF

from smallnets.distill import single_image as si

SIZE, COUNT, ROUNDS = 32, 2048, 7


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


def main() -> None:
    torch.set_num_threads(1)
    settings = si.PatchSettings(size=SIZE)
    photograph = si.source_image("astronaut")
    rivals = {"torchvision and PIL": (published, 256), "whole batches": (ours, COUNT)}
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    made = {name: (way(photograph, settings), count) for name, (way, count) in rivals.items()}
    for make, count in made.values():
        make(count)
    for _ in range(ROUNDS):
        for name, (make, count) in made.items():
            began = time.process_time()
            make(count)
            seconds[name].append((time.process_time() - began) / count)
    height, width = photograph.shape[1:]
    print(f"patches of {SIZE} pixels from {height} x {width}, hue jitter on, one thread")
    rate = {name: 1 / statistics.median(each) for name, each in seconds.items()}
    for name, each in rate.items():
        print(f"  {name:22} {each:8.0f} patches a CPU-second")
    print(f"  ratio {rate['whole batches'] / rate['torchvision and PIL']:.1f}")


if __name__ == "__main__":
    main()
