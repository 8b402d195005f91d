"""Try the remedies on a network of one's own."""

import copy
import hashlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from tqdm import tqdm

from smallnets import checks
from smallnets.batches import Batches, Source
from smallnets.deploy.reading import sizes_of_file
from smallnets.measure import evaluating
from smallnets.remedies.making import Case, Made, Remedy, remedies
from smallnets.remedies.measuring import check_images, judged, times_of, without_first
from smallnets.remedies.plan import USUAL, Budget, Plan
from smallnets.remedies.table import Row, Tried
from smallnets.storage import atomic_path, content_key, one_line, source_digest, user_path
from smallnets.training import check_network, seeded
from smallnets.training.checkpoint import GROUND
from smallnets.training.naming import name_of

CODE = (*GROUND, "deploy", "prune", "quantize", "structure", "remedies")


def try_remedies(
    network: nn.Module,
    loader: Batches | Source,
    budget: Budget | None = None,
    *,
    train: Batches | Source | None = None,
    plan: Plan = USUAL,
    folder: str | Path = "remedies",
    batches: Sequence[int] = (1, 32),
    threads: int = 1,
    rounds: int = 30,
) -> Tried:
    """Make a network smaller and faster in every way that it allows, and measure what comes out.

    Every remedy becomes a file for ONNX Runtime, whose answers are compared with those of the
    network that it was made of. Files are then read back: all of them judge the loader's examples
    in one pass, and are timed in turns. A remedy that the network does not allow is refused with a
    reason. What has been made stays in the folder, and is not made again for the same network,
    data, settings and code; a training that was stopped goes on where it was, if its loader has a
    name (`smallnets.data.Batches.key`).

    Args:
        network: takes one tensor (n, ...) and returns logits (n, classes), with float32 weights;
            left as it is.
        loader: batches (inputs, labels) that judge, or inputs alone, with which agreement with the
            original takes the place of accuracy. It is read several times. Without `train` its
            first batch calibrates and does not judge: let it come in one order then.
        budget: what the network may cost.
        train: batches (inputs, labels) that calibrate and train; without it nothing is trained.
        plan: which remedies, and how strong.
        folder: for the files, one network's.
        batches: examples a pass that are timed; none leaves time out.
        threads: of ONNX Runtime.
        rounds: timed passes of each file.

    Raises:
        ValueError: in one line: a network of another kind, that takes or returns something else, or
            that cannot be exported; batches that `Batches` refuses, that can be read once, or that
            hold no or other images; a budget or a number out of range.
    """
    _check(network, budget, plan, batches, threads, rounds)
    judging, labelled = _opened("loader", loader)
    training = None
    if train is not None:
        training, has_labels = _opened("train", train)
        if not has_labels:
            raise ValueError("train must give pairs (inputs, labels); got inputs alone")
    place = _folder(folder)
    case = _case(network, judging, labelled, training, plan, place)
    made, refused = _made(case, place)
    files = {one.name: (place / one.file_name).read_bytes() for one in made}
    sizes = {name: sizes_of_file(file) for name, file in files.items()}
    with seeded(plan.seed):
        here = judging.on(case.network)
        pairs = here if training is not None else without_first(here)
        scores, silent = judged(files, pairs, labelled=labelled, threads=threads)
    usable = {name: file for name, file in files.items() if name in scores}
    times = times_of(usable, batches=batches, threads=threads, rounds=rounds)
    rows = tuple(
        Row(
            one.name, one.family, one.trained, scores[one.name].accuracy,
            scores[one.name].agreement, *sizes[one.name], times[one.name], place / one.file_name,
            *checked,
        )
        for one, checked in made.items()
        if one.name in scores
    )  # fmt: skip
    tried = Tried(rows, refused | silent, budget, scores[rows[0].name].examples, place)
    _write(place / "table.csv", tried.table().to_csv().encode())
    return tried


def _check(
    network: nn.Module,
    budget: Budget | None,
    plan: Plan,
    batches: Sequence[int],
    threads: int,
    rounds: int,
) -> None:
    for name, given, kind in (
        ("network", network, nn.Module),
        ("budget", budget, Budget | None),
        ("plan", plan, Plan),
    ):
        if not isinstance(given, kind):
            wanted = {"network": "an nn.Module", "budget": "a Budget", "plan": "a Plan"}[name]
            raise ValueError(f"{name} must be {wanted}; got {type(given).__name__}")
    if not isinstance(batches, list | tuple):
        raise ValueError(f"batches must be a list of numbers; got {batches!r}")
    if len(batches):
        checks.each("batches", batches, checks.whole, 1)
    checks.whole("threads", threads, 1)
    checks.whole("rounds", rounds, 1)
    if budget is not None and budget.milliseconds is not None and 1 not in batches:
        raise ValueError(
            f"batches must hold 1 for a budget of milliseconds; got {list(batches) or 'none'}"
        )
    types = {str(p.dtype) for p in network.parameters() if p.is_floating_point()}
    if types - {"torch.float32"}:
        raise ValueError(
            "the network must have float32 weights; got "
            f"{', '.join(sorted(types - {'torch.float32'}))}: call float() on a copy"
        )


def _opened(name: str, given: Batches | Source) -> tuple[Batches, bool]:
    """Batches, and whether they have labels."""
    unfit = isinstance(given, Tensor | np.ndarray | str | dict)
    if unfit or not (isinstance(given, Batches | Iterable) or callable(given)):
        raise ValueError(
            f"{name} must be a DataLoader, a list of batches, or a function that returns an "
            f"iterator over them; got {type(given).__name__}"
        )
    batches = given if isinstance(given, Batches) else Batches(given)
    if batches.once:
        raise ValueError(
            f"{name} must start anew whenever it is read; got a "
            f"{type(batches.source).__name__}, which can be read once: give a DataLoader, a list, "
            "or a function that makes it anew"
        )
    if batches.labelled and not isinstance(given, Batches):
        source = batches.source
        with torch.random.fork_rng(devices=[]):
            first = next(iter(source if isinstance(source, Iterable) else source()), None)
        parts = first if isinstance(first, list | tuple) else [first]
        alone = len(parts) == 1 and isinstance(parts[0], Tensor | np.ndarray)
        batches = replace(batches, labelled=not alone)
    return batches, batches.labelled


def _folder(folder: str | Path) -> Path:
    if not isinstance(folder, str | Path):
        raise ValueError(f"folder must be a path; got {type(folder).__name__}")
    place = user_path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"the folder {place} cannot be made ({one_line(error)})") from None
    return place


def _case(
    network: nn.Module,
    judging: Batches,
    labelled: bool,
    training: Batches | None,
    plan: Plan,
    place: Path,
) -> Case:
    """The network as a copy, and the examples that calibrate."""
    try:
        own = copy.deepcopy(network).cpu().eval().requires_grad_(True)
    except Exception as error:  # whatever a network's own parts raise
        raise ValueError(f"the network must be one that copies; {one_line(error)[:200]}") from None
    for parameter in own.parameters():
        parameter.grad = None
    with seeded(plan.seed):
        if training is None:
            inputs, labels = judging.on(own).first()
            inputs, labels = inputs[: plan.calibration], labels[: plan.calibration]
        else:
            inputs, labels = training.on(own).take_with_labels(plan.calibration)
        seen = judging.on(own).first()[0]
    inputs = inputs.detach().contiguous()
    check_images(inputs)
    if seen.shape[1:] != inputs.shape[1:]:
        raise ValueError(
            f"loader and train must give examples of one shape; got {tuple(seen.shape[1:])} and "
            f"{tuple(inputs.shape[1:])}"
        )
    checks.at_least("number of calibration examples", len(inputs), 2)
    logits = check_network("the network", own, inputs[:2]).logits
    if logits.dim() != 2:
        raise ValueError(
            f"the network must return logits (n, classes); got the shape {tuple(logits.shape)}"
        )
    has_labels = labelled or training is not None
    if has_labels and int(labels.max()) >= logits.shape[1]:
        raise ValueError(
            f"labels must be between 0 and {logits.shape[1] - 1}; got {int(labels.max())}"
        )
    trainings = None
    if training is not None and _name(train=training) is not None:
        trainings = place / "trainings"
    return Case(own, inputs, labels if has_labels else None, training, plan, trainings)


def _name(*, train: Batches | None = None, **content: Any) -> str | None:
    """A name for what decides a file, if it has one."""
    try:
        return name_of(train=None if train is None else train.key, **content)
    except ValueError:
        return None


def _made(case: Case, place: Path) -> tuple[dict[Remedy, tuple[float, float]], dict[str, str]]:
    """Makes all files that are not there: difference and tolerance of each; why others are not.

    Raises:
        ValueError: the original is not.
    """
    versions = [str(one.__version__) for one in (torch, onnx, onnxruntime)]
    common = _name(
        network=case.network, inputs=case.inputs, labels=case.labels, seed=case.plan.seed,
        tolerance=case.plan.int8_tolerance,
    )  # fmt: skip
    learned = _name(train=case.train, settings=case.plan.training)
    if common is None:
        warnings.warn("a part of the network has no name: nothing is kept", stacklevel=3)
    elif learned is None:
        warnings.warn("the train loader has no name: what is trained is not kept", stacklevel=3)
    code = source_digest(*CODE)
    made: dict[Remedy, tuple[float, float]] = {}
    refused: dict[str, str] = {}
    chosen = list(remedies(case.plan, case.train is not None))
    for remedy in tqdm(chosen, desc="remedies", leave=False, delay=2):
        key = None
        if common is not None and not (remedy.trained and learned is None):
            key = content_key(
                remedy=remedy.name, common=common, code=code, versions=versions,
                learned=learned if remedy.trained else None,
            )  # fmt: skip
        path = place / remedy.file_name
        found = None if key is None else _kept(path, key)
        if found is None:
            try:
                with seeded(case.plan.seed), evaluating(case.network):
                    got = remedy.make(case)
            except Exception as error:  # of torch, fx, torch-pruning, onnx: no common ancestor
                if remedy.family == "original":
                    raise ValueError(one_line(error)) from error
                refused[remedy.name] = one_line(error)[:300]
                continue
            found = replace(got, file=_labelled(got, key))
            _write(path, found.file)
        made[remedy] = found.difference, found.tolerance
    return made, refused


def _digest(model: onnx.ModelProto) -> str:
    """Of all but the labels."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.metadata_props[:]
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def _labelled(made: Made, key: str | None) -> bytes:
    """The file with what it is written on it."""
    model = onnx.load_from_string(made.file)
    onnx.helper.set_model_props(
        model,
        {
            "key": key or "",
            "digest": _digest(model),
            "difference": repr(made.difference),
            "tolerance": repr(made.tolerance),
        },
    )
    return model.SerializeToString()


def _kept(path: Path, key: str) -> Made | None:
    """The file that was made before, if it is this one and whole."""
    if not path.exists():
        return None
    try:
        file = path.read_bytes()
        model = onnx.load_from_string(file)
        labels = {one.key: one.value for one in model.metadata_props}
        if labels.get("key") != key:
            return None
        if labels["digest"] != _digest(model):
            raise ValueError("its digest differs")
        return Made(file, float(labels["difference"]), float(labels["tolerance"]))
    except Exception as error:  # a damaged file ends in whatever its bytes happen to mean
        warnings.warn(f"{path.name} is damaged ({one_line(error)[:100]}): made again", stacklevel=4)
        return None


def _write(path: Path, content: bytes) -> None:
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({one_line(error)})") from None
