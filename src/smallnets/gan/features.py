"""Distilling features: what a student's layers must contain so that the teacher's can be read off.

    L_distill = sum_t mean((f_t(G_t(x)) - G'_t(x))^2)

f_t is a learned 1x1 convolution from the student's channels to the teacher's. The paper prints it
on the teacher's side, where a map to zero would solve the task; the official code, followed here,
has it on the student's. Kernel alignment needs no map; it is from CAT (Jin et al., CVPR 2021).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallnets import checks


class FeatureMaps(nn.Module):
    """The maps f_t, one a tapped layer; learned with the student and thrown away after.

    Each takes the first channels of its student, so one map serves every width of a supernet.

    Args:
        student, teacher: channels of every tapped layer; those of a supernet at its widest.
        std: of the initial weights; biases start at 0.

    Raises:
        ValueError: numbers of layers differ, there is none, or a width below 1.
    """

    def __init__(self, student: Sequence[int], teacher: Sequence[int], std: float = 0.02) -> None:
        super().__init__()
        if len(student) != len(teacher) or not student:
            raise ValueError(
                "student and teacher must have the same tapped layers; "
                f"got {len(student)} and {len(teacher)}"
            )
        checks.each("student's channels", student, checks.whole, 1)
        checks.each("teacher's channels", teacher, checks.whole, 1)
        self.maps = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(student, teacher, strict=True))
        for one in self.maps:
            nn.init.normal_(one.weight, 0.0, std)
            nn.init.zeros_(one.bias)

    def mapped(self, features: Sequence[Tensor]) -> list[Tensor]:
        """f_t of a student's features (n, c_t, h, w), whose widths may be smaller than full."""
        if len(features) != len(self.maps):
            raise ValueError(
                f"features must come from {len(self.maps)} layers; got {len(features)}"
            )
        out = []
        for place, (one, x) in enumerate(zip(self.maps, features, strict=True)):
            if x.shape[1] > one.in_channels:
                raise ValueError(
                    f"student's layer {place} must have at most {one.in_channels} channels; "
                    f"got {x.shape[1]}"
                )
            out.append(F.conv2d(x, one.weight[:, : x.shape[1]], one.bias))
        return out

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], absolute: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The sum over layers, (), and each layer's mean squared difference, (layers,).

        Args:
            student, teacher: features (n, c, h, w) of the tapped layers; no gradient reaches the
                teacher's.
            absolute: mean absolute differences instead, as for MUNIT's content code.
        """
        mapped = self.mapped(student)
        _check_layers(mapped, teacher)
        distance = F.l1_loss if absolute else F.mse_loss
        layers = torch.stack(
            [distance(a, b.detach()) for a, b in zip(mapped, teacher, strict=True)]
        )
        return layers.sum(), layers


class KernelAlignment(nn.Module):
    """The negative kernel alignment of every tapped layer, summed; nothing in it is learned."""

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The sum over layers, (), and each layer's term, (layers,)."""
        if len(student) != len(teacher) or not student:
            raise ValueError(
                f"features must come from as many layers; got {len(student)} and {len(teacher)}"
            )
        pairs = zip(student, teacher, strict=True)
        layers = torch.stack([-kernel_alignment(a, b.detach()) for a, b in pairs])
        return layers.sum(), layers


def kernel_alignment(x: Tensor, y: Tensor, eps: float = 0.0) -> Tensor:
    """KA(X, Y) = <XX', YY'>_F / (||XX'||_F ||YY'||_F), from 0 to 1: ().

    Linear CKA without centring. Of one example it is always 1, and has no gradient.

    Args:
        x, y: features (n, ...), flattened to (n, values) each.
        eps: added to both norms' product.

    Raises:
        ValueError: other numbers of examples, or none.
    """
    if len(x) != len(y) or len(x) == 0:
        raise ValueError(f"x and y must be of the same examples; got {len(x)} and {len(y)}")
    x, y = x.flatten(1), y.flatten(1)
    a, b = x @ x.T, y @ y.T
    return (a * b).sum() / (a.norm() * b.norm() + eps)


def _check_layers(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> None:
    if len(student) != len(teacher):
        raise ValueError(
            f"student and teacher must have the same tapped layers; got {len(student)} and "
            f"{len(teacher)}"
        )
    for place, (a, b) in enumerate(zip(student, teacher, strict=True)):
        if a.shape != b.shape:
            raise ValueError(
                f"layer {place} must have one size in student and teacher; got "
                f"{tuple(a.shape)} (mapped) and {tuple(b.shape)}"
            )
