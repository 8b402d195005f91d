"""Names of code: functions, classes and modules.

What an installed package defines is named by where it is found and the package's version, if it is
really found there. All other code, as that of a notebook, is named by what it does: bytecode,
constants, defaults, what it closes over, and every global that it refers to, with the code behind
these. Sources are not asked: those of a notebook can be stale or gone.

Of modules that code refers to, what is used of them counts, however deep it lies in a package; of a
module of one's own that is kept by an object, all of it. Of an installed one that is what stands
under the name now, so that a function that was put in another's place is seen, if it is the named
code that calls it. Code that can reach anything is refused.
"""

import builtins
import dis
import functools
import importlib
import inspect
import os
import platform
import sys
import sysconfig
import types
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from smallnets.storage import SOURCE, source_digest

if TYPE_CHECKING:
    from smallnets.training.naming import Namer

# Of a class: what Python writes there itself, what copying leaves behind, and what is read by no
# method of it.
OF_CLASSES = {
    "__module__", "__qualname__", "__dict__", "__weakref__", "__doc__", "__slotnames__",
    "_abc_impl", "__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__",
    "__conditional_annotations__", "__orig_bases__", "__parameters__", "__type_params__",
    "__firstlineno__", "__static_attributes__", "__dataclass_fields__", "__dataclass_params__",
    "__abstractmethods__", "_backward_cls",
}  # fmt: skip
OF_ENUMS = {
    "_member_names_", "_member_map_", "_value2member_map_", "_unhashable_values_",
    "_hashable_values_", "_unhashable_values_map_", "_new_member_", "_use_args_",
    "_member_type_", "_value_repr_", "__new_member__", "_generate_next_value_",
}  # fmt: skip
# By these anything may be reached: other code, files, the surroundings.
UNBOUNDED = {
    id(thing): thing
    for thing in (
        eval, exec, globals, vars, compile, open, __import__, sys.modules, os.environ,
        getattr(os, "environb", os.environ), os.getenv, importlib.import_module, importlib.reload,
        importlib.__import__,
    )
}  # fmt: skip
BY_NAME = {"getattr", "attrgetter", "methodcaller", "__dict__", "__getattribute__"}
OF_MODULES = {
    "__builtins__", "__cached__", "__doc__", "__file__", "__loader__", "__name__", "__package__",
    "__path__", "__spec__",
}  # fmt: skip
DESCRIPTORS = (
    types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType,
    types.GetSetDescriptorType, types.MemberDescriptorType,
)  # fmt: skip


def name_code_like(namer: "Namer", thing: Any) -> bool:
    """Feed a function, a class, a module or another piece of code; False if it is none.

    Raises:
        ValueError: it reaches something that has no name.
    """
    if isinstance(thing, types.ModuleType):
        name_module(namer, thing)
    elif (place := place_of(thing)) is not None:
        namer.put("installed", place if namer.numbers else place.split(" ")[0])
    elif isinstance(thing, type):
        _name_class(namer, thing)
    elif isinstance(thing, types.FunctionType):
        _name_function(namer, thing)
    elif isinstance(thing, types.CodeType):
        _name_bytecode(namer, thing)
    elif isinstance(thing, types.BuiltinFunctionType | types.MethodWrapperType):
        namer.put("builtin", thing.__name__)
        namer.name(thing.__self__, ".__self__")
    elif isinstance(thing, DESCRIPTORS):
        namer.put("descriptor", thing.__name__)
        namer.name(thing.__objclass__, ".__objclass__")
    elif isinstance(thing, staticmethod | classmethod):
        namer.put(type(thing).__name__)
        namer.name(thing.__func__)
    elif isinstance(thing, property):
        namer.items("property", (thing.fget, thing.fset, thing.fdel))
    elif isinstance(thing, functools.cached_property):
        namer.put("cached property")
        namer.name(thing.func)
    elif isinstance(thing, functools._lru_cache_wrapper):
        namer.put("cached function")
        namer.name(thing.__wrapped__)
    elif isinstance(thing, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        if str(thing).split(".")[0] not in ("aten", "prims"):
            namer.refuse(thing)  # a library of one's own says elsewhere what it does
        namer.put("operator", f"{thing} {torch.__version__}")
    else:
        return False
    return True


def place_of(thing: Any) -> str | None:
    """Module, name and version of what an installed package defines; None if it is not there."""
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if isinstance(thing, types.BuiltinFunctionType) and isinstance(
        thing.__self__, types.ModuleType
    ):
        module, name = thing.__self__.__name__, thing.__name__
    if not (isinstance(module, str) and isinstance(name, str)):
        return None
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = inspect.getattr_static(found, part, None) if found is not None else None
    if isinstance(found, staticmethod | classmethod):
        found = found.__func__
    version = version_of_module(module) if found is thing else None
    return None if version is None else f"{module}.{name} {version}"


def version_of(thing: type) -> str | None:
    """Version of the package that defines a class; None for the reader's own."""
    place = place_of(thing)
    return None if place is None else place.partition(" ")[2]


@functools.cache
def version_of_module(name: str) -> str | None:
    """What names the code of a module: Python's or the package's version, a digest of the sources
    of a room of this library; None for code that is not installed.
    """
    top, _, rest = name.partition(".")
    if top == "smallnets":
        part = rest.split(".")[0] or "__init__"
        return source_digest(part if (SOURCE / part).is_dir() else f"{part}.py")
    module = sys.modules.get(top)
    if top == "__main__" or module is None:
        return None
    file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
    folders = sysconfig.get_paths()
    installed = file is not None and any(
        Path(file).is_relative_to(folders[kind]) for kind in ("purelib", "platlib")
    )
    if installed or (file and "site-packages" in Path(file).parts):
        version = getattr(module, "__version__", None)
        try:
            return version if isinstance(version, str) else metadata.version(top)
        except metadata.PackageNotFoundError:
            return None
    if top in sys.stdlib_module_names and (
        file is None or Path(file).is_relative_to(folders["stdlib"])
    ):
        return platform.python_version()
    return None


def name_module(
    namer: "Namer", module: types.ModuleType, used: frozenset[str] = frozenset()
) -> None:
    """Feed a module: an installed one by its version, another by its file; and those of its
    attributes that are used.

    Args:
        used: names that code refers to, among them those of attributes; none where nobody knows
            what is used, which is all of a module of one's own.
    """
    if namer.again(("module", id(module), used), module):
        return
    version = version_of_module(module.__name__)
    if version is not None and sys.modules.get(module.__name__) is module:
        namer.put("module", f"{module.__name__} {version if namer.numbers else ''}")
        for key in sorted(used & vars(module).keys()):
            namer.put("attribute", key)
            _name_installed(namer, vars(module)[key], key, used)
        return
    file = Path(getattr(module, "__file__", None) or "")
    every = not used or not used.isdisjoint(BY_NAME)
    chosen = vars(module).keys() - OF_MODULES if every else used | {"__getattr__"}
    found = {key: value for key, value in vars(module).items() if key in chosen}
    if not file.is_file() and not found:
        namer.refuse(module)
    namer.put("own module", file.read_bytes() if file.is_file() else b"")
    for key in sorted(found):
        namer.put("attribute", key)
        name_reference(namer, found[key], key, used)


def name_reference(namer: "Namer", value: Any, key: str, used: frozenset[str]) -> None:
    """Feed what code refers to: of a module what is used of it."""
    if isinstance(value, types.ModuleType):
        namer.path.append(key)
        name_module(namer, value, used)
        namer.path.pop()
    else:
        namer.name(value, key)


def _name_installed(namer: "Namer", value: Any, key: str, used: frozenset[str]) -> None:
    """Feed what stands in an installed module under a name: by its kind alone where that is
    installed, too, and the thing is neither code nor a module.
    """
    holder = getattr(value, "__self__", value)  # of a bound method, such as random.gauss
    kind = holder if isinstance(holder, type) else type(holder)
    function = getattr(value, "__func__", None)
    code = (types.ModuleType, types.FunctionType, functools.partial)
    ours = version_of_module(str(kind.__module__)) is None
    if id(value) in UNBOUNDED or isinstance(value, code) or ours:
        name_reference(namer, value, key, used)
    elif isinstance(function, types.FunctionType):
        namer.name(function, key)
    else:
        name = str(getattr(value, "__name__", ""))
        namer.put("kept there", f"{kind.__module__}.{kind.__qualname__} {name}")


def _name_function(namer: "Namer", function: types.FunctionType) -> None:
    namer.put("function")
    home = function.__globals__.get("__name__", "")
    module, version = sys.modules.get(home), version_of_module(home)
    where = function.__code__.co_filename
    found = references(function.__code__)
    if module is not None and version and getattr(module, "__file__", None) == where:
        # Made by a function of a package, which decides all but what is closed over.
        line = function.__code__.co_firstlineno if namer.numbers else ""
        namer.put("made by", f"{home} {function.__qualname__} {line} {version * namer.numbers}")
        namer.put("code", function.__code__.co_code if namer.numbers else b"")
    else:
        _name_bytecode(namer, function.__code__)
        _name_globals(namer, function, found)
    namer.name(function.__defaults__, "defaults")
    namer.name(function.__kwdefaults__, "defaults")
    for key, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        full = cell != types.CellType()
        whole = full and isinstance(cell.cell_contents, types.ModuleType)
        name_reference(namer, cell.cell_contents if whole else cell, key, found.attributes)
    namer.attributes(dict(vars(function)))


def _name_bytecode(namer: "Namer", code: types.CodeType) -> None:
    namer.put("code", code.co_code)
    namer.put("handlers", getattr(code, "co_exceptiontable", b""))
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    namer.put("counts", str(counts))
    namer.items("names", (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars))
    namer.put("constants", str(len(code.co_consts)))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _name_bytecode(namer, constant)
        else:
            namer.name(constant, "constant")


class References(NamedTuple):
    """What a function's code refers to, the functions inside it included."""

    globals: tuple[str, ...]
    # names, levels (1 for "from . import"), and what is taken from there
    imports: tuple[tuple[str, int, tuple[str, ...]], ...]
    attributes: frozenset[str]  # and texts, which may be names of attributes


def references(code: types.CodeType) -> References:
    """What code refers to, in the order in which it does."""
    loaded: list[str] = []
    imports: list[tuple[str, int, tuple[str, ...]]] = []
    attributes: set[str] = set()
    for one in _codes(code):
        attributes |= set(one.co_names)
        attributes |= {text for text in one.co_consts if isinstance(text, str)}
        before: list[Any] = [0, None]
        for step in dis.get_instructions(one):
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                loaded.append(step.argval)
            elif step.opname == "IMPORT_NAME":
                imports.append((step.argval, before[0], before[1] or ()))
            if step.opname != "EXTENDED_ARG":
                before = [before[1], step.argval]
    return References(
        tuple(dict.fromkeys(loaded)), tuple(dict.fromkeys(imports)), frozenset(attributes)
    )


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _name_globals(namer: "Namer", function: types.FunctionType, found: References) -> None:
    known = function.__globals__
    for key in found.globals:
        namer.put("global", key)
        # What is defined later is None, and another name then.
        value = known[key] if key in known else getattr(builtins, key, None)
        name_reference(namer, value, key, found.attributes)
    for name, level, taken in found.imports:
        try:
            module = __import__(name, known, None, taken, level)
        except (ImportError, KeyError, TypeError, ValueError):
            namer.put("not there", name)
        else:
            name_reference(namer, module, name, found.attributes)


def _name_class(namer: "Namer", kind: type) -> None:
    namer.put("class", kind.__qualname__)
    namer.items("bases", kind.__bases__)
    namer.name(type(kind), "metaclass")
    content = {key: value for key, value in vars(kind).items() if key not in OF_CLASSES}
    if members := getattr(kind, "__members__", None):
        names = set(members)
        content = {k: v for k, v in content.items() if k not in names and k not in OF_ENUMS}
        namer.pairs("members", {key: member._value_ for key, member in members.items()})
    if kind.__module__ == "torch.nn.utils.parametrize":  # its getters hold one module's id
        namer.put("parametrised", " ".join(sorted(content)))
        content = {}
    slots = {k for k, v in content.items() if isinstance(v, types.MemberDescriptorType)}
    namer.attributes({key: value for key, value in content.items() if key not in slots})
