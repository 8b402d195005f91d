"""Characters that look alike: the fine-grained grouping of the 62 classes of `glyphs62`.

Telling characters of one group apart takes details (the tail of a Q, the bar of a G), telling
groups apart takes the rough shape alone. Cases that differ in size only share a group, since size
is random in these images. Every character is in exactly one group.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from smallnets.data.glyphs import CHARACTERS

FINE_GROUPS: tuple[str, ...] = (
    *("0OoQDCcGe", "1IilLJj", "2Zz5Ss", "38BPpR", "UuVvYy", "9gq", "frt"),
    *("4A", "6b", "7T", "EF", "HN", "hn", "Kk", "Mm", "Ww", "Xx", "ad"),
)


def fine_groups(labels: Tensor, class_names: Sequence[str] = CHARACTERS) -> Tensor:
    """Group of each label: an index into `FINE_GROUPS`.

    Args:
        labels: int64 class indices, any shape.
        class_names: the character of each class; those of glyphs62 (which glyphs10 begins) unless
            given.

    Returns:
        int64 of the shape and on the device of `labels`.

    Raises:
        ValueError: if a class name is no single letter or digit.
    """
    group = {character: i for i, members in enumerate(FINE_GROUPS) for character in members}
    strange = [name for name in class_names if name not in group]
    if strange:
        raise ValueError(f"class names must be single letters or digits; got {strange[0]!r}")
    table = torch.tensor([group[name] for name in class_names], device=labels.device)
    return table[labels]
