"""Steps of two synthesisers against the published way of doing the same, at one and two threads.

Chapter 12, a step of the generator: 32 pixels, latent 1000, batch 64, all six terms. The published
way upsamples and convolves the large map, has hooks on every BatchNorm that copy its input to take
its variance, leaves `requires_grad` on, so that every step computes gradients of all the
classifier's weights and throws them away, and stays in contiguous memory.

Chapter 09, an iteration of Genie's synthesiser: ResNet-8, batch 128, 32 pixels, swing convolutions
off in both. The published way does the same three things, with torch's mean and std as statistics.
Ours is the library's loss and frozen network, with the upsampled convolution in the generator.

Both rivals of a pair start from the same weights and compute the same loss; that is checked first.
Peak memory is that of the tensors which a step allocates, as torch's profiler counts them.
"""

import copy
import itertools
from collections.abc import Callable

import torch
from _race import race, report
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from smallnets.models import cifar_resnet
from smallnets.models.upsampled import UpsampledConv2d
from smallnets.quantize.genie.generator import DataGenerator
from smallnets.quantize.genie.statistics import BatchNormInputs, bn_statistics, bns_loss
from smallnets.quantize.genie.synthesis import frozen_copy
from smallnets.synthesize import replay as r

BATCH, GENIE_BATCH, LATENT, ROUNDS = 64, 128, 1000, 7
ASKED = {"replay": 1.5, "genie": 2.0}
WEIGHTS = r.GeneratorWeights(diversity=0.1)


def classifier() -> nn.Module:
    """ResNet-8 (16-32-64) whose BatchNorm layers have seen something."""
    network = cifar_resnet(8, 10)
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(64, 3, 32, 32))
    return network.eval()


def plainly(generator: nn.Module) -> nn.Module:
    """A copy with an upsampling and a convolution in the place of each upsampled convolution."""
    plain = copy.deepcopy(generator)
    for parent in list(plain.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, UpsampledConv2d):
                convolution = nn.Conv2d(child.in_channels, child.out_channels, 3, padding=1)
                convolution.load_state_dict(child.state_dict())
                setattr(parent, name, nn.Sequential(nn.Upsample(scale_factor=2), convolution))
            elif isinstance(child, nn.LeakyReLU):
                child.inplace = False
    return plain


def with_upsampled(generator: DataGenerator) -> DataGenerator:
    """A copy of Genie's generator whose pairs of upsampling and convolution are one layer each."""
    joined = copy.deepcopy(generator)
    layers = joined.layers
    for place, (first, second) in enumerate(itertools.pairwise(list(layers))):
        if isinstance(first, nn.Upsample) and isinstance(second, nn.Conv2d):
            one = UpsampledConv2d(second.in_channels, second.out_channels)
            one.load_state_dict(second.state_dict())
            layers[place], layers[place + 1] = nn.Identity(), one
    return joined


def stepped(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    """Go a step down a loss, and say how large it was before."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def replay_rivals() -> dict[str, Callable[[], float]]:
    """A step of chapter 12's generator."""
    torch.manual_seed(0)
    network, generator = classifier(), r.generator_32(latent=LATENT)
    latents = torch.randn(BATCH, LATENT)
    pairs = r.draw_pairs(BATCH, BATCH // 2)
    settings = r.GeneratorSettings(weights=WEIGHTS, batch=BATCH, pairs=BATCH // 2)
    frozen = copy.deepcopy(network).requires_grad_(False).to(memory_format=torch.channels_last)
    mine = copy.deepcopy(generator).to(memory_format=torch.channels_last)
    objective = r.GeneratorObjective(frozen, 10, settings)
    optimizer = torch.optim.Adam(mine.parameters(), settings.lr, fused=True)

    def ours() -> float:
        loss = objective.terms(mine, latents, pairs=pairs)["loss"]
        return stepped(optimizer, loss)

    theirs, watched = plainly(generator), copy.deepcopy(network)
    kept: dict[str, Tensor] = {}
    statistics: list[Tensor] = []

    def matched(module: nn.BatchNorm2d, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        x = inputs[0]
        mean = x.mean([0, 2, 3])
        variance = x.permute(1, 0, 2, 3).contiguous().view(x.shape[1], -1).var(1, unbiased=False)
        statistics.append(
            torch.norm(module.running_var - variance, 2) + torch.norm(module.running_mean - mean, 2)
        )

    for module in watched.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(matched)
    watched.classifier.register_forward_pre_hook(lambda _, x: kept.update(features=x[0]))
    adam = torch.optim.Adam(theirs.parameters(), settings.lr)

    def published() -> float:
        statistics.clear()
        images = theirs(latents)
        logits = watched(images)
        p = logits.softmax(1).mean(0)
        variation = sum(one.mean().abs() for one in r.neighbour_differences(images)) / 4
        first, second = (images[place].flatten(1) for place in pairs)
        a, b = first.log_softmax(1), second.log_softmax(1)
        diversity = (
            -sum(F.kl_div(x, y.exp(), reduction="sum") / len(x) for x, y in ((a, b), (b, a))) / 2
        )
        loss = (
            WEIGHTS.one_hot * F.cross_entropy(logits, logits.argmax(1))
            + WEIGHTS.balance * (p * p.log10()).sum()
            - WEIGHTS.activation * kept["features"].abs().mean()
            + WEIGHTS.variation * variation
            + WEIGHTS.bn * sum(statistics) / len(statistics)
            + WEIGHTS.diversity * diversity
        )
        watched.zero_grad()
        return stepped(adam, loss)

    return {"ours": ours, "published way": published}


def genie_rivals() -> dict[str, Callable[[], float]]:
    """An iteration of chapter 09's synthesiser."""
    torch.manual_seed(0)
    network, generator = classifier(), DataGenerator(32)
    stats = bn_statistics(network)
    latents = torch.randn(GENIE_BATCH, 256)
    frozen = frozen_copy(network).to(memory_format=torch.channels_last)
    mine = with_upsampled(generator).to(memory_format=torch.channels_last)
    own = latents.clone().requires_grad_()
    rates = [{"params": [own], "lr": 0.1}, {"params": list(mine.parameters())}]
    optimizer = torch.optim.Adam(rates, 0.01)

    def ours() -> float:
        with BatchNormInputs(frozen) as tap:
            images = mine(own)
            frozen(images)
            loss = bns_loss(tap.inputs, stats, images).total
        return stepped(optimizer, loss)

    theirs, watched, other = copy.deepcopy(generator), copy.deepcopy(network), latents.clone()
    other.requires_grad_()
    rates = [{"params": [other], "lr": 0.1}, {"params": list(theirs.parameters())}]
    adam = torch.optim.Adam(rates, 0.01)

    def published() -> float:
        with BatchNormInputs(watched) as tap:
            images = theirs(other)
            watched(images)
            loss = images.mean((2, 3)).square().sum() + (images.std((2, 3)) - 1).square().sum()
            loss = loss / len(images)
            for x, stat in zip(tap.inputs, stats, strict=True):
                mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3))
                gap = (mean - stat.mean).square().sum() + (std - stat.std).square().sum()
                loss = loss + gap / len(mean)
        watched.zero_grad()
        return stepped(adam, loss)

    return {"ours": ours, "published way": published}


def peak(run: Callable[[], object]) -> float:
    """MB of tensors that a run holds at most beyond what there was before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    events = (e for e in record.profiler.kineto_results.events() if e.name() == "[memory]")
    held = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most / 1e6


def main() -> None:
    for name, rivals_of in (("replay", replay_rivals), ("genie", genie_rivals)):
        rivals = rivals_of()
        first = [run() for run in rivals.values()]
        assert abs(first[0] - first[1]) < 1e-3 * abs(first[1]), (
            f"they compute other losses: {first}"
        )
        sizes = {rival: peak(run) for rival, run in rivals.items()}
        for threads in (1, 2):
            torch.set_num_threads(threads)
            seconds = race(rivals, ROUNDS)
            title = {
                "replay": f"generator of chapter 12, batch {BATCH}",
                "genie": f"synthesiser of chapter 09, batch {GENIE_BATCH}",
            }[name]
            report(
                f"a step of the {title}, 32 pixels, ResNet-8, {threads} thread(s)", seconds, "ours"
            )
            ratio = seconds["published way"] / seconds["ours"]
            print(f"  ratio {ratio:.2f}, at least {ASKED[name]} is asked")
        torch.set_num_threads(1)
        print("  peak memory of a step: " + ", ".join(f"{k} {v:.0f} MB" for k, v in sizes.items()))


if __name__ == "__main__":
    main()
