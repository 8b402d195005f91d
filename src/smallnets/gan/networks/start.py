"""Initial weights of the published recipes."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from smallnets import checks

KINDS = ("normal", "xavier", "kaiming", "orthogonal")


@torch.no_grad()
def initialise(
    network: nn.Module,
    kind: str = "normal",
    gain: float = 0.02,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Draw weights anew, in place: those of convolutions and linear layers as said, their biases 0;
    scales of BatchNorm from N(1, gain), their shifts 0. Under a spectral norm it is
    the weight before the norm that is drawn.

    Args:
        network: any.
        kind: "normal", N(0, gain) (ResNet family); "xavier" (GauGAN); "kaiming" (MUNIT), which has
            no gain; or "orthogonal".
        gain: standard deviation, or factor.
        generator: of random numbers.

    Returns:
        The network.

    Raises:
        ValueError: an unknown kind, or a gain that is not above 0.
    """
    checks.one_of("kind", kind, KINDS)
    checks.above("gain", gain, 0)
    for module in network.modules():
        if isinstance(module, _ConvNd | nn.Linear):
            weight = torch.empty_like(module.weight)
            if kind == "normal":
                nn.init.normal_(weight, 0.0, gain, generator=generator)
            elif kind == "xavier":
                nn.init.xavier_normal_(weight, gain, generator=generator)
            elif kind == "kaiming":
                nn.init.kaiming_normal_(weight, generator=generator)
            else:
                nn.init.orthogonal_(weight, gain, generator=generator)
            if parametrize.is_parametrized(module, "weight"):
                module.weight = weight
            else:
                module.weight.copy_(weight)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, _BatchNorm) and module.affine:
            module.weight.normal_(1.0, gain, generator=generator)
            module.bias.zero_()
    return network
