"""Once-QAT, its quantiser and its bytes: ours against straightforward ways of doing the same.

- A training step of all widths: codes computed once a step and gradients written out, against
  quantisers of elementary operations that autograd follows, computed anew from the float weight
  for every width, and one graph of all widths that is kept until the end.
- The same against one step of a dedicated network for each width: what once-QAT costs.
- The quantiser of the weights alone, forwards and backwards for all widths.
- Packing and unpacking layers with array operations, against a loop over weights.
"""

import torch
from _race import race, report
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets.models import cifar_resnet
from smallnets.quantize import layered as vl
from smallnets.quantize.rounding import floor_through, integer_range, round_through
from smallnets.training import Batch, seeded

WIDTHS = (8, 6, 4, 2)


def clipped(ratio: Tensor, low: int, high: int) -> Tensor:
    inside = (ratio >= low) & (ratio <= high)
    return torch.where(inside, ratio, ratio.detach().clamp(low, high))


class PlainWeights(nn.Module):
    """w_b by elementary operations."""

    def __init__(self, like: vl.CascadeQuantizer) -> None:
        super().__init__()
        self.like = like

    def forward(self, weight: Tensor, bits: int) -> Tensor:
        top, step = self.like.step, self.like.step_of(bits)
        shift = self.like.high - bits
        top = top if shift == 0 else top.detach()
        codes = round_through(clipped(weight / top, *integer_range(self.like.high)))
        for _ in range(shift):
            codes = floor_through(codes / 2)
        return step * (codes + self.like.offset(bits))


class PlainInputs(nn.Module):
    """LSQ by elementary operations."""

    def __init__(self, like: vl.LsqActivation) -> None:
        super().__init__()
        self.like = like

    def forward(self, x: Tensor, bits: int) -> Tensor:
        step = self.like.step_of(bits)
        return round_through(clipped(x / step, *self.like.limits(bits))) * step


def networks(x: Tensor, **options: object) -> tuple[vl.LayeredNetwork, vl.LayeredNetwork]:
    with seeded(0):
        model = cifar_resnet(8, 10, 3, width=16)
    ours = vl.to_layered(model, WIDTHS, **options).start(x).train()  # type: ignore[arg-type]
    plain = vl.to_layered(model, WIDTHS, **options).start(x).train()  # type: ignore[arg-type]
    for _, layer in plain.layers():
        layer.weights, layer.inputs = PlainWeights(layer.weights), PlainInputs(layer.inputs)
    memory = torch.channels_last
    return ours.to(memory_format=memory), plain.to(memory_format=memory)


def loop_packed(codes: list[int], low: int, high: int) -> list[bytearray]:
    """Layers of a list of codes, a weight and a bit at a time."""
    count = len(codes)
    layers = [bytearray(-(-low * count // 8))]
    layers += [bytearray(-(-count // 8)) for _ in range(low + 1, high + 1)]
    for i, code in enumerate(codes):
        base = code >> (high - low)
        for j in range(low):
            place = low * i + j
            layers[0][place // 8] |= ((base >> (low - 1 - j)) & 1) << (7 - place % 8)
        for k in range(1, high - low + 1):
            layers[k][i // 8] |= ((code >> (high - low - k)) & 1) << (7 - i % 8)
    return layers


def loop_unpacked(layers: list[bytearray], count: int, low: int) -> list[int]:
    codes = []
    for i in range(count):
        code = 0
        for j in range(low):
            place = low * i + j
            bit = (layers[0][place // 8] >> (7 - place % 8)) & 1
            code = 2 * code - bit if j == 0 else 2 * code + bit
        for layer in layers[1:]:
            code = 2 * code + ((layer[i // 8] >> (7 - i % 8)) & 1)
        codes.append(code)
    return codes


def main() -> None:
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, 32, 32, generator=draw).contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (64,), generator=draw)
    ours, plain = networks(x)

    def our_step() -> None:
        ours.zero_grad()
        vl.TrainOnce()(ours, Batch(x, y))["loss"].backward()

    def plain_step() -> None:
        plain.zero_grad()
        loss = torch.stack([F.cross_entropy(plain(x, bits), y) for bits in WIDTHS]).mean()
        loss.backward()

    with seeded(0):
        model = cifar_resnet(8, 10, 3, width=16)
    rule = vl.WeightRule(start="lsq")
    dedicated = [vl.to_layered(model, (b,), weights=rule).start(x).train() for b in WIDTHS]

    def dedicated_steps() -> None:
        for one in dedicated:
            one.zero_grad()
            vl.TrainOnce()(one, Batch(x, y))["loss"].backward()

    title = f"training step of widths {WIDTHS}, ResNet-8, 64 images of 32 pixels, one thread"
    rivals = {
        "ours": our_step,
        "elementary, anew for each width": plain_step,
        "a dedicated network a width": dedicated_steps,
    }
    report(title, race(rivals, 7), "ours")

    weight = torch.randn(256, 256, 3, 3, generator=draw).requires_grad_()
    one = vl.CascadeQuantizer(weight, WIDTHS)
    other = PlainWeights(one)

    def values(quantizer: nn.Module) -> None:
        weight.grad = None
        for bits in WIDTHS:
            quantizer(weight, bits).sum().backward()

    def our_values() -> None:
        with one.same_codes():
            values(one)

    rivals = {"ours": our_values, "elementary, anew for each width": lambda: values(other)}
    report("quantiser of 589,824 weights, all widths, both ways", race(rivals, 9), "ours")

    codes = torch.randint(-128, 128, (100_000,), generator=draw)
    listed = codes.tolist()
    packed, looped = vl.pack_layered(codes, 8, 2), loop_packed(listed, 2, 8)
    assert packed.base == bytes(looped[0]), "the two write the same bytes"
    assert loop_unpacked(looped, len(listed), 2) == packed.codes(8).tolist()
    for title, rivals in (
        (
            "packing 100,000 weights in layers of 2 to 8 bits",
            {
                "ours": lambda: vl.pack_layered(codes, 8, 2),
                "loop over weights": lambda: loop_packed(listed, 2, 8),
            },
        ),
        (
            "unpacking them",
            {
                "ours": lambda: packed.codes(8),
                "loop over weights": lambda: loop_unpacked(looped, len(listed), 2),
            },
        ),
    ):
        report(title, race(rivals, rounds=3), "ours")


if __name__ == "__main__":
    main()
