"""Finished trainings, kept by content: same model, data, settings, seed and code, same file.

A finished training is a safetensors file with the weights, and in its header the history and a
digest of the weights. A file that is damaged is retrained with a word; one that another version of
the code made has another name, and is never found.
"""

import dataclasses
import functools
import hashlib
import inspect
import json
import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from smallnets.storage import atomic_path, content_key, source_digest

if TYPE_CHECKING:
    import lightning_fabric

History = list[dict[str, float]]
GROUND = ("data", "models", "training", "losses.py", "surgery.py")  # what every training runs


def weights_digest(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 of names, types, shapes and values of a state dictionary."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(
            tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()


def describe(thing: Any) -> Any:
    """A JSON-representable description that is equal for things that behave alike in training.

    Of a network its classes, their code, simple attributes and dataclasses, and its weights; of a
    function its defaults and what it closes over.
    """
    if isinstance(thing, nn.Module):
        parts = dict(thing.named_modules())
        return {
            "architecture": repr(thing),
            "code": sorted({_source(type(one)) for one in parts.values()}),
            "attributes": {name: _attributes(one) for name, one in parts.items()},
            "weights": weights_digest(thing.state_dict()),
        }
    if isinstance(thing, torch.Tensor):
        return {"tensor": weights_digest({"": thing})}
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        fields = {
            field.name: describe(getattr(thing, field.name)) for field in dataclasses.fields(thing)
        }
        return {"type": type(thing).__qualname__, **fields}
    if isinstance(thing, dict):
        return {str(key): describe(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [describe(value) for value in thing]
    if isinstance(thing, functools.partial):
        return {"partial": [describe(thing.func), describe(thing.args), describe(thing.keywords)]}
    if inspect.isfunction(thing):
        inside = inspect.getclosurevars(thing).nonlocals
        inside = {name: value for name, value in inside.items() if value is not thing}
        return [_source(thing), describe(thing.__defaults__), describe(inside)]
    return thing.__qualname__ if callable(thing) else thing


def _attributes(network: nn.Module) -> dict[str, Any]:
    simple = (bool, int, float, str, tuple, type(None))
    return {
        name: describe(value) if dataclasses.is_dataclass(value) else repr(value)
        for name, value in vars(network).items()
        if name != "training" and (isinstance(value, simple) or dataclasses.is_dataclass(value))
    }


def _source(thing: Any) -> str:
    """Source of a class or function; of torch's own the name will do, as the version is known."""
    if thing.__module__.startswith("torch."):
        return thing.__qualname__
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):  # typed in, not read from a file
        code = getattr(thing, "__code__", None)
        return f"{thing.__qualname__} {code and (code.co_code.hex(), code.co_consts)}"


def code_digest(objective: Any) -> str:
    """Digest of the code that a training runs: the ground floor, and the room of the objective.

    An objective uses nothing else of the library.
    """
    while isinstance(objective, functools.partial):
        objective = objective.func
    kind = objective if inspect.isroutine(objective) else type(objective)
    package, _, rest = kind.__module__.partition(".")
    home = source_digest(rest.split(".")[0]) if package == "smallnets" else _source(kind)
    return content_key(ground=source_digest(*GROUND), home=home, torch=torch.__version__)


def cache_path(folder: Path, label: str, suffix: str = ".safetensors", **content: Any) -> Path:
    """The file in which that is kept which `content` decides."""
    key = content_key(**{name: describe(value) for name, value in content.items()})
    return folder / f"{label}-{key}{suffix}"


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
        generators: random generators whose states must go on where they were, in every process its
            own.
    """

    path: Path | None
    fabric: "lightning_fabric.Fabric"
    model: nn.Module
    optimizer: torch.optim.Optimizer
    generators: tuple[torch.Generator, ...]

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
