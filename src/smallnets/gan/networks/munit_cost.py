"""What a MUNIT generator costs, in closed form."""

from collections.abc import Sequence
from itertools import pairwise

from smallnets.gan.networks.counting import (
    Cost,
    conv_cost,
    linear_cost,
    multiply_cost,
    norm_cost,
    separable_cost,
    total,
)

STYLE_FACTORS = (1, 2, 4, 4, 4)  # widths of the style encoder's convolutions


def munit_cost(
    config: Sequence[int],
    size: tuple[int, int],
    in_channels: int = 3,
    *,
    style_dim: int = 8,
    mlp_dim: int = 256,
    n_res: int = 4,
    separable: bool = True,
    style_encoder: bool = True,
) -> Cost:
    """Multiply-accumulates and parameters of a MUNIT generator in closed form.

    Args:
        config: ten widths.
        size: height and width of the image.
        in_channels, style_dim, mlp_dim, n_res, separable: as in the generator.
        style_encoder: whether a style is encoded as well; its parameters count in any case.
    """
    c, pixels = config, size[0] * size[1]
    quarter, stream = pixels // 16, 4 * config[3]

    def thin(pixels: int, into: int, out: int, kernel: int) -> Cost:
        kind = separable_cost if separable else conv_cost
        return kind(pixels, into, out, kernel)

    def block(hidden: int) -> Cost:
        return thin(quarter, stream, hidden, 3) + thin(quarter, hidden, stream, 3)

    s = [in_channels, *(factor * c[0] for factor in STYLE_FACTORS)]
    styles = [conv_cost(pixels, s[0], s[1], 7)]
    rows, columns = size
    for into, out in pairwise(s[1:]):
        rows, columns = rows // 2, columns // 2
        styles.append(conv_cost(rows * columns, into, out, 4))
    style = total([*styles, multiply_cost(s[-1]), conv_cost(1, s[-1], style_dim, 1)])
    if not style_encoder:
        style = Cost(parameters=style.parameters)
    half = n_res // 2
    content = total(
        [
            conv_cost(pixels, in_channels, c[1], 7),
            norm_cost(pixels, c[1]),
            conv_cost(pixels // 4, c[1], 2 * c[2], 4),
            norm_cost(pixels // 4, 2 * c[2]),
            conv_cost(quarter, 2 * c[2], stream, 4),
            norm_cost(quarter, stream),
            *(
                (block(4 * c[place]) + norm_cost(quarter, 4 * c[place] + stream)) * half
                for place in (4, 5)
            ),
        ]
    )
    styled = 2 * half * sum(4 * c[place] + stream for place in (6, 7))
    decoder = total(
        [
            *(block(4 * c[place]) * half for place in (6, 7)),
            multiply_cost(2 * n_res),  # one for each AdaIN
            thin(pixels // 4, stream, 2 * c[8], 5),
            multiply_cost(pixels // 4 * 2 * c[8] + 1) + Cost(parameters=4 * c[8]),
            thin(pixels, 2 * c[8], c[9], 5),
            multiply_cost(pixels * c[9] + 1) + Cost(parameters=2 * c[9]),
            conv_cost(pixels, c[9], in_channels, 7),
        ]
    )
    mlp = (
        linear_cost(style_dim, mlp_dim)
        + linear_cost(mlp_dim, mlp_dim)
        + linear_cost(mlp_dim, styled)
    )
    return style + content + decoder + mlp
