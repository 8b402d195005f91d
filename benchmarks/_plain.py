"""Generators and their steps, written as the published code writes them."""

import copy

import torch
from torch import Tensor, nn

from smallnets.models.upsampled import UpsampledConv2d


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


def stepped(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    """Go a step down a loss, and say how large it was before."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())
