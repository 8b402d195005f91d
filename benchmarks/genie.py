"""Genie's two loops against the plain way of writing them, as the official code does.

Synthesis: the plain way leaves `requires_grad` on, so that every step computes gradients of all the
network's weights and throws them away, and takes statistics by torch.std and torch.mean.
Reconstruction: the plain way runs the whole original and the whole quantised network once for each
unit to cache its inputs and targets; ours carries them on from unit to unit. The steps of learning
are the same, so the second race is between the whole of it.
"""

import copy

import torch
from _race import race, report
from torch import Tensor, fx

from smallnets.models import cifar_resnet
from smallnets.quantize.genie.network import QuantizedNetwork, quantize
from smallnets.quantize.genie.reconstruct import ReconstructionSettings, learn, reconstruct
from smallnets.quantize.genie.statistics import BatchNormInputs, bn_statistics, bns_loss
from smallnets.quantize.genie.synthesis import frozen_copy

IMAGES = 256
STEPS = ReconstructionSettings(iterations=10, lr_bit=3e-2)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = cifar_resnet(20, 10, width=16)
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(64, 3, 32, 32))
    network.eval()
    stats = bn_statistics(network)
    pixels = torch.randn(32, 3, 32, 32, requires_grad=True)
    frozen = frozen_copy(network)

    def ours() -> None:
        with BatchNormInputs(frozen) as tap:
            frozen(pixels)
            bns_loss(tap.inputs, stats, pixels).total.backward()

    def plain() -> None:
        with BatchNormInputs(network) as tap:
            network(pixels)
            loss = plain_loss(tap.inputs, pixels)
        network.zero_grad()
        loss.backward()

    def plain_loss(inputs: list[Tensor], images: Tensor) -> Tensor:
        loss = images.mean((2, 3)).square().sum() + (images.std((2, 3)) - 1).square().sum()
        loss = loss / len(images)
        for x, stat in zip(inputs, stats, strict=True):
            mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3))
            gap = (mean - stat.mean).square().sum() + (std - stat.std).square().sum()
            loss = loss + gap / len(mean)
        return loss

    name = "ours, frozen"
    seconds = race({name: ours, "gradients left on": plain}, rounds=7)
    report("a step of synthesis, 32 images of 32 pixels, ResNet-20", seconds, name)
    print(f"  ours makes {1 / seconds[name]:.1f} steps a second")

    images = torch.randn(IMAGES, 3, 32, 32)
    start = quantize(network, 4, 4, sample=16_384)
    name = "ours, carried on"
    rivals = {
        name: lambda: reconstruct(copy.deepcopy(start), images, STEPS),
        "whole network for each unit": lambda: whole_each_time(copy.deepcopy(start), images),
    }
    seconds = race(rivals, rounds=2)
    title = f"{len(start.units())} units of {STEPS.iterations} steps on {IMAGES} images"
    report(title, seconds, name)
    print(f"  ours reconstructs {len(start.units()) / seconds[name]:.1f} units a second")


def whole_each_time(network: QuantizedNetwork, images: Tensor) -> None:
    """Reconstruct, with two passes of everything to find what one unit sees and should give."""
    generator = torch.Generator().manual_seed(0)
    for unit in network.units():
        _, student = network.pair(unit)
        entry, target = unit.entries[0].name, unit.target.name
        exact, wanted = caught(network.original, (entry, target), images)
        seen, _ = caught(network.rebuilt(network.root), (entry, target), images)
        learn(student, wanted, [exact], [seen], STEPS, generator)


class Keeping(fx.Interpreter):
    """Runs a network step by step and keeps the results of some."""

    def __init__(self, graph: fx.GraphModule, names: tuple[str, ...]) -> None:
        super().__init__(graph)
        self.names = names
        self.kept: dict[str, list[Tensor]] = {}

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if n.name in self.names:
            self.kept.setdefault(n.name, []).append(value)
        return value


def caught(graph: fx.GraphModule, names: tuple[str, ...], images: Tensor) -> list[Tensor]:
    """Some tensors of passes of a whole network; of its input, the images."""
    runner = Keeping(graph, names)
    with torch.no_grad():
        for part in images.split(128):
            runner.run(part)
    return [torch.cat(runner.kept[name]) if name in runner.kept else images for name in names]


if __name__ == "__main__":
    main()
