"""Where a student starts: anywhere between a teacher and a random network.

    theta_S(0) = lambda theta_T + (1 - lambda) theta_R                     (4)

lambda = 1 is the teacher, as in the paper; the published code's `loc_param` is 1 - lambda. Every
entry of the state is interpolated, running statistics included. They then belong to neither
network, so one pass over training images refreshes them.
"""

import copy
from collections.abc import Mapping

from torch import Tensor, nn

from smallnets import checks


def interpolate_state(
    teacher: Mapping[str, Tensor], other: Mapping[str, Tensor], lam: float
) -> dict[str, Tensor]:
    """State between two states of one architecture, equation (4).

    Args:
        teacher, other: state dictionaries with the same names and shapes.
        lam: 0 gives `other`, 1 gives `teacher`, exactly. Whole-number entries are truncated.

    Raises:
        ValueError: lam is outside [0, 1], or names or shapes differ.
    """
    checks.between("lam", lam, 0, 1)
    if {k: v.shape for k, v in teacher.items()} != {k: v.shape for k, v in other.items()}:
        different = sorted(
            name
            for name in {*teacher, *other}
            if name not in teacher or name not in other or teacher[name].shape != other[name].shape
        )
        raise ValueError(f"both states must have the same names and shapes; {different[0]} differs")
    if lam in (0, 1):
        return {name: value.clone() for name, value in (teacher if lam else other).items()}
    return {
        name: (lam * teacher[name] + (1 - lam) * other[name]).to(teacher[name].dtype)
        for name in teacher
    }


def between(teacher: nn.Module, other: nn.Module, lam: float) -> nn.Module:
    """A copy of `other` moved to weight `lam` of the teacher; both stay as they are."""
    moved = copy.deepcopy(other)
    moved.load_state_dict(interpolate_state(teacher.state_dict(), other.state_dict(), lam))
    return moved


def flat_weights(network: nn.Module) -> Tensor:
    """All parameters in one vector, in the order of registration."""
    return nn.utils.parameters_to_vector(network.parameters()).detach()
