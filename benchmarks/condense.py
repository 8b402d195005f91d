"""One iteration of distribution matching and one step of gradient matching: ours and the usual way.

Both make the same work: a ConvNet of three blocks of 128 channels, ten classes, 256 real images and
ten synthetic ones a class, siamese augmentation, an update of the pixels. The usual way is that of
the published code: class after class through the network as it lies in memory, whole batches of 256
at a time, group norm, affine matrices of scale and rotation made image by image, float32, one
backward pass at the end. Ours takes as many images at a time as stay in the cache, channels last,
one matrix a class, a class to each thread, and of the real images no graph: their blocks are
computed in closed form, with Winograd's convolutions in float32, or in bfloat16 where the processor
has it.

Rivals run in turns, at one thread and at two; the ratio is the median of those of the turns, since
neighbours on the machine change from one turn to the next, and the load average tells of them.
Seconds are those of the processor, and of the clock beside them. The peak of memory is that of a
process that makes one step and nothing else.

    python benchmarks/condense.py [rounds]
"""

import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets.synthesize import condense as dm
from smallnets.training.settings import has_fast_bfloat16

CLASSES, IPC, REAL, SIDE = 10, 10, 256, 32


def images(n: int) -> Tensor:
    """Bytes (n, 3, side, side)."""
    draws = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, SIDE, SIDE), dtype=torch.uint8, generator=draws)


def usual_network() -> nn.Module:
    """Three blocks with group norm of as many groups as channels."""
    layers: list[nn.Module] = []
    for inputs in (3, 128, 128):
        layers += [nn.Conv2d(inputs, 128, 3, padding=1), nn.GroupNorm(128, 128)]
        layers += [nn.ReLU(), nn.AvgPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(2048, CLASSES)).train()


def usual_augmentation(x: Tensor, seed: int) -> Tensor:
    """The family of a seed with one parameter, written to every image of the batch."""
    torch.manual_seed(seed)
    n = len(x)
    family = int(torch.randint(6, ()))
    if family == 0:
        x = x + (torch.rand(n, 1, 1, 1) - 0.5)[:1]
        mean = x.mean(1, keepdim=True)
        x = (x - mean) * (torch.rand(n, 1, 1, 1) * 2)[:1] + mean
        mean = x.mean((1, 2, 3), keepdim=True)
        return (x - mean) * (torch.rand(n, 1, 1, 1) + 0.5)[:1] + mean
    if family == 1:
        shift = int(SIDE * 0.125 + 0.5)
        dy, dx = (torch.randint(-shift, shift + 1, (n, 1, 1))[:1].expand(n, 1, 1) for _ in "yx")
        image, row, column = torch.meshgrid(
            torch.arange(n), torch.arange(SIDE), torch.arange(SIDE), indexing="ij"
        )
        row, column = ((one + d + 1).clamp(0, SIDE + 1) for one, d in ((row, dy), (column, dx)))
        return F.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1)[image, row, column].permute(0, 3, 1, 2)
    if family == 2:
        half = int(SIDE * 0.5 + 0.5)
        cy, cx = (torch.randint(0, SIDE + 1, (n, 1, 1))[:1].expand(n, 1, 1) for _ in "yx")
        image, row, column = torch.meshgrid(
            torch.arange(n), torch.arange(half), torch.arange(half), indexing="ij"
        )
        mask = torch.ones(n, SIDE, SIDE)
        row, column = (
            (one + c - half // 2).clamp(0, SIDE - 1) for one, c in ((row, cy), (column, cx))
        )
        mask[image, row, column] = 0
        return x * mask[:, None]
    if family == 3:
        return torch.where(torch.rand(n, 1, 1, 1)[:1] < 0.5, x.flip(3), x)
    if family == 4:
        low = 1 / 1.2
        sx, sy = (torch.rand(n)[:1].expand(n) * (1.2 - low) + low for _ in "xy")
        theta = [[[sx[i], 0, 0], [0, sy[i], 0]] for i in range(n)]
    else:
        angle = ((torch.rand(n) - 0.5) * 2 * 15 / 180 * math.pi)[:1].expand(n)
        theta = [
            [
                [torch.cos(angle[i]), torch.sin(-angle[i]), 0],
                [torch.sin(angle[i]), torch.cos(angle[i]), 0],
            ]
            for i in range(n)
        ]
    grid = F.affine_grid(torch.tensor(theta), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def usual_data() -> tuple[Tensor, Tensor, torch.optim.SGD]:
    """Normalised real images by class, synthetic ones, and what updates them."""
    real = (images(CLASSES * REAL).float() / 255 - 0.5) / 0.25
    synthetic = torch.randn(CLASSES, IPC, 3, SIDE, SIDE, requires_grad=True)
    return real.view(CLASSES, REAL, 3, SIDE, SIDE), synthetic, torch.optim.SGD([synthetic], 1, 0.5)


def usual_matching() -> Callable[[], object]:
    """An iteration of distribution matching."""
    real, synthetic, optimizer = usual_data()

    def step() -> None:
        embed = usual_network()[:-1].requires_grad_(False)
        loss = torch.zeros(())
        for label in range(CLASSES):
            chosen = real[label][torch.randperm(REAL)]
            batch, made = (usual_augmentation(x, label) for x in (chosen, synthetic[label]))
            loss = loss + (embed(batch).detach().mean(0) - embed(made).mean(0)).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def usual_gradients() -> Callable[[], object]:
    """A matching step of DSA."""
    real, synthetic, optimizer = usual_data()
    network = usual_network()
    weights = list(network.parameters())

    def gradient(x: Tensor, label: int, graph: bool) -> tuple[Tensor, ...]:
        loss = F.cross_entropy(network(x), torch.full((len(x),), label))
        return torch.autograd.grad(loss, weights, create_graph=graph)

    def step() -> None:
        loss = torch.zeros(())
        for label in range(CLASSES):
            chosen = real[label][torch.randperm(REAL)]
            batch, made = (usual_augmentation(x, label) for x in (chosen, synthetic[label]))
            target = [one.detach().clone() for one in gradient(batch, label, False)]
            for a, b in zip(target, gradient(made, label, True), strict=True):
                if a.dim() > 1:
                    a, b = a.flatten(1), b.flatten(1)
                    cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)
                    loss = loss + (1 - cosine).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def our_data() -> tuple[dm.ImageSet, dm.PixelState, dm.Fresh]:
    """The same data as a set, the state of a run, and its networks."""
    labels = torch.arange(CLASSES).repeat_interleave(REAL)
    data = dm.image_set(images(CLASSES * REAL), labels, [0.5] * 3, [0.25] * 3)
    start = torch.randn(CLASSES, IPC, 3, SIDE, SIDE)
    state = dm.PixelState(start, torch.zeros_like(start))
    return data, state, dm.Fresh(CLASSES, 3, (SIDE, SIDE))


def our_matching(precision: str) -> Callable[[], object]:
    """An iteration of `condense`."""
    data, state, networks = our_data()
    settings = dm.DMSettings(ipc=IPC, batch_real=REAL, device="cpu", precision=precision)
    cpu = torch.device("cpu")
    step = dm.MatchingStep(data, range(CLASSES), settings, 0, networks, cpu, precision)

    def iterate() -> None:
        state.finish_iteration(step(state), settings.lr)

    return iterate


def our_gradients(precision: str) -> Callable[[], object]:
    """A matching step of `match_gradients`."""
    data, state, networks = our_data()
    settings = dm.dsa(IPC, batch_real=REAL, device="cpu", precision=precision)
    cpu = torch.device("cpu")
    run = dm.GradientStep(data, range(CLASSES), settings, 0, networks, cpu, precision)
    network = networks().train().to(memory_format=torch.channels_last)
    return lambda: run.match(network, state, 0)


def rivals() -> dict[str, dict[str, Callable[[], Callable[[], object]]]]:
    """Work -> rival -> what prepares its step."""
    found: dict[str, dict[str, Callable[[], Callable[[], object]]]] = {
        "distribution matching": {
            "usual": usual_matching,
            "ours, float32": lambda: our_matching("32-true"),
        },
        "gradient matching": {
            "usual": usual_gradients,
            "ours, float32": lambda: our_gradients("32-true"),
        },
    }
    if has_fast_bfloat16("cpu"):
        found["distribution matching"]["ours, bfloat16"] = lambda: our_matching("bf16-mixed")
        found["gradient matching"]["ours, bfloat16"] = lambda: our_gradients("bf16-mixed")
    return found


def peak(work: str, name: str) -> float:
    """Megabytes of a process that makes one step."""
    command = [sys.executable, __file__, "--peak", work, name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def race(rounds: int) -> None:
    """Print seconds, ratios and peaks."""
    for work, ways in rivals().items():
        memory = {name: peak(work, name) for name in ways}
        for threads in (1, 2):
            torch.set_num_threads(threads)
            seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
            steps = {name: make() for name, make in ways.items()}
            for turn in range(rounds + 1):
                for name, step in steps.items():
                    began = time.process_time(), time.perf_counter()
                    step()
                    took = time.process_time() - began[0], time.perf_counter() - began[1]
                    if turn:  # the first is a warm-up
                        seconds[name].append(took)
            load = os.getloadavg()[0]
            print(f"{work}, {threads} thread{'s' * (threads > 1)}, load {load:.1f}", flush=True)
            for name, taken in seconds.items():
                cpu, clock = (statistics.median(column) for column in zip(*taken, strict=True))
                turns = [
                    [rival / own for rival, own in zip(usual, ours, strict=True)]
                    for usual, ours in zip(seconds["usual"], taken, strict=True)
                ]
                ratios = [statistics.median(column) for column in zip(*turns, strict=True)]
                print(
                    f"  {name:15} {cpu:7.2f} CPU-s ({ratios[0]:4.2f} x)  {clock:7.2f} s "
                    f"({ratios[1]:4.2f} x)  peak {memory[name]:5.0f} MB",
                    flush=True,
                )


def main() -> None:
    if sys.argv[1:2] == ["--peak"]:
        rivals()[sys.argv[2]][sys.argv[3]]()()
        print(dm.cost_of(lambda: None).peak_bytes / 1e6)
    else:
        race(int(sys.argv[1]) if len(sys.argv) > 1 else 3)


if __name__ == "__main__":
    main()
