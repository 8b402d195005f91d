"""A step of replay's generator against the published way of doing it, at one and two threads.

32 pixels, latent 1000, batch 64, all six terms. The published way upsamples and convolves the large
map, has hooks on every BatchNorm that copy its input to take its variance, leaves `requires_grad`
on, so that every step computes gradients of all the classifier's weights and throws them away, and
stays in contiguous memory.
"""

import copy
from collections.abc import Callable

import torch
from _plain import plainly, stepped
from _race import race_at_threads
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets.models import cifar_resnet
from smallnets.synthesize import replay as r

BATCH, LATENT = 64, 1000
WEIGHTS = r.GeneratorWeights(diversity=0.1)


def classifier() -> nn.Module:
    """ResNet-8 (16-32-64) whose BatchNorm layers have seen something."""
    network = cifar_resnet(8, 10)
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(64, 3, 32, 32))
    return network.eval()


def rivals() -> dict[str, Callable[[], float]]:
    """Name -> a step, which gives its loss."""
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


def main() -> None:
    title = f"a step of replay's generator, batch {BATCH}, 32 pixels, ResNet-8"
    race_at_threads(title, rivals(), "ours", asked=1.5)


if __name__ == "__main__":
    main()
