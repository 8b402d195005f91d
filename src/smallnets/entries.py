"""The entry points of a room, imported on first use, so that a room costs only what is used."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def entries(
    room: str, methods: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a room, which also lead to the modules themselves.

    Args:
        room: its dotted name.
        methods: name of an entry point -> the package or module in the room that has it.
    """

    def get(name: str) -> Any:
        if name in methods:
            return getattr(import_module(f"{room}.{methods[name]}"), name)
        if name in methods.values():
            return import_module(f"{room}.{name}")
        raise AttributeError(f"module {room!r} has no attribute {name!r}")

    return get, lambda: sorted(methods)
