"""Names for what decides a training: equal for what behaves alike, and for nothing else.

Everything that can be reached is walked through and fed to one digest, with its type: numbers and
tensors by their bytes, objects by their class and state, functions by their code (see
`smallnets.training.naming_code`). What an installed package defines is named by the package's
version. Nothing is named by its `repr`, its `id` or its place in memory, so a name is the same in
another process; and what has no name is refused.

Something mutable that is met a second time is named as "the third thing that was met", not again:
a layer that is used twice trains otherwise than two equal layers do.
"""

import enum
import functools
import hashlib
import inspect
import re
import struct
import types
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable
from copyreg import _slotnames, dispatch_table  # type: ignore[attr-defined]
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from smallnets.training import naming_code as code

CONTAINERS = (dict, list, tuple, set, frozenset, int, float, complex, str, bytes)
# Never decide: what copying leaves behind, and the text that a graph was printed as.
LEFT_OUT = {"_graph", "_lineno_map", "_prologue_start", "_tracer_cls"}
HOOKS = re.compile(r"_\w*hooks(_\w+)?")
LONGEST = 20  # parts of a place in an error
OF_HOOKS = re.compile(r"(_forward(?:_pre)?_hooks)_(with_kwargs|always_called)")


def name_of(**content: Any) -> str:
    """Sixteen hexadecimal digits that change when anything changes that the content does.

    Raises:
        ValueError: something has no name; one line says what, and where it was found.
    """
    code.version_of_module.cache_clear()  # a room of this library may have been edited meanwhile
    namer = Namer()
    for key in sorted(content):
        namer.name(content[key], key)
    return namer.hexdigest()


def structure_of(thing: Any, without: Iterable[nn.Module] = ()) -> str:
    """Eight hexadecimal digits that are equal for networks that do the same steps with other
    numbers: shapes count, weights and versions of packages do not.

    Args:
        thing: a network.
        without: modules in it that are passed over.

    Raises:
        ValueError: something has no name.
    """
    namer = Namer(numbers=False)
    namer.passed_over = {id(one) for one in without}
    namer.name(thing, type(thing).__name__)
    return namer.hexdigest()[:8]


class Namer:
    """Feeds things to a digest.

    Args:
        numbers: whether values of tensors and versions of packages count.
    """

    def __init__(self, numbers: bool = True) -> None:
        self.numbers = numbers
        self.digest = hashlib.sha256()
        self.seen: dict[Any, int] = {}
        self.alive: list[Any] = []  # so that no id is given to another thing meanwhile
        self.path: list[str] = []
        self.passed_over: set[int] = set()

    def hexdigest(self) -> str:
        """The name of all that was fed so far."""
        return self.digest.hexdigest()[:16]

    def put(self, kind: str, data: Any = b"") -> None:
        """Feed bytes or text of a kind; their length is fed, too, so that nothing runs together."""
        data = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        self.digest.update(f"{kind} {memoryview(data).nbytes}:".encode())
        self.digest.update(data)

    def refuse(self, thing: Any) -> NoReturn:
        """Say what has no name.

        Raises:
            ValueError: always.
        """
        path = self.path if len(self.path) <= LONGEST else [*self.path[:LONGEST], "..."]
        where = "".join(one if one[:1] in ".[" else f".{one}" for one in path).lstrip(".")
        kind = f"{type(thing).__module__}.{type(thing).__qualname__}".removeprefix("builtins.")
        raise ValueError(
            f"{where} must be something that can be named; got a {kind}, "
            "so this training cannot be kept: cache_dir=None trains without keeping"
        )

    def again(self, key: Any, thing: Any) -> bool:
        """Whether something mutable was met before; it is then named by its number."""
        if key in self.seen:
            self.put("again", str(self.seen[key]))
            return True
        self.seen[key] = len(self.seen)
        self.alive.append(thing)
        return False

    def name(self, thing: Any, where: str = "") -> None:
        """Feed a thing and all that can be reached from it.

        Args:
            thing: anything.
            where: what it is called in an error.

        Raises:
            ValueError: it has no name.
        """
        self.path.append(where)
        try:
            self._name(thing)
        except RecursionError:
            self.refuse(thing)
        self.path.pop()

    def items(self, kind: str, values: Iterable[Any]) -> None:
        """Feed values in their order."""
        values = list(values)
        self.put(kind, str(len(values)))
        for place, value in enumerate(values):
            self.name(value, f"[{place}]")

    def pairs(self, kind: str, content: dict[Any, Any]) -> None:
        """Feed keys and values in their order."""
        self.put(kind, str(len(content)))
        for key, value in content.items():
            self.name(key, "key")
            self.name(value, f"[{key!r}]" if isinstance(key, str | int) else "[...]")

    def attributes(self, content: dict[str, Any]) -> None:
        """Feed attributes, in the order of their names."""
        self.put("attributes", str(len(content)))
        for key in sorted(content):
            self.put("attribute", key)
            self.name(content[key], f".{key}")

    def _name(self, thing: Any) -> None:
        kind = type(thing)
        if id(thing) in code.UNBOUNDED:
            self.refuse(thing)
        if kind in VALUES:
            self.put(kind.__name__, VALUES[kind](thing))
        elif kind in (tuple, torch.Size):
            self.items(kind.__name__, thing)
        elif kind is frozenset:
            self._unordered("frozenset", thing)
        elif isinstance(thing, types.MethodType):
            self.put("method")
            self.name(thing.__func__)
            self.name(thing.__self__, ".__self__")
        elif isinstance(thing, functools.partial):
            self.put("partial")
            self.items("parts", (kind, thing.func, thing.args, thing.keywords, vars(thing)))
        elif isinstance(thing, enum.Enum):
            self.put("member", thing.name)
            self.name(kind)
        elif _is_frozen(kind) or not self.again(id(thing), thing):
            self._mutable(thing, kind)

    def _mutable(self, thing: Any, kind: type) -> None:
        if kind is list:
            self.items("list", thing)
        elif kind in (dict, types.MappingProxyType):
            self.pairs("dict", dict(thing))
        elif kind is set:
            self._unordered("set", thing)
        elif kind is types.CellType:
            self.put("cell")
            if thing != types.CellType():
                self.name(thing.cell_contents)
        elif isinstance(thing, weakref.ref):
            self.put("weak reference")
            self.name(thing())
        elif isinstance(thing, Tensor):
            self._tensor(thing)
        elif isinstance(thing, np.ndarray):
            self._array(thing)
        elif isinstance(thing, np.generic):
            self.put("scalar", thing.tobytes())
            self.name(thing.dtype)
        elif isinstance(thing, torch.Generator):
            self.put("generator", f"{thing.device} {thing.initial_seed()}")
            self.name(thing.get_state())
        elif not code.name_code_like(self, thing):
            self._object(thing, kind)

    def _unordered(self, kind: str, values: Iterable[Any]) -> None:
        """Elements in the order of their own names, as sets of text are ordered at random."""

        def alone(value: Any) -> str:
            namer = Namer(self.numbers)
            namer.path = [*self.path]
            namer.name(value)
            return namer.hexdigest()

        self.items(kind, sorted(values, key=alone))

    def _tensor(self, thing: Tensor) -> None:
        self.name(type(thing))
        try:
            with torch._C.DisableTorchFunctionSubclass():
                self.put("tensor", f"{thing.dtype} {tuple(thing.shape)}")
                if self.numbers:
                    self.put("gradient", f"{thing.requires_grad} {thing.is_leaf}")
                    self._values(thing)
        except (RuntimeError, TypeError, NotImplementedError):
            self.refuse(thing)
        if self.numbers:
            self.attributes(dict(vars(thing)))
            for hooks in (thing._backward_hooks, thing._post_accumulate_grad_hooks):
                self.items("hooks", (hooks or {}).values())

    def _values(self, thing: Tensor) -> None:
        if thing.layout != torch.strided or thing.is_quantized or thing.is_meta:
            self.refuse(thing)
        storage = thing.untyped_storage()
        if self.again(("storage", storage._cdata), storage):  # two views of the same numbers
            self.put("view", f"{thing.storage_offset()} {thing.stride()}")
        plain = thing.detach().resolve_conj().resolve_neg().cpu().contiguous()
        self.put("values", plain.reshape(-1).view(torch.uint8).numpy())

    def _array(self, thing: np.ndarray) -> None:
        self.name(type(thing))
        self.name(thing.dtype)
        self.put("array", str(thing.shape))
        if thing.dtype.hasobject:
            self.items("elements", thing.ravel().tolist())
        else:
            self.put("values", np.ascontiguousarray(thing).reshape(-1).view(np.uint8))
        self.attributes(dict(getattr(thing, "__dict__", {})))

    def _object(self, thing: Any, kind: type) -> None:
        """By its class and its state; by how it is built again where its state is out of reach."""
        self.put("object")
        self.name(kind)
        base = next((one for one in CONTAINERS if isinstance(thing, one)), None)
        if isinstance(thing, defaultdict):
            self.name(thing.default_factory)
        if isinstance(thing, nn.modules.module._WrappedHook):
            return self.name(thing.hook)  # the rest is lost when it is copied
        if isinstance(thing, torch.jit.ScriptModule) or getattr(thing, "_compiled_call_impl", None):
            self.refuse(thing)  # what it computes is out of reach
        rebuilt = any("__reduce__" in vars(one) or "__reduce_ex__" in vars(one)
                      for one in kind.__mro__[:-1] if code.version_of(one))  # fmt: skip
        out_of_reach = kind in dispatch_table or rebuilt or _hides(kind)
        if out_of_reach and base is None and not isinstance(thing, nn.Module):
            return self._rebuilt(thing, kind)
        if base is not None:
            self.name(base(thing))
        state = dict(getattr(thing, "__dict__", {}))
        state |= {slot: getattr(thing, slot) for slot in _slotnames(kind) if hasattr(thing, slot)}
        cached = functools.cached_property
        state = {
            key: value
            for key, value in state.items()
            if not isinstance(inspect.getattr_static(kind, key, None), cached)
        }
        self.attributes(self._of_module(thing, state) if isinstance(thing, nn.Module) else state)

    def _rebuilt(self, thing: Any, kind: type) -> None:
        try:
            parts = (
                dispatch_table[kind](thing) if kind in dispatch_table else thing.__reduce_ex__(4)
            )
        except (TypeError, AttributeError, ValueError, RuntimeError):
            self.refuse(thing)
        if isinstance(parts, str):
            return self.put("global", f"{kind.__module__} {parts}")
        function, arguments, *rest = parts
        self.items("built", (function, arguments, *(None if x is None else
                   list(x) if place else x for place, x in enumerate(rest))))  # fmt: skip

    def _of_module(self, thing: nn.Module, state: dict[str, Any]) -> dict[str, Any]:
        """A module's attributes; of hooks the order only, as their numbers are the process's."""
        if isinstance(thing, torch.fx.GraphModule):
            state = {key: value for key, value in state.items() if key not in LEFT_OUT}
        named: dict[str, Any] = {}
        for key, value in state.items():
            if (of := OF_HOOKS.fullmatch(key)) and isinstance(value, dict):
                places = {number: place for place, number in enumerate(state.get(of[1]) or {})}
                named[key] = [places[number] for number in value if number in places]
            elif HOOKS.fullmatch(key) and isinstance(value, dict):
                named[key] = [*value.values()]
            elif key == "_modules" and self.passed_over:
                named[key] = {k: v for k, v in value.items() if id(v) not in self.passed_over}
            else:
                named[key] = value
        if self.numbers:
            return named
        ours = code.version_of(type(thing)) is None
        public = {k: v for k, v in named.items() if k != "training" and (ours or k[0] != "_")}
        parts = ("_modules", "_parameters", "_buffers")
        hooks = ("_forward_hooks", "_forward_pre_hooks")
        return public | {key: named[key] for key in (*parts, *hooks) if named.get(key)}


def _is_frozen(kind: type) -> bool:
    parameters = getattr(kind, "__dataclass_params__", None)
    return parameters is not None and parameters.frozen


def _hides(kind: type) -> bool:
    """Whether objects hold more than attributes and slots, which only their own code can reach."""
    pointer = struct.calcsize("P")
    plain = object.__basicsize__ + pointer * len(_slotnames(kind))
    plain += pointer * ((kind.__dictoffset__ > 0) + (kind.__weakrefoffset__ > 0))
    return kind.__basicsize__ > plain


def _number(value: float) -> bytes:
    return struct.pack(">d", value)


VALUES: dict[type, Callable[[Any], Any]] = {
    type(None): lambda value: b"",
    type(Ellipsis): lambda value: b"",
    type(NotImplemented): lambda value: b"",
    bool: str,
    int: str,
    float: _number,
    complex: lambda value: _number(value.real) + _number(value.imag),
    str: lambda value: value,
    bytes: lambda value: value,
    bytearray: bytes,
    range: lambda value: f"{value.start} {value.stop} {value.step}",
    torch.dtype: str,
    torch.device: str,
    torch.layout: str,
    torch.memory_format: str,
}
