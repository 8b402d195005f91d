"""The width lists and the configurations that were published, by name.

Where paper and official repository (mit-han-lab/gan-compression) differ, these are the
repository's.
"""

from smallnets.gan.networks.configs import ConfigSpace, decode


def _space(*lists: tuple[tuple[int, ...], int]) -> ConfigSpace:
    return ConfigSpace(tuple(widths for widths, times in lists for _ in range(times)))


_BY_EIGHT = (64, 56, 48, 40, 32, 24, 16)

PUBLISHED_SPACES: dict[str, ConfigSpace] = {
    "resnet:channels-48": _space(((48, 32), 2), ((48, 40, 32), 4), ((48, 32, 24, 16), 2)),
    "resnet:channels-32": _space(((32, 24, 16), 8)),
    "resnet:channels-64-cycleGAN": _space(((64, 48, 32, 24, 16), 8)),
    "resnet:channels-64-pix2pix": _space((_BY_EIGHT, 8)),
    "spade:channels-48": _space(((48, 40, 32), 5), ((48, 40, 32, 24), 3)),
    "spade:channels-64": _space(((64, 48, 40, 32), 5), ((64, 48, 40, 32, 24), 3)),
    "spade:channels-64-coco": _space(((64, 48, 40, 32, 24), 8)),
    "spade:channels-64_2": _space((_BY_EIGHT, 8)),
    "munit:channels-64": _space((_BY_EIGHT, 10)),
}

# "legacy": of the six numbers, only the first block of each three takes the hidden width.
PUBLISHED_CONFIGS: dict[str, tuple[int, ...]] = {
    name: decode(text)
    for name, text in {
        "horse2zebra paper": "24_24_24_32_20_16",
        "horse2zebra": "16_16_32_16_32_32_16_16",
        "horse2zebra fast": "16_16_24_16_32_64_16_24",
        "edges2shoes paper legacy": "32_32_40_48_16_32",
        "edges2shoes": "32_32_48_32_48_48_16_16",
        "edges2shoes fast": "24_24_40_56_24_56_16_40",
        "cityscapes paper": "48_32_40_40_24_32",
        "cityscapes": "32_32_48_32_32_48_24_24",
        "cityscapes fast": "16_24_48_56_40_48_24_16",
        "map2sat": "32_32_48_32_48_32_16_16",
        "map2sat fast": "16_16_40_40_40_64_24_16",
        "gaugan paper": "32_32_48_32_32_32_32_24",
        "gaugan": "32_40_40_32_40_24_32_24",
        "gaugan fast": "32_32_32_48_32_24_24_32",
        "coco fast": "40_32_32_40_32_40_24_24",
        "munit fast": "16_16_16_24_56_16_40_40_32_24",
    }.items()
}
