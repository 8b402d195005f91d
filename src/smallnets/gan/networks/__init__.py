"""The networks of GAN Compression: generators at every width, and their discriminators.

- `layers`: `SliceableConv2d`, `SliceableConvTranspose2d`, `SeparableConv2d`,
  `SliceableSeparableConv2d`, `SliceableBatchNorm2d`, `LayerNorm`, `AdaIN`; one set of weights for
  all widths.
- `configs`, `published`: `ConfigSpace`, `encode`, `decode`, `PUBLISHED_SPACES`,
  `PUBLISHED_CONFIGS`; a width for every layer.
- `resnet`, `super_resnet`, `resnet_widths`: `ResNetGenerator`, `SuperResNetGenerator`,
  `channels_of`, `resnet_cost` (CycleGAN and pix2pix).
- `unet`: `UNetGenerator`, pix2pix's own.
- `spade`, `spade_generator`: `SPADE`, `SPADEBlock`, `SPADEGenerator`, `SuperSPADEGenerator`,
  `spade_generator_cost`, `fold_spectral_norm` (GauGAN).
- `label_maps`, `calibration`: `one_hot_labels`, `instance_edges`; `calibrate`.
- `munit`, `super_munit`, `munit_blocks`, `munit_cost`: `MUNITGenerator`, `SuperMUNITGenerator`,
  `assemble`, `munit_cost`.
- `general`, `grouping`, `slicing`, `tapped`, `decompose`: `supernet`, `width_groups`, `Tapped`,
  `decompose`; a generator of your own at every width, and its mobile version.
- `discriminators`: `PatchDiscriminator`, `PixelDiscriminator`, `SPADEDiscriminator`,
  `MUNITDiscriminator`.
- `start`, `transfer`: `initialise`; `prune_by_l1`, `sort_channels`, `start_supernet`.
- `counting`: `Cost`, `count`; multiply-accumulates as published and as they are.
"""

from smallnets.gan.networks.calibration import calibrate
from smallnets.gan.networks.configs import Config, ConfigSpace, check_config, decode, encode
from smallnets.gan.networks.counting import Cost, count
from smallnets.gan.networks.decompose import decompose
from smallnets.gan.networks.discriminators import (
    MUNITDiscriminator,
    PatchDiscriminator,
    PixelDiscriminator,
    SPADEDiscriminator,
)
from smallnets.gan.networks.general import GeneralSupernet, supernet
from smallnets.gan.networks.grouping import WidthGroup, width_groups
from smallnets.gan.networks.label_maps import instance_edges, one_hot_labels
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
from smallnets.gan.networks.munit import MUNITGenerator, assemble
from smallnets.gan.networks.munit_cost import munit_cost
from smallnets.gan.networks.published import PUBLISHED_CONFIGS, PUBLISHED_SPACES
from smallnets.gan.networks.resnet import ResNetGenerator
from smallnets.gan.networks.resnet_widths import MOBILE, Channels, channels_of, resnet_cost
from smallnets.gan.networks.spade import SPADE, SPADEBlock, fold_spectral_norm
from smallnets.gan.networks.spade_generator import (
    SPADEGenerator,
    SuperSPADEGenerator,
    spade_generator_cost,
)
from smallnets.gan.networks.start import initialise
from smallnets.gan.networks.super_munit import SuperMUNITGenerator
from smallnets.gan.networks.super_resnet import SuperResNetGenerator
from smallnets.gan.networks.tapped import Tapped
from smallnets.gan.networks.transfer import prune_by_l1, sort_channels, start_supernet
from smallnets.gan.networks.unet import UNetGenerator

__all__ = [
    "MOBILE",
    "PUBLISHED_CONFIGS",
    "PUBLISHED_SPACES",
    "SPADE",
    "AdaIN",
    "Channels",
    "Config",
    "ConfigSpace",
    "Cost",
    "GeneralSupernet",
    "InstanceNorm",
    "LayerNorm",
    "MUNITDiscriminator",
    "MUNITGenerator",
    "PatchDiscriminator",
    "PixelDiscriminator",
    "ResNetGenerator",
    "SPADEBlock",
    "SPADEDiscriminator",
    "SPADEGenerator",
    "SeparableConv2d",
    "SliceableBatchNorm2d",
    "SliceableConv2d",
    "SliceableConvTranspose2d",
    "SliceableSeparableConv2d",
    "SuperMUNITGenerator",
    "SuperResNetGenerator",
    "SuperSPADEGenerator",
    "Tapped",
    "UNetGenerator",
    "WidthGroup",
    "assemble",
    "calibrate",
    "channels_of",
    "check_config",
    "count",
    "decode",
    "decompose",
    "encode",
    "fold_spectral_norm",
    "initialise",
    "instance_edges",
    "munit_cost",
    "one_hot_labels",
    "prune_by_l1",
    "resnet_cost",
    "sort_channels",
    "spade_generator_cost",
    "start_supernet",
    "supernet",
    "width_groups",
]
