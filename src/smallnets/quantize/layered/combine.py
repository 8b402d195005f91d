"""How the gradients of several widths become one step of the weights that they share.

Every rule maps the Gram matrix of the widths' gradients, M = G G^T, to weights alpha; the step goes
along sum_b alpha_b g_b. "Multi-objective optimisation" is all that the abstract of Wu et al. says;
the min-norm solver (Desideri 2012; Sener & Koltun 2018) is our reading of it.
"""

from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from torch import Tensor

from smallnets import checks

SOLVED = ("min-norm", "min-norm, normalised", "pcgrad")
FIXED = ("mean", "random width", "narrowest half", "highest only")
COMBINATIONS = (*FIXED, *SOLVED)


def fixed_weights(name: str, count: int) -> tuple[float, ...]:
    """Weights of widths, from high to low, that do not depend on their gradients.

    "mean" and "random width" are equal ones, "narrowest half" gives the last one half of each
    other's, and "highest only" everything to the first.
    """
    checks.one_of("name", name, FIXED)
    shares = [1.0] * count
    if name == "narrowest half":
        shares[-1] = 0.5
    if name == "highest only":
        shares[1:] = [0.0] * (count - 1)
    return tuple(share / sum(shares) for share in shares)


def check_simplex(weights: Sequence[float], count: int) -> tuple[float, ...]:
    """Fixed weights as they are, if they are `count` non-negative numbers that sum to one.

    Raises:
        ValueError: they are not.
    """
    inside = all(weight >= 0 for weight in weights) and abs(sum(weights) - 1) <= 1e-6
    if len(weights) != count or not inside:
        raise ValueError(
            f"fixed weights must be {count} numbers of at least 0 that sum to 1; "
            f"got {tuple(weights)}"
        )
    return tuple(weights)


def min_norm(gram: Tensor, normalise: bool = False) -> Tensor:
    """alpha = argmin || sum_b alpha_b g_b ||^2 over the simplex, by enumeration of active sets.

    Args:
        gram: (T, T), G G^T; T at most 8.
        normalise: divide every gradient by its length first, and the weights found by the lengths
            again, so that they weigh the raw gradients.

    Returns:
        (T,) float64, non-negative, with sum 1.
    """
    count = checks.between("number of gradients", len(gram), 1, 8)
    gram = gram.double()
    if not gram.isfinite().all():
        raise ValueError("gradients must be finite; got some that are not")
    lengths = gram.diagonal().clamp_min(0).sqrt()
    gram = gram / lengths.max().square().clamp_min(1e-300)  # the weights do not depend on units
    if normalise:
        safe = torch.where(lengths > 0, lengths, torch.ones_like(lengths))
        unit = lengths.max().square().clamp_min(1e-300)
        alpha = min_norm(gram * unit / torch.outer(safe, safe)) / safe
        return alpha / alpha.sum()
    best, least = None, torch.inf
    for size in range(1, int(count) + 1):
        for chosen in combinations(range(int(count)), size):
            alpha = _on_face(gram, list(chosen))
            norm = float(alpha @ gram @ alpha)
            if float(alpha.min()) >= -1e-12 and norm < least - 1e-15:
                best, least = alpha, norm
    assert best is not None  # a single gradient is always on the simplex
    return best.clamp_min(0) / best.clamp_min(0).sum()


def _on_face(gram: Tensor, chosen: list[int]) -> Tensor:
    """The stationary point on the affine hull of some gradients: M alpha = mu 1, sum alpha = 1."""
    size = len(chosen)
    system = torch.zeros(size + 1, size + 1, dtype=gram.dtype)
    system[:size, :size] = gram[chosen][:, chosen].cpu()
    system[size, :size] = system[:size, size] = 1
    wanted = torch.zeros(size + 1, dtype=gram.dtype)
    wanted[size] = 1
    solution = torch.linalg.lstsq(system, wanted[:, None], driver="gelsd").solution[:size, 0]
    alpha = torch.zeros(len(gram), dtype=gram.dtype)
    alpha[chosen] = solution
    return alpha.to(gram.device)


def pcgrad(gram: Tensor) -> Tensor:
    """Weights that amount to the projections of PCGrad (Yu et al., 2020), mean over the widths.

    Of each gradient the part that opposes another one is taken out, others in order of width.
    """
    gram = gram.double()
    rows = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for i in range(len(gram)):
        for j in range(len(gram)):
            against = float(rows[i] @ gram[:, j])
            if i != j and against < 0 and float(gram[j, j]) > 0:
                rows[i, j] -= against / float(gram[j, j])
    return rows.mean(0)


def rule(name: str | Sequence[float], count: int) -> Callable[[Tensor], Tensor]:
    """The combination of a name, or of fixed weights.

    Raises:
        ValueError: an unknown name, or weights off the simplex.
    """
    if isinstance(name, str):
        checks.one_of("combine", name, COMBINATIONS)
    if name in SOLVED:
        solvers: dict[str, Callable[[Tensor], Tensor]] = {
            "min-norm": min_norm,
            "min-norm, normalised": lambda gram: min_norm(gram, normalise=True),
            "pcgrad": pcgrad,
        }
        return solvers[str(name)]
    fixed = fixed_weights(name, count) if isinstance(name, str) else check_simplex(name, count)
    return lambda gram: gram.new_tensor(fixed)


def gram_matrix(gradients: Sequence[Sequence[Tensor]]) -> Tensor:
    """(T, T) float64 inner products of T gradients, each a list of tensors of the same shapes."""
    total = 0.0
    for parts in zip(*gradients, strict=True):
        rows = torch.stack([part.reshape(-1) for part in parts]).double()
        total = total + rows @ rows.T
    return torch.as_tensor(total)
