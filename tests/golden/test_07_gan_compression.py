"""GAN compression: every array of its file belongs to one of the modules that read it."""

import runpy
from pathlib import Path

MODULES = ("networks", "methods")
HERE = Path(__file__).parent


def families(module):
    return runpy.run_path(str(HERE / f"test_07_gan_compression_{module}.py"))["FAMILIES"]


FAMILIES = ()  # this module itself reads no values


def test_every_array_has_its_reader(values):
    read = [families(module) for module in MODULES]
    lonely = [key for key in values if not any(key.startswith(one) for one in read)]
    assert lonely == []
