"""A function is shown without what only refuses its arguments, and computes what it did."""

import torch

from smallnets.book.core import show_core, without_checks
from smallnets.synthesize import replay

SOURCE = """
def half(x, checks):
    checks.above("x", x, 0)
    _check(x)
    if x > 9:
        raise ValueError("x must be at most 9")
    if x:
        checks.whole("x", x)
    assert x
    if x == 1:
        return 0
    try:
        unchecked(x)
    except KeyError:
        raise
    return checks.plain(x) / 2
"""


def test_checks_go_and_the_rest_stays():
    kept = without_checks(SOURCE).split()
    assert kept == [
        "def", "half(x,", "checks):", "if", "x", "==", "1:", "return", "0",
        "try:", "unchecked(x)", "except", "KeyError:", "raise",
        "return", "checks.plain(x)", "/", "2",
    ]  # fmt: skip


def test_what_is_shown_of_a_library_function_computes_the_same():
    shown = show_core(replay.distillation).data
    assert "raise" not in shown
    assert "check" not in shown
    assert '"""' not in shown
    names = dict(vars(replay.supervision))
    exec(shown.removeprefix("```python\n").removesuffix("\n```"), names)
    first, second = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    assert names["distillation"](first, second, 3) == replay.distillation(first, second, 3)


def test_several_functions_stand_below_each_other():
    shown = show_core(replay.tv_loss, replay.local_cross_entropy).data
    assert shown.index("def tv_loss") < shown.index("def local_cross_entropy")
