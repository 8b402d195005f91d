"""The remedies themselves: from a network to a file that ONNX Runtime runs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from smallnets.batches import Batches
from smallnets.deploy import onnx_runtime, packed
from smallnets.deploy.exporting import TOLERANCES, export_checked
from smallnets.deploy.int8 import POLICY
from smallnets.prune.importance.scores import OF_WEIGHTS
from smallnets.prune.sparse import Masked, magnitude_masks
from smallnets.prune.structured import prune_channels
from smallnets.quantize import genie
from smallnets.quantize import modules as rounding
from smallnets.remedies.plan import Plan
from smallnets.structure import to_low_rank, to_tucker2
from smallnets.surgery import batch_norms, recalibrate
from smallnets.training import Batch, Classification, TrainSettings, fit
from smallnets.training.loop import Objective
from smallnets.training.naming import name_of

BATCH = 64  # calibration examples a pass
RATIOS, SAMPLE = 20, 2**17  # of the search for the grids of integers
CROSS_ENTROPY = Classification()


@dataclass(frozen=True, eq=False)
class Case:
    """A network that is to become smaller, and what there is to do it with.

    Attributes:
        network: a copy of one's own in float32, in evaluation mode, on the CPU.
        inputs: (n, ...) calibration examples.
        labels: theirs, (n,), if there are any.
        train: batches (inputs, labels), if there are any.
        plan: which remedies.
        trainings: folder for finished and unfinished ones; None keeps none.
    """

    network: nn.Module
    inputs: Tensor
    labels: Tensor | None
    train: Batches | None
    plan: Plan
    trainings: Path | None

    @property
    def shape(self) -> tuple[int, ...]:
        """One example's."""
        return tuple(self.inputs.shape[1:])

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """The calibration examples with labels, which are 0 if there are none."""
        labels = torch.zeros(len(self.inputs), dtype=torch.int64)
        labels = labels if self.labels is None else self.labels
        parts = zip(self.inputs.split(BATCH), labels.split(BATCH), strict=True)
        whole = [part for part in parts if len(part[0]) > 1]  # one example has no statistics
        return whole or [(self.inputs, labels)]


Maker = Callable[[Case], nn.Module]


@dataclass(frozen=True)
class Made:
    """A file, and how far its answers are from those that they should be.

    Attributes:
        file: for ONNX Runtime.
        difference: the largest that was found, over the largest output.
        tolerance: that it had to keep.
    """

    file: bytes
    difference: float
    tolerance: float


@dataclass(frozen=True)
class Remedy:
    """Something that makes networks smaller or faster.

    Attributes:
        name: says how strong it is.
        family: "original", "fewer bits", "fewer weights" or "better structure".
        make: does it, or raises an error that says why not.
        trained: whether it needs training batches.
    """

    name: str
    family: str
    make: Callable[[Case], Made]
    trained: bool = False

    @property
    def file_name(self) -> str:
        """Of its file in a folder."""
        words = "".join(one if one.isalnum() or one == "." else " " for one in self.name.lower())
        return "-".join(words.split()) + ".onnx"


def remedies(plan: Plan, training: bool) -> Iterator[Remedy]:
    """All remedies of a plan.

    Args:
        plan: which, and how strong.
        training: whether there are batches to train on.
    """
    bits, weights, structure = "fewer bits", "fewer weights", "better structure"
    yield Remedy("original", "original", lambda case: floating(case, case.network))
    if plan.int8:
        yield Remedy("int8", bits, lambda case: integers(case, case.network))
    if plan.int8_weights:
        yield Remedy("int8 weights", bits, partial(of_file, packed.with_int8_weights))
    for k in plan.books:
        yield Remedy(f"code book {k}", bits, partial(of_file, partial(packed.with_codebook, k=k)))
    for share in plan.sparse:
        yield Remedy(f"sparse {share:g}", weights, partial(sparse, share=share))
    smaller: list[tuple[str, str, Maker, bool]] = []
    for criterion in plan.criteria:
        for share in plan.channels:
            make: Maker = partial(narrower, share=share, criterion=criterion)
            last = criterion == plan.criteria[-1]
            smaller.append((f"channels {share:g} by {criterion}", weights, make, last))
    for share in plan.low_rank:
        for kind, convert in (("SVD", to_low_rank), ("Tucker-2", to_tucker2)):
            decompose: Maker = partial(decomposed, convert=partial(convert, cost=share))
            smaller.append((f"{kind} {share:g}", structure, decompose, True))
    for name, family, make, _ in smaller:
        yield Remedy(name, family, partial(of_network, make))
    if not training:
        return
    for name, family, make, chosen in smaller:
        if chosen:
            yield Remedy(f"{name}, trained", family, partial(tuned, make, name), True)
    for width in plan.bits:
        name = "int8, trained" if width == 8 else f"{width}-bit weights, trained"
        learn = integers_learned if width == 8 else partial(weights_learned, bits=width)
        yield Remedy(name, bits, learn, True)


def floating(case: Case, network: nn.Module) -> Made:
    """A network as it is, its weights packed without loss."""
    exported = export_checked(network, case.shape, examples=case.inputs)
    return compared(case, packed.pack(exported), exported.file, exported.difference)


def of_file(change: Callable[[bytes], bytes], case: Case) -> Made:
    """The network with other weights in its file; compared with the same weights unpacked."""
    file = change(export_checked(case.network, case.shape, examples=case.inputs).file)
    return compared(case, file, packed.unpack(file))


def compared(case: Case, file: bytes, reference: bytes, off: float = 0.0) -> Made:
    """A file that answers as another one.

    Raises:
        ValueError: it does not.
    """
    allowed = TOLERANCES["float"]
    if file != reference:
        answers = [
            onnx_runtime.predict(onnx_runtime.load(one), case.inputs[:BATCH])
            for one in (file, reference)
        ]
        off = max(off, onnx_runtime.largest_difference(*answers))
    if off > allowed:
        raise ValueError(
            f"a packed file must answer as it does unpacked, to {allowed:g} of the largest output; "
            f"it is off by {off:.2g}"
        )
    return Made(file, off, allowed)


def integers(case: Case, network: nn.Module) -> Made:
    """Chapter 9's way to integer arithmetic, rounded to nearest."""
    made = genie.quantize(
        network, 8, 8, mode="nearest", policy=POLICY, fold=True, symmetric=True,
        ratios=RATIOS, sample=SAMPLE,
    )  # fmt: skip
    genie.calibrate(made, case.inputs)
    exported = export_checked(
        made, case.shape, examples=case.inputs, tolerance=case.plan.int8_tolerance
    )
    return Made(exported.file, exported.difference, exported.tolerance)


def sparse(case: Case, share: float) -> Made:
    """The smallest weights of the whole network are 0."""
    masks = magnitude_masks(case.network, share, "global")
    return floating(case, restored(case, Masked(case.network, masks).plain()))


def of_network(make: Maker, case: Case) -> Made:
    """A smaller network with statistics of its own."""
    return floating(case, restored(case, make(case)))


def narrower(case: Case, share: float, criterion: str) -> nn.Module:
    """Without a share of the channels."""
    if case.labels is None and criterion not in OF_WEIGHTS:
        raise ValueError(f"{criterion} needs labels; the loader gives none")
    scope = "layer" if criterion.startswith("magnitude") else "global"
    return prune_channels(
        case.network, case.inputs[:2], share, criterion, scope, batches=case.batches()
    )


def decomposed(case: Case, convert: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """With layers of low rank."""
    return convert(case.network)


def restored(case: Case, network: nn.Module) -> nn.Module:
    """Statistics of BatchNorm anew, where a network has some."""
    if batch_norms(network):
        recalibrate(network, case.batches())
    return network.eval()


def tuned(make: Maker, name: str, case: Case) -> Made:
    """A smaller network after a short training."""
    return floating(case, learned(case, make(case), name, case.plan.training))


def learned(
    case: Case,
    network: nn.Module,
    name: str,
    settings: TrainSettings,
    objective: Objective = CROSS_ENTROPY,
) -> nn.Module:
    """A network after training; kept, if it has a name."""
    if case.train is None:
        raise ValueError("training needs a loader of training images; got none")
    network.requires_grad_(True)
    folder = case.trainings
    if folder is not None:
        try:
            name_of(network=network)
        except ValueError:
            folder = None
    fit(
        network, case.train, settings, seed=case.plan.seed, objective=objective,
        cache_dir=folder, label=name.replace(" ", "-"),
    )  # fmt: skip
    return network


@dataclass(frozen=True)
class Rounded:
    """Cross-entropy of a network with quantisers, which are put in order before every step."""

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Its terms."""
        rounding.after_step(model)
        return CROSS_ENTROPY(model, batch)


def slower(settings: TrainSettings) -> TrainSettings:
    """A tenth of the rate."""
    return replace(settings, lr=settings.lr / 10, final_lr=settings.final_lr / 10)


def integers_learned(case: Case) -> Made:
    """Weights that were trained through the rounding to 8 bits of everything, then chapter 9's
    way to integers.
    """
    plain = rounding.fold_batch_norm(case.network, case.inputs[:2])
    network = rounding.quantize_model(
        case.network, "symmetric", "lsq", weight_bits=8, activation_bits=8, skip=(), fold=True
    )
    rounding.calibrate(network, case.inputs)
    learned(case, network, "int8", slower(case.plan.training), Rounded())
    found, wanted = network.state_dict(), plain.state_dict()
    plain.load_state_dict({name: found[name] for name in wanted})
    return integers(case, plain.eval())


def weights_learned(case: Case, bits: int) -> Made:
    """Weights that were trained on learned steps; 8 bits in the first and the last layer."""
    folded = rounding.fold_batch_norm(case.network, case.inputs[:2])
    layers = list(rounding.quantizable(folded))
    ends = dict.fromkeys((*layers[:1], *layers[-1:]), (8, None))
    network = rounding.quantize_model(
        case.network, "lsq", None, weight_bits=bits, skip=(), fold=True, bits=ends
    )
    learned(case, network, f"{bits}-bit", slower(case.plan.training), Rounded())
    return floating(case, rounding.as_plain(network))
