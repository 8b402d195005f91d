"""Where `read_weights` was until it became everybody's: `smallnets.models`.

The networks of the chapter, `smallnets.studies.lana.networks`, do not lead there any more.
"""

import warnings
from pathlib import Path

from torch import nn

from smallnets import models


def read_weights(network: nn.Module, path: str | Path) -> nn.Module:
    """See `smallnets.models.read_weights`."""
    warnings.warn(
        "read_weights has moved: from smallnets.models import read_weights",
        DeprecationWarning,
        stacklevel=2,
    )
    return models.read_weights(network, path)
