"""The integers of a layered weight: one code of many bits, and the bits that lower widths drop.

The representation is that of Wu et al. (sections on vertical-layered representation and cascade
downsampling): a basic layer, which is the lowest-width network, and enhance layers, which are the
bits that downsampling drops one width at a time. Two's complement and the offsets are our reading.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from smallnets import checks
from smallnets.quantize.rounding import integer_range
from smallnets.quantize.uniform import nearest_codes

HIGHEST = 16
RULES = ("mid", "plain", "round", "direct")
NESTED = ("mid", "plain")  # rules whose codes at every width are leading bits of the highest


def check_widths(widths: Sequence[int], most: int = HIGHEST) -> tuple[int, ...]:
    """Trained widths from high to low.

    Raises:
        ValueError: none, one twice, or one that is not a whole number from 1 to `most`.
    """
    if not widths:
        raise ValueError("widths must name at least one bit width; got none")
    for bits in widths:
        checks.whole("every one of widths", bits, 1)
        checks.between("every one of widths", bits, 1, most)
    if len(set(widths)) < len(widths):
        raise ValueError(f"widths must differ from each other; got {tuple(widths)}")
    return tuple(sorted(widths, reverse=True))


def check_levels(high: int, low: int) -> None:
    """Raises ValueError unless 1 <= low <= high <= 16."""
    checks.whole("high", high, 1)
    checks.between("high", high, 1, HIGHEST)
    checks.whole("low", low, 1)
    checks.between("low", low, 1, high)


def check_codes(codes: Tensor, bits: int) -> Tensor:
    """Codes as they are, if they are signed integers of `bits` bits.

    Raises:
        ValueError: a float or unsigned type, or a code outside the range.
    """
    if codes.dtype not in (torch.int8, torch.int16, torch.int32, torch.int64):
        raise ValueError(f"codes must be signed integers; got {codes.dtype}")
    low, high = integer_range(bits)
    if codes.numel() and (int(codes.min()) < low or int(codes.max()) > high):
        raise ValueError(
            f"codes of {bits} bits must lie between {low} and {high}; "
            f"got {int(codes.min())} to {int(codes.max())}"
        )
    return codes


def cascade(codes: Tensor, high: int, low: int) -> dict[int, Tensor]:
    """The codes of every width, each from the next higher one: q_{b-1} = floor(q_b / 2).

    Args:
        codes: integers of `high` bits, any shape.
        high, low: highest and lowest width, 1 <= low <= high <= 16.

    Returns:
        Width -> codes of the same shape and type, from `high` down to `low`.
    """
    check_levels(high, low)
    found = {high: check_codes(codes, high)}
    for bits in range(high - 1, low - 1, -1):
        found[bits] = found[bits + 1] >> 1  # arithmetic: floor of one half, also below zero
    return found


def bit_planes(codes: Tensor, high: int, low: int) -> tuple[Tensor, dict[int, Tensor]]:
    """The basic layer, and the bit by which each width is finer than the next lower one.

    Returns:
        Codes of `low` bits, and width -> zeros and ones (uint8) for `low` + 1 up to `high`.
    """
    widths = cascade(codes, high, low)
    planes = {
        bits: (widths[bits] - 2 * widths[bits - 1]).to(torch.uint8)
        for bits in range(low + 1, high + 1)
    }
    return widths[low], planes


def rebuild(base: Tensor, planes: Mapping[int, Tensor], low: int, bits: int) -> Tensor:
    """The codes of a width from the basic layer and its enhance layers: q_b = 2 q_{b-1} + plane_b.

    Args:
        base: codes of `low` bits.
        planes: width -> zeros and ones of the shape of `base`; those above `bits` are not looked
            at.
        low, bits: width of the basic layer, and the one that is wanted.

    Raises:
        ValueError: a plane is missing, has another shape or holds something else than 0 and 1.
    """
    check_levels(bits, low)
    codes = check_codes(base, low).to(torch.int16)
    for width in range(low + 1, bits + 1):
        if width not in planes:
            raise ValueError(
                f"{bits} bits need the planes {low + 1} to {bits}; plane {width} is missing"
            )
        plane = planes[width]
        if plane.shape != base.shape:
            raise ValueError(
                f"plane {width} must have the shape {tuple(base.shape)}; got {tuple(plane.shape)}"
            )
        if plane.numel() and (int(plane.min()) < 0 or int(plane.max()) > 1):
            raise ValueError(f"plane {width} must hold zeros and ones")
        codes = 2 * codes + plane.to(codes.dtype)
    return codes


def offset(high: int, bits: int, rule: str = "mid") -> float:
    """What is added to a code, in steps of its width.

    "mid" takes the centre of the 2^d codes of `high` bits that share the `bits` leading ones,
    (1 - 2^-d) / 2 with d = high - bits; it is 0 at the highest width. All other rules add nothing.
    """
    checks.one_of("rule", rule, RULES)
    check_levels(high, bits)
    return (1 - 2.0 ** (bits - high)) / 2 if rule == "mid" else 0.0


def levels(codes: Tensor, shift: int, rule: str = "mid") -> Tensor:
    """The codes that `shift` dropped bits leave, plus the offset of the rule, in float.

    Args:
        codes: whole numbers in a floating-point tensor, any shape, of the highest width.
        shift: dropped bits, 0 or more.
        rule: "mid" or "plain".
    """
    if shift == 0:
        return codes
    kept = torch.floor(codes * 2.0**-shift)
    return kept + (1 - 2.0**-shift) / 2 if rule == "mid" else kept


def rounded(codes: Tensor, shift: int, bits: int) -> Tensor:
    """Codes of the rule "round": clip(round(q_H / 2^shift)) to `bits` bits, half to even.

    Storable as one integer of the highest width, but not sendable bit by bit: the codes of one
    width are not the leading bits of the next (Double Rounding, Huang et al., 2025).
    """
    return nearest_codes(codes, codes.new_tensor(2.0**shift), *integer_range(bits))
