"""Hooks that are heard: refused where they would not fire, and what they keep is kept as it was.

A hook fires when its module is called. Compiled code was made before the hook came and runs without
it, scripted code never looks for it, and a module that is skipped, or whose `forward` is called
directly, is not called at all.
"""

import operator
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

NOT_CALLED = (
    "must be called in every pass; the network skipped it, or called its forward or another method"
)
# Operators that overwrite their first tensor, and what does the same without.
OVERWRITING = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    operator.ifloordiv: operator.floordiv,
    operator.imod: operator.mod,
    operator.ipow: operator.pow,
    operator.iand: operator.and_,
    operator.ior: operator.or_,
    operator.ixor: operator.xor,
    operator.ilshift: operator.lshift,
    operator.irshift: operator.rshift,
}
METHODS = {"__setitem__", "__set__", *(f"__{one.__name__}__" for one in OVERWRITING)}


def ancestors(name: str) -> list[str]:
    """Names of the modules around a module, the network ("") first: "a.b" -> "", "a"."""
    parts = name.split(".")
    return [".".join(parts[:depth]) for depth in range(len(parts)) if name]


def check_hooks(model: nn.Module, names: Iterable[str], *, compiled: bool = False) -> None:
    """Refuse modules whose hooks would not fire.

    Args:
        model: the network.
        names: dotted names of the modules that get hooks.
        compiled: whether compiled code is no obstacle, see `uncompiled`.

    Raises:
        ValueError: a module, or one around it, is compiled or scripted.
    """
    for name in names:
        around = [model.get_submodule(one) for one in ancestors(name)]
        scripted = any(isinstance(one, torch.jit.ScriptModule) for one in around)
        frozen = not compiled and any(map(_compiled, (*around, model.get_submodule(name))))
        if scripted or frozen:
            kind, before = ("scripted", "torch.jit") if scripted else ("compiled", "torch.compile")
            raise ValueError(
                f"hooks on {name or type(model).__name__!r} would not fire: the network is {kind}; "
                f"pass it as it was before {before}"
            )


def _compiled(module: nn.Module) -> bool:
    wrapped = "_orig_mod" in module._modules and hasattr(module, "dynamo_ctx")
    return wrapped or getattr(module, "_compiled_call_impl", None) is not None


@contextmanager
def uncompiled(model: nn.Module, names: Iterable[str]) -> Iterator[None]:
    """Inside the block compiled networks run as they were written, so that hooks fire.

    Raises:
        ValueError: one of the named modules is scripted, or compiled under torch 2.5 or before,
            which cannot do that.
    """
    set_stance = getattr(torch.compiler, "set_stance", None)
    check_hooks(model, names, compiled=set_stance is not None)
    dynamo = "torch._dynamo" in sys.modules  # without it nothing is compiled; it takes long to load
    if set_stance is None or not dynamo or torch.compiler.is_compiling():
        yield
        return
    with set_stance("force_eager"):
        yield


class Recorder:
    """Keeps the tensors that submodules give, or are given, in the latest pass of a network.

    They are the network's own tensors, part of its graph. Only where the pass is about to overwrite
    one (`x += y`, `ReLU(inplace=True)`), that one is copied first; where passes have overwritten
    nothing so far, the first that does is found out when its tensors are read. A copy of the
    network, such as copy.deepcopy makes with all hooks, is not listened to.

    Args:
        model: the network.
        names: dotted names of submodules.
        side: "out" for what they give, "in" for what they are given.

    Raises:
        ValueError: see `check_hooks`.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], side: str = "out") -> None:
        check_hooks(model, names)
        self.model, self.names = model, tuple(names)
        self.side, self.passes = side, 0
        self._kept: dict[str, Tensor] = {}
        self._versions: dict[str, int | None] = {}
        self._runs: dict[str, int] = {}
        self._depth = 0
        self._saved = False  # whether something was copied in this pass
        self._written: set[str] = set()  # what an unwatched pass has overwritten
        self._handles: list[RemovableHandle] = []
        for around in dict.fromkeys(
            model.get_submodule(one) for name in names for one in ancestors(name)
        ):
            enter, leave = self._passing(around)
            self._handles += [
                around.register_forward_pre_hook(enter),
                around.register_forward_hook(leave, always_call=True),
            ]
        for name in names:
            module = model.get_submodule(name)
            given, made = self._hearing(name, module)
            self._handles.append(
                module.register_forward_pre_hook(given, with_kwargs=True)
                if side == "in"
                else module.register_forward_hook(made)
            )

    def has(self, name: str) -> bool:
        """Whether a submodule has run in the latest pass."""
        return name in self._kept

    def tensors(self, names: Sequence[str]) -> dict[str, Tensor]:
        """What is kept of some submodules.

        Raises:
            RuntimeError: the network has not run yet.
            ValueError: it ran without calling one of them, or called one more than once, or a
                tensor was overwritten after the pass.
        """
        missing = [name for name in names if name not in self._kept]
        if missing and not self.passes:
            raise RuntimeError(f"no features of {', '.join(missing)} yet: run the network first")
        if missing:
            raise ValueError(f"{missing[0]!r} {NOT_CALLED}")
        for name in names:
            if self._runs[name] > 1:
                raise ValueError(
                    f"{name!r} must run once in a pass, to have one tensor to keep; "
                    f"it ran {self._runs[name]} times"
                )
            if name in self._written:
                raise ValueError(
                    f"the network wrote into the tensor kept of {name!r}, as it did not in passes "
                    "before: run it again, it is watched now"
                )
            if _version(self._kept[name]) != self._versions[name]:
                raise ValueError(
                    f"the tensor kept of {name!r} has been overwritten; use it before changing it"
                )
        return {name: self._kept[name] for name in names}

    def close(self) -> None:
        """Stop listening."""
        for handle in self._handles:
            handle.remove()
        WATCHED.remove(self)

    @property
    def _case(self) -> tuple[Any, ...]:
        """Passes of one case are taken to overwrite the same tensors."""
        return self.side, self.names, self.model.training, torch.is_grad_enabled()

    def _is_calm(self) -> bool:
        return self._case in CALM.get(self.model, ())

    def _learn(self, whole: bool) -> None:
        """After a pass: whether the next one has to be watched."""
        WATCHED.remove(self)
        calm = CALM.setdefault(self.model, set())
        self._written = {n for n, x in self._kept.items() if _version(x) != self._versions[n]}
        if self._saved or self._written:
            calm.discard(self._case)
        elif whole and self._kept.keys() == set(self.names):
            calm.add(self._case)

    def save(self, written: Tensor) -> None:
        """Copy what is kept and shares memory with a tensor that is about to be written."""
        for name, kept in [*self._kept.items()]:
            if _version(kept) == self._versions[name] and _share_memory(kept, written):
                self._saved = True
                with torch.set_grad_enabled(torch.is_grad_enabled() or kept.requires_grad):
                    self._keep(name, kept.clone())

    def _keep(self, name: str, tensor: Tensor) -> None:
        self._kept[name], self._versions[name] = tensor, _version(tensor)

    def _hear(self, name: str, value: Any) -> None:
        if not isinstance(value, Tensor):
            verb = "give" if self.side == "out" else "be given"
            raise ValueError(f"{name!r} must {verb} a tensor; got {type(value).__name__}")
        if self._depth == 0:  # called by itself, outside of a pass
            self._runs[name] = 0
        elif _version(value) is None or not self._is_calm():
            WATCHED.add(self)  # from here on there is something to be overwritten
        self._runs[name] = self._runs.get(name, 0) + 1
        self._keep(name, value)

    # Hooks are functions, which copy.deepcopy leaves as they are: a copy is told by its modules.

    def _hearing(self, name: str, module: nn.Module) -> tuple[Callable[..., None], ...]:
        def given(called: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            if called is module:
                self._hear(name, next(iter((*inputs, *named.values())), None))

        def made(called: nn.Module, inputs: Any, output: Any) -> None:
            if called is module:
                self._hear(name, output)

        return given, made

    def _passing(self, module: nn.Module) -> tuple[Callable[..., None], ...]:
        def enter(called: nn.Module, inputs: Any) -> None:
            if called is not module:
                return
            if self._depth == 0:
                self.passes += 1
                self._saved = False
                self._kept.clear()
                self._runs.clear()
            self._depth += 1

        def leave(called: nn.Module, inputs: Any, output: Any) -> None:
            if called is not module or self._depth == 0:
                return
            self._depth -= 1
            if self._depth == 0:
                self._learn(whole=output is not None)

        return enter, leave


class _CopyBeforeWriting(TorchFunctionMode):
    """Tells recorders of every tensor that is about to be overwritten."""

    def __init__(self, recorders: list[Recorder]) -> None:
        super().__init__()
        self.recorders = recorders

    def __torch_function__(
        self, function: Any, types: Any, arguments: Any = (), options: Any = None
    ) -> Any:
        options = options or {}
        name = getattr(function, "__name__", "")
        inplace = name.endswith("_") and (not name.endswith("__") or name in METHODS)
        written = [arguments[0]] if arguments and (inplace or options.get("inplace")) else []
        for tensor in _tensors([*written, options.get("out")]):
            for recorder in self.recorders:
                recorder.save(tensor)
        return function(*arguments, **options)


class _Watched(threading.local):
    """The recorders of a thread whose passes are watched, by one mode for all of them: modes end
    in the reverse order of their beginnings, passes need not.
    """

    def __init__(self) -> None:
        self.recorders: list[Recorder] = []
        self.mode = _CopyBeforeWriting(self.recorders)

    def add(self, recorder: Recorder) -> None:
        if recorder not in self.recorders:
            self.recorders.append(recorder)
            if len(self.recorders) == 1:
                self.mode.__enter__()

    def remove(self, recorder: Recorder) -> None:
        if recorder in self.recorders:
            self.recorders.remove(recorder)
            if not self.recorders:
                self.mode.__exit__(None, None, None)


WATCHED = _Watched()
# Networks, and the cases in which a watched pass has overwritten nothing that was kept. To watch
# costs time at every operation; should a later pass overwrite something, its reading says so.
CALM: WeakKeyDictionary[nn.Module, set[tuple[Any, ...]]] = WeakKeyDictionary()


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _version(tensor: Tensor) -> int | None:
    """How often a tensor has been written; None where inference mode does not count it."""
    return None if tensor.is_inference() else tensor._version


def _share_memory(a: Tensor, b: Tensor) -> bool:
    try:
        return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # tensors without memory of their own
        return True
