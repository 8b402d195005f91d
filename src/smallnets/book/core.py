"""What a function computes: its source without docstrings and without checks of its arguments."""

import ast
import inspect
import textwrap
from collections.abc import Callable

from IPython.display import Markdown

from smallnets.book.source import without_docstrings


def show_core(*things: Callable[..., object]) -> Markdown:
    """The source of functions as `show` has it, without what only refuses bad arguments.

    Args:
        things: what to show, one below the other.
    """
    sources = (textwrap.dedent(inspect.getsource(thing)).rstrip() for thing in things)
    blocks = (without_checks(without_docstrings(source)) for source in sources)
    return Markdown("```python\n" + "\n\n\n".join(blocks) + "\n```")


def without_checks(source: str) -> str:
    """Python source without its checks: branches that do nothing but raise or check, calls that
    stand alone and are named `check...` or belong to `checks`, and assertions.
    """
    dropped: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt) and _only_checks(node):
            dropped |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(source.splitlines(), 1)
    return "\n".join(line for number, line in lines if number not in dropped)


def _only_checks(node: ast.stmt) -> bool:
    if isinstance(node, ast.If):
        refusing = (isinstance(one, ast.Raise) or _only_checks(one) for one in node.body)
        return not node.orelse and all(refusing)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        called = ast.unparse(node.value.func)
        return called.lstrip("_").startswith("check")
    return isinstance(node, ast.Assert)
