"""Convolutions and linear layers that hold a quantiser for their weight and one for their input."""

from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.nn import functional as F

from smallnets.quantize.modules.activations import ActQuantizer, GradientQuantizer, SignAct, XNORAct
from smallnets.quantize.modules.base import Codes, Quantizer
from smallnets.quantize.modules.weights import BinaryWeight


class _Quantized:
    """What both kinds of layer share. None in place of a quantiser leaves the tensor as it is."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        *args: Any,
        w_quant: Quantizer | None = None,
        a_quant: ActQuantizer | None = None,
        g_quant: GradientQuantizer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.w_quant, self.a_quant, self.g_quant = w_quant, a_quant, g_quant

    def quantized_weight(self) -> Tensor:
        """The weight that the layer computes with."""
        if self.w_quant is None:
            return self.weight
        frozen = bool(self.w_quant.frozen)
        return self.w_quant(self.weight.detach() if frozen else self.weight)

    def weight_codes(self) -> Codes:
        """The weight as it is stored.

        Raises:
            ValueError: the weight is not quantised, or its quantiser has not started.
        """
        if self.w_quant is None:
            raise ValueError("the weight of this layer is not quantised")
        return self.w_quant.codes(self.weight)

    def freeze(self) -> None:
        """Hold the weight and all that its quantisers have learned; the bias still learns."""
        for one in (self.w_quant, self.a_quant):
            if one is not None:
                one.freeze()
        if self.w_quant is not None:
            self.weight.requires_grad_(False)

    def after_step(self) -> None:
        """What the quantisers need after a step of the optimiser, see `Quantizer.after_step`."""
        for one in (self.w_quant, self.a_quant):
            if one is not None:
                one.after_step(self.weight.data)

    def _computed(self, x: Tensor, product: Any) -> Tensor:
        """product(quantised input, quantised weight, bias), scaled where the input has a size."""
        given = x if self.a_quant is None else self.a_quant(x)
        weight = self.quantized_weight()
        if isinstance(self.a_quant, XNORAct) and not self.a_quant.passing:
            sums = product(given, weight, None) * self.a_quant.size(x, self)  # type: ignore[arg-type]
            shape = (-1, *[1] * (sums.dim() - 2)) if isinstance(self, nn.Conv2d) else (-1,)
            sums = sums if self.bias is None else sums + self.bias.view(shape)
        else:
            sums = product(given, weight, self.bias)
        return sums if self.g_quant is None else self.g_quant(sums)


class QuantConv2d(_Quantized, nn.Conv2d):
    """A convolution of images over quantised inputs and weights.

    Args:
        w_quant, a_quant, g_quant: quantisers of its weight, its input and the gradient of its
            output, or None.

    All else is as `torch.nn.Conv2d` has it.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, channels, height, width) to maps, as the convolution's."""
        return self._computed(x, self._conv_forward)


class QuantLinear(_Quantized, nn.Linear):
    """A linear layer over quantised inputs and weights; arguments as of `QuantConv2d`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., features in) to (..., features out)."""
        return self._computed(x, F.linear)


class BinaryConv2d(QuantConv2d):
    """XNOR-Net's convolution: signs of the input and of centred weights, both scales applied.

    Args:
        scaled: multiply by K, the mean size of the input under each window; without it the layer is
            a BWN over sign activations.

    All else is as `torch.nn.Conv2d` has it.
    """

    def __init__(self, *args: Any, scaled: bool = True, **kwargs: Any) -> None:
        weights = BinaryWeight("filter", centred=True)
        inputs = XNORAct() if scaled else SignAct()
        super().__init__(*args, w_quant=weights, a_quant=inputs, **kwargs)


QUANTIZED = (QuantConv2d, QuantLinear)
Layer: TypeAlias = QuantConv2d | QuantLinear


def arguments(layer: nn.Module) -> dict[str, Any]:
    """What makes a convolution or linear layer of the same sizes, without memory for weights.

    Raises:
        ValueError: another kind of layer.
    """
    if isinstance(layer, nn.Conv2d):
        names = ["in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation",
                 "groups", "padding_mode"]  # fmt: skip
    elif isinstance(layer, nn.Linear):
        names = ["in_features", "out_features"]
    else:
        raise ValueError(f"layers to quantise must be Conv2d or Linear; got {type(layer).__name__}")
    found = {name: getattr(layer, name) for name in names}
    return {**found, "bias": layer.bias is not None, "device": "meta"}


def with_quantisers(
    layer: nn.Module,
    w_quant: Quantizer | None,
    a_quant: ActQuantizer | None,
    g_quant: GradientQuantizer | None = None,
) -> QuantConv2d | QuantLinear:
    """A quantised layer over the very parameters of a convolution of images or a linear layer.

    Raises:
        ValueError: another kind of layer.
    """
    given = arguments(layer)
    kind = QuantConv2d if isinstance(layer, nn.Conv2d) else QuantLinear
    made = kind(**given, w_quant=w_quant, a_quant=a_quant, g_quant=g_quant)
    made.weight, made.bias = layer.weight, layer.bias
    for one in (w_quant, a_quant):
        if one is not None:
            one.to(layer.weight.device)
    return made.train(layer.training)


def quantized_layers(network: nn.Module) -> dict[str, Layer]:
    """The quantised layers of a network by name.

    Raises:
        ValueError: there are none.
    """
    found = {name: m for name, m in network.named_modules() if isinstance(m, QUANTIZED)}
    if not found:
        raise ValueError(
            "the network must hold quantised layers, as quantize_model makes them; "
            f"{type(network).__name__} has none"
        )
    return found


def widths(network: nn.Module) -> dict[str, tuple[int, int]]:
    """Bits of the weight and of the input of every quantised layer; 32 where they are exact. Of a
    network without such layers nothing.
    """
    return {
        name: (
            32 if layer.w_quant is None else layer.w_quant.bits,
            32 if layer.a_quant is None else layer.a_quant.bits,
        )
        for name, layer in network.named_modules()
        if isinstance(layer, QUANTIZED)
    }
