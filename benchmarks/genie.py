"""Genie's two loops against the plain way of writing them, as the official code does.

Synthesis, at one and two threads, of a whole batch at 32 pixels with swing convolutions: the plain
way upsamples and convolves the large map, leaves `requires_grad` on, so that every iteration
computes gradients of all the network's weights and throws them away, takes statistics by torch.std
and torch.mean, and stays in contiguous memory.

Reconstruction: the plain way runs the whole original and the whole quantised network once for each
unit to cache its inputs and targets; ours carries them on from unit to unit. The steps of learning
are the same, so the second race is between the whole of it.
"""

import copy
from collections.abc import Callable

import torch
from _plain import plainly, stepped
from _race import race, race_at_threads, report
from torch import Tensor, fx, nn

from smallnets.models import cifar_resnet
from smallnets.quantize.genie.network import QuantizedNetwork, quantize
from smallnets.quantize.genie.reconstruct import ReconstructionSettings, learn, reconstruct
from smallnets.quantize.genie.statistics import BatchNormInputs, bn_statistics
from smallnets.quantize.genie.swing import swing
from smallnets.quantize.genie.synthesis import (
    SynthesisSettings,
    Variables,
    fast_copy,
    new_generator,
    optimise,
)

SHAPE = (3, 32, 32)
ITERATION = SynthesisSettings(iterations=1)
IMAGES = 256
STEPS = ReconstructionSettings(iterations=10, lr_bit=3e-2)


def main() -> None:
    torch.set_num_threads(1)
    title = f"an iteration of synthesis, batch {ITERATION.batch_size}, 32 pixels, ResNet-8"
    race_at_threads(title, rivals(), "ours", asked=2)

    network = seen(20)
    images = torch.randn(IMAGES, *SHAPE)
    start = quantize(network, 4, 4, sample=16_384)
    name = "ours, carried on"
    runs = {
        name: lambda: reconstruct(copy.deepcopy(start), images, STEPS),
        "whole network for each unit": lambda: whole_each_time(copy.deepcopy(start), images),
    }
    seconds = race(runs, rounds=2)
    title = f"{len(start.units())} units of {STEPS.iterations} steps on {IMAGES} images"
    report(title, seconds, name)
    print(f"  ours reconstructs {len(start.units()) / seconds[name]:.1f} units a second")


def seen(depth: int) -> nn.Module:
    """A ResNet (16-32-64) whose BatchNorm layers have seen something."""
    torch.manual_seed(0)
    network = cifar_resnet(depth, 10, width=16)
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(64, *SHAPE))
    return network.eval()


def rivals() -> dict[str, Callable[[], float]]:
    """Name -> an iteration of the synthesiser, which gives its loss."""
    network = seen(8)
    stats = bn_statistics(network)
    generator = new_generator(SHAPE, ITERATION, seed=0)
    latents = torch.randn(ITERATION.batch_size, ITERATION.latent_dim, requires_grad=True)
    fast = swing(fast_copy(network, torch.zeros(2, *SHAPE)), generator=coins())

    def ours() -> float:
        variables = Variables([latents], [*generator.parameters()])
        _, losses = optimise(fast, stats, lambda: generator(latents), variables, ITERATION)
        return losses[0]

    theirs = plainly(generator).to(memory_format=torch.contiguous_format)
    watched, other = swing(network, generator=coins()), latents.detach().clone().requires_grad_()

    def plain() -> float:
        rates = [{"params": [other], "lr": ITERATION.lr_latent}, {"params": theirs.parameters()}]
        adam = torch.optim.Adam(rates, ITERATION.lr_generator)
        with BatchNormInputs(watched) as tap:
            images = theirs.layers(theirs.linear(other).view(-1, *theirs.first_map))
            watched(images)
            loss = images.mean((2, 3)).square().sum() + (images.std((2, 3)) - 1).square().sum()
            loss = loss / len(images)
            for x, stat in zip(tap.inputs, stats, strict=True):
                mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3))
                gap = (mean - stat.mean).square().sum() + (std - stat.std).square().sum()
                loss = loss + gap / len(mean)
        watched.zero_grad()
        return stepped(adam, loss)

    return {"ours": ours, "published way": plain}


def coins() -> torch.Generator:
    """For swing convolutions, the same for every rival."""
    return torch.Generator().manual_seed(0)


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
