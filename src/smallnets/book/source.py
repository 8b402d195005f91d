"""Showing a method by the library's own source, so that code in a chapter is the code that runs."""

import ast
import inspect
import textwrap
from collections.abc import Callable
from types import ModuleType

from IPython.display import Markdown


def show(*things: Callable[..., object] | ModuleType, docstrings: bool = False) -> Markdown:
    """The source of functions, classes or modules, as highlighted code.

    Args:
        things: what to show, one below the other.
        docstrings: whether to keep the docstrings, which the reference pages show anyway.
    """
    blocks = [textwrap.dedent(inspect.getsource(thing)).rstrip() for thing in things]
    if not docstrings:
        blocks = [without_docstrings(block) for block in blocks]
    return Markdown("```python\n" + "\n\n\n".join(blocks) + "\n```")


def without_docstrings(source: str) -> str:
    """Python source with the docstrings of its functions, classes and module taken out."""
    lines = source.splitlines()
    dropped: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(
            node
        ):
            first = node.body[0]
            dropped |= set(range(first.lineno - 1, first.end_lineno or first.lineno))
            if (
                first.end_lineno
                and first.end_lineno < len(lines)
                and not lines[first.end_lineno].strip()
            ):
                dropped.add(first.end_lineno)
    return "\n".join(line for number, line in enumerate(lines) if number not in dropped)
