"""Once-QAT: every step trains the shared weights for all widths together.

    for b from the highest width to the lowest:
        logits_b = network(images, b);  g_b = gradient of L_b
    shared weights move along sum_b alpha_b g_b; steps and BatchNorms of b along their own g_b

A dedicated network of one width is the same with a single width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smallnets import checks
from smallnets.batches import check_labelled
from smallnets.data import Dataset, TrainingData, as_batches
from smallnets.quantize.layered.combine import SOLVED, gram_matrix, rule
from smallnets.quantize.layered.losses import check_mode, next_teacher, width_loss
from smallnets.quantize.layered.network import LayeredNetwork
from smallnets.training import Batch, TrainSettings, check_networks, fit
from smallnets.training.checkpoint import History


class _WithGradients(torch.autograd.Function):
    """A loss that hands ready gradients to its parameters."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: list[Tensor], *_: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        scaled = [upstream * gradient for gradient in ctx.gradients]
        return (None, None, *scaled)


def with_gradients(
    loss: Tensor, parameters: Sequence[Tensor], gradients: Sequence[Tensor]
) -> Tensor:
    """A loss of this value whose gradient by each parameter is the one given."""
    return _WithGradients.apply(loss.detach(), list(gradients), *parameters)


@dataclass(frozen=True)
class TrainOnce:
    """The objective of all widths, for `smallnets.training.fit`.

    Attributes:
        mode: "hard", "soft" or "recursive", see `losses`.
        combine: how the widths' gradients of shared weights are weighed, see `combine`: a name, or
            fixed weights from the highest width to the lowest. "random width" trains the highest,
            the lowest and one other width a step, and needs four widths at least.
        decay: weight decay of the shared weights, once a step; steps and norms have none.
        by_layer: solve for the weights in every tensor by itself.

    Raises:
        ValueError: an unknown name or a decay below 0.
    """

    mode: str = "hard"
    combine: str | tuple[float, ...] = "mean"
    decay: float = 0.0
    by_layer: bool = False

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        check_mode(self.mode, 2)
        rule(self.combine, len(self.combine) if not isinstance(self.combine, str) else 1)
        checks.at_least("decay", self.decay, 0)

    def check(self, count: int) -> None:
        """Raises ValueError where this cannot train that many widths."""
        check_mode(self.mode, count)
        rule(self.combine, count)
        if self.combine == "random width" and count < 4:
            raise ValueError(f"random width needs four widths or more; got {count}")

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Terms of a batch: "loss", the mean over widths, and "loss b" and "weight b" of each."""
        # Behind Fabric's wrapper, which would forbid gradients in the midst of a step.
        model = model if isinstance(model, LayeredNetwork) else model.module  # type: ignore[assignment]
        widths = self._widths(model.widths, batch)
        learned = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        names, parameters = zip(*learned, strict=True)
        own = model.own_parameters()
        teacher: Tensor | None = None
        losses, gradients = {}, []
        with model.same_weights():
            for bits in widths:
                logits = model(batch.images, bits).float()
                loss = width_loss(logits, batch.labels, teacher)
                teacher = next_teacher(logits, teacher, self.mode)
                gradients.append(torch.autograd.grad(loss, parameters, allow_unused=True))
                losses[bits] = loss.detach()
        shared = [i for i, name in enumerate(names) if name not in own]
        together: list[Tensor | None] = [_sum([g[i] for g in gradients]) for i in range(len(names))]
        weights = self._combine(gradients, shared, together)
        for i in shared:
            gradient = together[i]
            if self.decay and gradient is not None and parameters[i].ndim > 1:
                together[i] = gradient + self.decay * parameters[i].detach()
        mean = torch.stack(list(losses.values())).mean()
        # A fused optimiser wants a gradient for every parameter, of widths that rested, too.
        complete = [_or_zero(g, p) for g, p in zip(together, parameters, strict=True)]
        terms = {"loss": with_gradients(mean, parameters, complete)}
        terms |= {f"loss {bits}": loss for bits, loss in losses.items()}
        terms |= {f"weight {b}": w for b, w in zip(widths, weights, strict=True)}
        return terms

    def _widths(self, widths: Sequence[int], batch: Batch) -> Sequence[int]:
        if self.combine != "random width":
            return widths
        inner = widths[1:-1]
        place = torch.randint(len(inner), (), generator=batch.noise, device=batch.images.device)
        return widths[0], inner[int(place)], widths[-1]

    def _combine(
        self, gradients: Sequence[Sequence[Tensor | None]], shared: list[int], into: list
    ) -> Tensor:
        """Write the combined gradients of shared parameters; return the weights (mean over tensors
        if they were found for each).
        """
        used = [i for i in shared if into[i] is not None]
        count = len(gradients)
        weigh = rule(self.combine, count)
        found = []
        whole = self.combine not in SOLVED
        for group in [[i] for i in used] if self.by_layer and not whole else [used]:
            parts = [[_or_zero(g[i], into[i]) for i in group] for g in gradients]
            gram = torch.zeros(count, count) if whole else gram_matrix(parts)
            alpha = weigh(gram).to(into[group[0]].dtype)
            for place, i in enumerate(group):
                stacked = torch.stack([part[place] for part in parts])
                into[i] = torch.tensordot(alpha.to(stacked.device), stacked, 1)
            found.append(alpha)
        return torch.stack(found).mean(0)


def _sum(gradients: Sequence[Tensor | None]) -> Tensor | None:
    present = [g for g in gradients if g is not None]
    return torch.stack(present).sum(0) if present else None


def _or_zero(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient


def train_once(
    network: LayeredNetwork,
    dataset: TrainingData,
    settings: TrainSettings,
    *,
    seed: int,
    objective: TrainOnce = TrainOnce(),
    cache_dir: Path | None = None,
    label: str = "once",
) -> History:
    """Train a layered network in place and return the terms of every epoch.

    Args:
        network: from `to_layered`; its activation steps start here from the first images, unless
            they have.
        dataset, seed, cache_dir, label: as for `smallnets.training.fit`. Of batches of your own the
            first starts the steps.
        settings: how to train. Its weight decay acts on shared weights only.
        objective: loss of the widths, and how they are combined. Its gradients are taken width by
            width in one process, so it does not train across several.
    """
    data = as_batches(dataset)
    check_labelled(data)
    objective.check(len(network.widths))
    if not all(getattr(layer.inputs, "started", True) for _, layer in network.layers()):
        network.start(
            data.glance(settings.batch_size) if isinstance(data, Dataset) else data.first()[0]
        )
    data = data.of_classes(check_networks({"network": network}, data.glance(), data.num_classes))
    objective = replace(objective, decay=settings.weight_decay)
    plain = replace(settings, weight_decay=0.0)
    history = fit(
        network, data, plain, seed=seed, objective=objective, cache_dir=cache_dir, label=label
    )
    network.clamp_steps()
    return history
