"""Compressing a generator, and running the compressed one: ours against the published ways.

- A training step of the supernet of horse to zebra, in the published size (the fast recipe) but for
  smaller images: the teacher's answers computed once and one pass of the discriminator over the
  student's images, and Adam in one piece, against the teacher in every step, two such passes and
  Adam tensor by tensor, as the official code has it. Same losses, same updates.
- The horse-to-zebra generator at 256 x 256: the released configuration in ONNX Runtime against the
  whole generator in PyTorch, and both within ONNX Runtime; one thread.
"""

import torch
from _race import race, report
from torch import Tensor
from torch.nn import functional as F

from smallnets import gan
from smallnets.data.translation import Translation
from smallnets.deploy import onnx_runtime
from smallnets.gan.compression import Pictures
from smallnets.gan.networks import (
    PUBLISHED_SPACES,
    PatchDiscriminator,
    ResNetGenerator,
    SuperResNetGenerator,
)
from smallnets.training import seeded

CONFIG = (16, 16, 32, 16, 32, 32, 16, 16)  # released for horse to zebra
SPACE = PUBLISHED_SPACES["resnet:channels-64-cycleGAN"]
SIDE, BATCH = 64, 1


def game() -> gan.Compression:
    with seeded(0):
        teacher, student = ResNetGenerator(ngf=64).eval(), SuperResNetGenerator(ngf=64)
        judge, maps = PatchDiscriminator(3, 64), gan.feature_maps(student, teacher)
    ask = gan.PUBLISHED["horse2zebra"]
    return gan.Compression(student, judge, teacher, maps, SPACE, ask=ask, paired=False)


def published_step(one: gan.Compression, a: Tensor, b: Tensor, draw: torch.Generator) -> Tensor:
    """The official order: backward_D on detached images, then backward_G with D frozen."""
    assert one.teacher is not None
    ask, config = one.ask, SPACE.sample(draw)
    with torch.no_grad():
        target, layers = one.teacher(a, taps=True)
    image, taps = one.student(a, config, taps=True)
    fake, real = one.discriminator(image.detach()), one.discriminator(b)
    (0.5 * sum(gan.discriminator_losses(fake, real, ask.mode))).backward()
    for parameter in one.discriminator.parameters():
        parameter.requires_grad_(False)
    answer = gan.generator_loss(one.discriminator(image), ask.mode)
    mapped = one.features(taps, layers)[0]  # type: ignore[misc]
    loss = answer + ask.recon * F.l1_loss(image, target) + ask.distill * mapped
    loss.backward()
    for parameter in one.discriminator.parameters():
        parameter.requires_grad_(True)
    return loss.detach()


def steps() -> None:
    draw = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 256, (4, 3, SIDE, SIDE), generator=draw, dtype=torch.uint8)
    data = Translation("noise", levels, levels.flip(0), levels[:1], levels[:1], paired=False)
    training = gan.GANTraining(batch_size=BATCH, device="cpu")
    ours, theirs = game(), game()
    ours.prepare(data, training, torch.device("cpu"))
    optimizers = ours.optimizers(training)
    learned = {"D": [theirs.discriminator], "G": [theirs.student, theirs.features]}
    others = {
        name: torch.optim.Adam(
            [p for network in networks if network is not None for p in network.parameters()],
            lr=training.lr, betas=training.betas,
        )
        for name, networks in learned.items()
    }  # fmt: skip
    which = torch.arange(BATCH)
    a, b = data.a(levels[which]), data.b(data.b_train[which])
    plain, same = (torch.Generator().manual_seed(1) for _ in range(2))
    found = []

    def our_step() -> None:
        batch = Pictures(a, b, which, torch.zeros(BATCH, dtype=torch.bool), 0, same)
        found.append((0, ours.step(batch, optimizers)["G"].detach()))

    def their_step() -> None:
        for one in others.values():
            one.zero_grad()
        found.append((1, published_step(theirs, a, b, plain)))
        others["D"].step()
        others["G"].step()

    title = f"supernet step, ResNet of width 64, {BATCH} image of {SIDE} pixels, one thread"
    report(title, race({"ours": our_step, "as published": their_step}, 9), "ours")
    print("  at least 1.5 x is asked for")
    first = [next(loss for who, loss in found if who == one) for one in (0, 1)]
    torch.testing.assert_close(first[0], first[1], rtol=1e-3, atol=1e-4)


def inference() -> None:
    with seeded(0):
        whole = ResNetGenerator(ngf=64).eval()
        small = SuperResNetGenerator(ngf=32).export(CONFIG).eval()
    shape = (3, 256, 256)
    sessions = {
        name: onnx_runtime.load(onnx_runtime.export(network, shape))
        for name, network in (("whole", whole), ("compressed", small))
    }
    x = torch.zeros(1, *shape)

    def torch_of(network: torch.nn.Module) -> None:
        with torch.inference_mode():
            network(x)

    rivals = {
        "compressed, ONNX Runtime": lambda: onnx_runtime.predict(sessions["compressed"], x),
        "compressed, PyTorch": lambda: torch_of(small),
        "whole, ONNX Runtime": lambda: onnx_runtime.predict(sessions["whole"], x),
        "whole, PyTorch": lambda: torch_of(whole),
    }
    costs = [net.cost((256, 256)).exact for net in (whole, small)]  # type: ignore[operator]
    print(f"multiply-accumulates: {costs[0] / costs[1]:.1f} x fewer")
    report("horse to zebra, 256 x 256, one thread", race(rivals, 5), "compressed, ONNX Runtime")
    print("  at least 12 x is asked for, of the whole one in PyTorch")


def main() -> None:
    torch.set_num_threads(1)
    steps()
    inference()


if __name__ == "__main__":
    main()
