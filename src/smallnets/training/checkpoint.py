"""Finished trainings, kept by content: same model, data, settings, seed and code, same file.

A finished training is a safetensors file with the weights, and in its header the history and a
digest of the weights. A file that is damaged is retrained with a word; one that another version of
the code made has another name, and is never found.
"""

import hashlib
import json
import pickle
import platform
import warnings
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from smallnets.storage import atomic_path, content_key, source_digest
from smallnets.training.draws import Draws
from smallnets.training.naming import name_of
from smallnets.training.settings import TrainSettings

if TYPE_CHECKING:
    import lightning_fabric

History = list[dict[str, float]]
# What every training runs.
GROUND = ("batches.py", "data", "measure", "models", "training", "losses.py", "surgery.py")
SWITCHES = (
    "cuda.matmul.allow_tf32", "cuda.matmul.allow_fp16_reduced_precision_reduction",
    "cuda.matmul.allow_bf16_reduced_precision_reduction", "cuda.matmul.fp32_precision",
    "cudnn.allow_tf32", "cudnn.conv.fp32_precision", "cudnn.deterministic", "cudnn.benchmark",
    "mkldnn.matmul.fp32_precision", "mkldnn.conv.fp32_precision", "mkldnn.enabled",
)  # fmt: skip


def weights_digest(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 of names, types, shapes and values of a state dictionary."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(
            tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()


def code_digest() -> str:
    """Digest of the code that every training runs: the ground floor, and the versions below it.

    The objective's own code is named with the objective, see `smallnets.training.naming`.
    """
    versions = {"torch": str(torch.__version__), "numpy": np.__version__}
    return content_key(ground=source_digest(*GROUND), **versions, python=platform.python_version())


def place_of_training(
    settings: TrainSettings, fabric: "lightning_fabric.Fabric | None"
) -> tuple[str, ...]:
    """Device, arithmetic, and how many processes train together in what way."""
    numbers = str(torch.get_default_dtype()), *_switches()
    if fabric is None:
        return settings.accelerator, settings.arithmetic, "1", *numbers
    strategy = fabric.strategy
    kinds = str(strategy.precision.precision), type(strategy).__name__
    return fabric.device.type, settings.arithmetic, *kinds, str(fabric.world_size), *numbers


def _switches() -> tuple[str, ...]:
    """How exactly, and in what order, torch is told to compute; in its older and newer words."""
    kinds = torch.get_deterministic_debug_mode(), torch._C._get_float32_matmul_precision()
    return tuple(map(str, (*kinds, *map(_said, SWITCHES))))


def _said(place: str) -> object:
    try:
        return attrgetter(place)(torch.backends)
    except (AttributeError, RuntimeError):  # this torch, or what was set so far, lacks the word
        return None


def cache_path(folder: Path, label: str, suffix: str = ".safetensors", **content: Any) -> Path:
    """The file in which that is kept which `content` decides.

    Raises:
        ValueError: some of it has no name, see `smallnets.training.naming`.
    """
    return folder / f"{label}-{name_of(**content)}{suffix}"


def save_finished(path: Path, model: nn.Module, history: History) -> None:
    """Write the weights and the history, atomically."""
    state = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in model.state_dict().items()
    }
    header = {"history": json.dumps(history), "digest": weights_digest(state)}
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata=header)


def load_finished(path: Path, model: nn.Module) -> History | None:
    """Put kept weights into `model` and return the history; None if there is nothing that can be
    trusted.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header["digest"] != weights_digest(state):
            _distrust(path, "is damaged (digest differs)")
            return None
        history = json.loads(header["history"])
        model.load_state_dict(state)
    except (SafetensorError, KeyError, ValueError, RuntimeError, OSError) as error:
        _distrust(path, f"is damaged ({type(error).__name__})")
        return None
    return history


def _distrust(path: Path, reason: str) -> None:
    warnings.warn(f"{path.name} {reason}: training again", stacklevel=4)


@dataclass(frozen=True)
class Running:
    """The checkpoint of a training under way: everything that the next epoch depends on.

    Attributes:
        path: of the finished training (the checkpoint lies beside it); None keeps nothing.
        fabric: the processes that train together.
        model, optimizer: what is trained, and with what; the same in all processes.
        generators: of random numbers, whose states must go on where they were, in every process
            its own.
    """

    path: Path | None
    fabric: "lightning_fabric.Fabric"
    model: nn.Module
    optimizer: torch.optim.Optimizer
    generators: tuple[Draws, ...]

    @property
    def file(self) -> Path | None:
        return self.path and self.path.with_suffix(".running")

    def save(self, history: History) -> None:
        """Write the state after an epoch, atomically; all processes must call it."""
        if self.file is None:
            return
        states = [generator.get_state() for generator in self.generators]
        everywhere = [
            torch.as_tensor(self.fabric.all_gather(self.fabric.to_device(one))).cpu()
            for one in states
        ]
        if not self.fabric.is_global_zero:
            return
        state = {
            "history": history,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generators": [one.view(self.fabric.world_size, -1) for one in everywhere],
        }
        with atomic_path(self.file) as temporary:
            torch.save(state, temporary)

    def resume(self) -> History:
        """Restore the state and return the history so far; an empty one if there is nothing to
        trust.
        """
        if self.file is None or not self.file.exists():
            return []
        try:
            state = torch.load(self.file, weights_only=True)
        except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
            _distrust(self.file, f"is damaged ({type(error).__name__})")
            return []
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.set_state(saved[self.fabric.global_rank].clone())
        return state["history"]

    def remove(self) -> None:
        """Delete the checkpoint of a training that is finished."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)
