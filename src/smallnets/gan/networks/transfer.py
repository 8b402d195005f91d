"""L1 pruning: from a wide trained generator to a narrow one, channels in order of importance.

Layer by layer, output channels are ranked by the L1 norm of their weights, of which only those of
the inputs count that the layer before has kept:

    s_o = sum_(i kept) sum_k |W[o, i, k]|,        keep the top of s, in descending order

The residual stream has one ranking, that of the second downsampling; the second convolution of
every block is made to write it. Depthwise convolutions and norms follow their inputs. With equal
widths this is a permutation, which changes no image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from smallnets.gan.networks.configs import check_config
from smallnets.gan.networks.layers import SeparableConv2d
from smallnets.gan.networks.resnet import ResidualBlock, ResNetGenerator
from smallnets.gan.networks.resnet_widths import eight
from smallnets.gan.networks.super_resnet import SuperResNetGenerator


@torch.no_grad()
def prune_by_l1(big: ResNetGenerator, widths: int | Sequence[int]) -> ResNetGenerator:
    """A narrower generator that begins with the most important channels of a trained one.

    Args:
        big: left as it is. (Of a supernet, export a configuration first.)
        widths: a width for all layers, or a configuration of six or eight, none above those of
            `big`.

    Raises:
        ValueError: a supernet, or widths that do not fit.
    """
    if big.sliceable:
        raise ValueError("a supernet must be exported before it is pruned; see its export()")
    config = check_config((widths,) * 8 if isinstance(widths, int) else eight(widths), big.config)
    small = ResNetGenerator(
        big.in_channels, big.out_channels, n_blocks=big.n_blocks, separable=big.separable,
        norm=big.norm, config=config, legacy=big.legacy, kernel_size=big.kernel_size,
        clamp=big.clamp, dropout=big.dropout,
    )  # fmt: skip
    like = next(big.parameters())
    small.to(like.device, like.dtype).train(big.training)
    kept = torch.arange(big.in_channels, device=like.device)
    last = max(place for place, layer in enumerate(big.model) if isinstance(layer, nn.Conv2d))
    for place, (wide, narrow) in enumerate(zip(big.model, small.model, strict=True)):
        if isinstance(wide, ResidualBlock):
            inner = kept
            for step, (a, b) in enumerate(zip(wide.conv_block, narrow.conv_block, strict=True)):
                inner = _transfer(a, b, inner, kept if step == 6 else None)
        else:
            every = torch.arange(big.out_channels, device=like.device) if place == last else None
            kept = _transfer(wide, narrow, kept, every)
    return small


def sort_channels(network: ResNetGenerator) -> ResNetGenerator:
    """The same function with the channels of every layer in order of importance, the most important
    first: where a supernet can start from.
    """
    return prune_by_l1(network, network.config)


def start_supernet(network: ResNetGenerator, *, sort: bool = True) -> SuperResNetGenerator:
    """A supernet that begins as a trained generator.

    Args:
        network: of one width everywhere.
        sort: its channels first, so that narrow slices hold the important ones.

    Raises:
        ValueError: a generator of several widths.
    """
    if len(set(network.config)) > 1 or network.legacy:
        raise ValueError(
            f"a supernet must start from a generator of one width; got {network.config}"
        )
    supernet = SuperResNetGenerator(
        network.in_channels, network.out_channels, network.config[0], network.n_blocks,
        separable=network.separable, norm=network.norm, kernel_size=network.kernel_size,
        dropout=network.dropout,
    )  # fmt: skip
    like = next(network.parameters())
    supernet.to(like.device, like.dtype).train(network.training)
    supernet.load_state_dict((sort_channels(network) if sort else network).state_dict())
    return supernet


def _transfer(wide: nn.Module, narrow: nn.Module, kept: Tensor, out: Tensor | None) -> Tensor:
    """Copy a layer's kept inputs and its best outputs, or those given; which outputs they are."""
    if isinstance(wide, SeparableConv2d):
        depthwise, norm, pointwise = zip(wide.conv, narrow.conv, strict=True)
        for name, value in depthwise[0].named_parameters():
            depthwise[1].get_parameter(name).copy_(value[kept])
        _transfer(*norm, kept, None)
        return _transfer(*pointwise, kept, out)
    if isinstance(wide, nn.Conv2d | nn.ConvTranspose2d):
        transposed = isinstance(wide, nn.ConvTranspose2d)
        weight = wide.weight[kept].transpose(0, 1) if transposed else wide.weight[:, kept]
        if out is None:
            importance = weight.abs().sum(dim=(1, 2, 3))
            out = importance.sort(descending=True, stable=True).indices[: narrow.out_channels]
        chosen = weight[out]
        narrow.weight.copy_(chosen.transpose(0, 1) if transposed else chosen)
        if wide.bias is not None:
            narrow.bias.copy_(wide.bias[out])
        return out
    if isinstance(wide, _BatchNorm):
        for name, value in wide.state_dict().items():
            narrow.state_dict()[name].copy_(value[kept] if value.dim() else value)
    return kept
