"""Listings for the chapter: a function's source without the checks of its arguments."""

import ast
from collections.abc import Iterator


def without_checks(source: str) -> str:
    """Python source without its checks: `if ...: raise ...`, calls of `checks` and of functions
    named `check_...`, and assertions. All other lines stay as they are.

    Args:
        source: of whole functions or classes, or a Markdown block of such source.
    """
    fenced = source.startswith("```")
    lines = source.splitlines()
    code = lines[1:-1] if fenced else lines
    dropped = {
        number
        for node in ast.walk(ast.parse("\n".join(code)))
        if isinstance(node, ast.stmt) and _checks(node)
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    kept = [line for number, line in enumerate(code, 1) if number not in dropped]
    return "\n".join([lines[0], *kept, lines[-1]] if fenced else kept)


def _checks(node: ast.stmt) -> bool:
    """Whether a statement does nothing but refuse."""
    if isinstance(node, ast.If):
        return not node.orelse and all(isinstance(one, ast.Raise) for one in node.body)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return next(_names(node.value.func), "").startswith("check")
    return isinstance(node, ast.Assert)


def _names(function: ast.expr) -> Iterator[str]:
    """The names of a called function, from the first: `checks`, `whole` of `checks.whole`."""
    if isinstance(function, ast.Attribute):
        yield from _names(function.value)
        yield function.attr
    elif isinstance(function, ast.Name):
        yield function.id
