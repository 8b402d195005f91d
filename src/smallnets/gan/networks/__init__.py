"""The networks of GAN Compression: generators at every width, and their discriminators.

- `layers`: `SliceableConv2d`, `SliceableConvTranspose2d`, `SeparableConv2d`,
  `SliceableSeparableConv2d`, `SliceableBatchNorm2d`, `LayerNorm`, `AdaIN`; one set of weights for
  all widths.
- `configs`, `published`: `ConfigSpace`, `encode`, `decode`, `PUBLISHED_SPACES`,
  `PUBLISHED_CONFIGS`; a width for every layer.
- `resnet`: `ResNetGenerator`, `SuperResNetGenerator`, `resnet_cost` (CycleGAN and pix2pix).
- `unet`: `UNetGenerator`, pix2pix's own.
- `discriminators`: `PatchDiscriminator`, `PixelDiscriminator`, `SPADEDiscriminator`,
  `MUNITDiscriminator`.
- `start`, `transfer`: `initialise`; `prune_by_l1`, `sort_channels`, `start_supernet`.
- `counting`: `Cost`, `count`; multiply-accumulates as published and as they are.
"""

from smallnets.gan.networks.configs import Config, ConfigSpace, check_config, decode, encode
from smallnets.gan.networks.counting import Cost, count
from smallnets.gan.networks.discriminators import (
    MUNITDiscriminator,
    PatchDiscriminator,
    PixelDiscriminator,
    SPADEDiscriminator,
)
from smallnets.gan.networks.layers import (
    AdaIN,
    InstanceNorm,
    LayerNorm,
    SeparableConv2d,
    SliceableBatchNorm2d,
    SliceableConv2d,
    SliceableConvTranspose2d,
    SliceableSeparableConv2d,
)
from smallnets.gan.networks.published import PUBLISHED_CONFIGS, PUBLISHED_SPACES
from smallnets.gan.networks.resnet import (
    MOBILE,
    Channels,
    ResNetGenerator,
    SuperResNetGenerator,
    channels_of,
    resnet_cost,
)
from smallnets.gan.networks.start import initialise
from smallnets.gan.networks.transfer import prune_by_l1, sort_channels, start_supernet
from smallnets.gan.networks.unet import UNetGenerator

__all__ = [
    "AdaIN",
    "MOBILE",
    "PUBLISHED_CONFIGS",
    "PUBLISHED_SPACES",
    "Channels",
    "Config",
    "ConfigSpace",
    "Cost",
    "InstanceNorm",
    "LayerNorm",
    "MUNITDiscriminator",
    "PatchDiscriminator",
    "PixelDiscriminator",
    "ResNetGenerator",
    "SPADEDiscriminator",
    "SeparableConv2d",
    "SliceableBatchNorm2d",
    "SliceableConv2d",
    "SliceableConvTranspose2d",
    "SliceableSeparableConv2d",
    "SuperResNetGenerator",
    "UNetGenerator",
    "channels_of",
    "check_config",
    "count",
    "decode",
    "encode",
    "initialise",
    "prune_by_l1",
    "resnet_cost",
    "sort_channels",
    "start_supernet",
]
