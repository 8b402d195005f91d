"""Local Sphinx extension: the reference of one room of the library, from its docstrings.

`{room} smallnets.data` documents the package and every public module in it, so a new module needs
no new page.
"""

import hashlib
import importlib
import inspect
import pkgutil
from pathlib import Path

from book_sections import parsed, section
from sphinx.util.docutils import SphinxDirective


def modules_of(name):
    """The module or package `name`, and the public modules of the package."""
    module = importlib.import_module(name)
    inside = pkgutil.walk_packages(getattr(module, "__path__", ()), f"{name}.")
    names = sorted(info.name for info in inside if "._" not in info.name)
    return [module, *map(importlib.import_module, names)]


def defined_in(module):
    """Names of the documented functions and classes that `module` itself defines."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
        and value.__doc__
    ]


class Room(SphinxDirective):
    """Summary table and full entries of every module of a package."""

    required_arguments = 1

    def run(self):
        room = self.arguments[0]
        pages_of_rooms(self.env)[self.env.docname] = (room, state_of(room))
        made = []
        for module in modules_of(room):
            name = module.__name__
            if name == room:
                made += parsed(self, entries(module))
            else:
                short = name.removeprefix("smallnets.")
                made.append(section(self, f"module-{short}", f"`{short}`", entries(module)))
        return made


def entries(module):
    """MyST text: what the module says of itself, a summary table, and every entry in full."""
    names = defined_in(module)
    summary = [".. autosummary::", "   :nosignatures:", "", *(f"   {name}" for name in names), ""]
    return [
        "```{eval-rst}",
        f".. automodule:: {module.__name__}",
        "   :no-members:",
        "",
        *(summary if len(names) > 1 else []),
        *(line for name in names for line in entry(module, name)),
        "```",
    ]


def entry(module, name):
    """The autodoc directive of one function or class."""
    is_class = inspect.isclass(getattr(module, name))
    kind = "autoclass" if is_class else "autofunction"
    members = ["   :members:"] if is_class else []
    return [f".. {kind}:: {module.__name__}.{name}", *members, ""]


def pages_of_rooms(env):
    """For each reference page, its room and the state of the source it was made from."""
    if not hasattr(env, "smallnets_rooms"):
        env.smallnets_rooms = {}
    return env.smallnets_rooms


def state_of(room):
    """Digest of the room's source files."""
    source = Path(importlib.import_module("smallnets").__file__).parent
    path = source.joinpath(*room.split(".")[1:])
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for file in files:
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def outdated_pages(app, env, added, changed, removed):
    """Reference pages to make again because the source of their room changed."""
    pages = pages_of_rooms(env).items()
    return [
        page for page, (room, state) in pages if page in env.found_docs and state != state_of(room)
    ]


def setup(app):
    app.add_directive("room", Room)
    app.connect("env-get-outdated", outdated_pages)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
