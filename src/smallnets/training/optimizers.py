"""Optimisers: SGD, Adam, Adam with a decay of its own, and Shampoo.

The two latter follow one order of operations for a gradient g, a learning rate lr * s that a
schedule s in [0, 1] scales, and a weight decay wd:

    u = direction(g)                         Adam's, or Shampoo's
    theta = theta - s (lr u + wd theta)      wd for matrices and kernels only

The decay is not multiplied by lr, as it would be in `torch.optim.AdamW`: hence wd / lr there.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.training.settings import TrainSettings


def new_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """The optimiser that settings ask for, over all parameters of a model."""
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(),
            settings.lr,
            settings.momentum,
            nesterov=settings.nesterov and settings.momentum > 0,
            weight_decay=settings.weight_decay,
            fused=True,
        )
    if settings.optimizer == "adam":
        return torch.optim.Adam(
            model.parameters(), settings.lr, weight_decay=settings.weight_decay, fused=True
        )
    parameters = list(model.parameters())
    groups = [
        {
            "params": [p for p in parameters if p.ndim > 1],
            "weight_decay": settings.weight_decay / settings.lr,
        },
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "shampoo":
        return Shampoo(groups, settings.lr)
    return torch.optim.AdamW(groups, settings.lr, fused=True)


class Shampoo(torch.optim.Optimizer):
    """Shampoo (Gupta et al., 2018; Anil et al., 2020), grafted on Adam.

    A gradient G (m, n) of a matrix, or of a kernel read as one (out, in * height * width), has the
    statistics

        L = beta2 L + (1 - beta2) G G^T,   R = beta2 R + (1 - beta2) G^T G,

    and the direction is L^(-1/4) M R^(-1/4) with M the first moment of G, rescaled to the length of
    Adam's update of the same layer (that is the grafting: Shampoo gives the direction, Adam the
    step). Roots are exact, from an eigendecomposition in float64 with a ridge of 1e-6 times the
    largest eigenvalue. Vectors take Adam's update. Weight decay is that of `torch.optim.AdamW`.

    Args:
        params: parameters or groups of them.
        lr: learning rate, above 0.
        betas: of the first moment, and of all second-order statistics; in [0, 1).
        eps: added to the root of Adam's second moment.
        weight_decay: times lr is the share by which parameters shrink in a step.
        every: steps after which the roots are computed anew.
        largest: sides longer than this are left without a preconditioner.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        every: int = 5,
        largest: int = 2048,
    ) -> None:
        checks.above("lr", lr, 0)
        for name, beta in zip(("betas[0]", "betas[1]"), betas, strict=True):
            checks.between(name, beta, 0, 1 - 1e-9)
        checks.above("eps", eps, 0)
        checks.at_least("weight_decay", weight_decay, 0)
        checks.whole("every", every, 1)
        checks.whole("largest", largest, 1)
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "every": every,
            "largest": largest,
        }  # fmt: skip
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every parameter that has a gradient; `closure` computes the loss anew if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)
        return loss

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        beta1, beta2 = group["betas"]
        if not state:
            state["step"] = torch.zeros(())
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
        state["step"] += 1
        count = int(state["step"])
        state["mean"].lerp_(gradient, 1 - beta1)
        state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        mean = state["mean"] / (1 - beta1**count)
        adam = mean / ((state["square"] / (1 - beta2**count)).sqrt() + group["eps"])

        update = adam
        if parameter.ndim > 1:
            direction = self._preconditioned(gradient, mean, state, group, count)
            update = direction * (adam.norm() / direction.norm().clamp_min(1e-30))
        parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * update)

    @staticmethod
    def _preconditioned(
        gradient: Tensor, mean: Tensor, state: dict[str, Any], group: dict[str, Any], count: int
    ) -> Tensor:
        """L^(-1/4) M R^(-1/4) in the shape of the parameter."""
        matrix, moved = gradient.flatten(1), mean.flatten(1)
        beta2 = group["betas"][1]
        for side, rows in (("left", matrix), ("right", matrix.T)):
            if len(rows) > group["largest"]:
                continue
            product = rows @ rows.T
            if side not in state:
                state[side] = torch.zeros_like(product)
            state[side].mul_(beta2).add_(product, alpha=1 - beta2)
            if (count - 1) % group["every"] == 0:
                state[f"{side} root"] = inverse_fourth_root(state[side])
            root = state[f"{side} root"]
            moved = root @ moved if side == "left" else moved @ root
        return moved.view_as(mean)


def inverse_fourth_root(matrix: Tensor, ridge: float = 1e-6) -> Tensor:
    """A^(-1/4) of a symmetric positive semi-definite matrix (n, n), with `ridge` times its largest
    eigenvalue added to all of them; the identity for a matrix of zeros.
    """
    values, vectors = torch.linalg.eigh(matrix.double())
    largest = values[-1]
    if largest <= 0:
        return torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    roots = (values.clamp_min(0) + ridge * largest) ** -0.25
    return ((vectors * roots) @ vectors.T).to(matrix.dtype)
