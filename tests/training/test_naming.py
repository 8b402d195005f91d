"""A kept training is never another one's: what differs has another name, or none."""

import copy
import importlib
import operator
import os
import random
import re
import runpy
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smallnets.training import Classification, fit, naming_code, run_parallel
from smallnets.training.checkpoint import place_of_training
from smallnets.training.naming import name_of, structure_of
from smallnets.training.naming_code import references

NOTEBOOK = Path(__file__).with_name("notebook_cells.py")
CELLS, run = (runpy.run_path(str(NOTEBOOK))[name] for name in ("CELLS", "run"))


@pytest.mark.parametrize("what", CELLS)
def test_what_differs_in_one_thing_has_another_name(what):
    cell, *values = CELLS[what]
    names = [name_of(thing=run(cell, value)) for value in values]
    assert names[0] != names[1]
    assert [name_of(thing=run(cell, value)) for value in values] == names, "the cell run again"


# A copy of these is another thing: hooks stay behind, and shared memory is parted.
PARTED = ("a hook of a tensor", "weights that are one and weights that are equal")


@pytest.mark.parametrize("what", [what for what in CELLS if what not in PARTED])
def test_a_copy_has_the_same_name(what):
    cell, *values = CELLS[what]
    for value in values:
        thing = run(cell, value)
        if not isinstance(thing, torch.Generator):  # which cannot be copied
            assert name_of(thing=copy.deepcopy(thing)) == name_of(thing=thing)


def test_names_are_the_same_in_another_process():
    said = [
        subprocess.run(
            [sys.executable, NOTEBOOK], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout.splitlines()
        for seed in ("1", "2")
    ]  # fmt: skip
    here = [
        " ".join([what, *(name_of(thing=run(cell, value)) for value in values)])
        for what, (cell, *values) in CELLS.items()
    ]
    assert said[0] == said[1] == here


def test_a_notebooks_own_things_have_the_same_name_in_a_worker():
    cell, value, _ = CELLS["a method that is called by another"]
    thing = run(cell, value)

    def named(number):
        return name_of(thing=thing)

    jobs = [{"number": number} for number in range(2)]
    assert run_parallel(named, jobs, workers=2) == [name_of(thing=thing)] * 2


@pytest.mark.parametrize(
    ("thing", "kind"),
    [
        (threading.Lock(), "_thread.lock"),
        ((number for number in range(3)), "generator"),
        (open(os.devnull), "_io.TextIOWrapper"),  # noqa: SIM115
        (torch.zeros(2).to_sparse(), "torch.Tensor"),
        (torch.zeros(2, device="meta"), "torch.Tensor"),
        (torch.jit.script(nn.ReLU()), r"torch\.jit\._script\.RecursiveScriptModule"),
        (lambda: eval("weight"), "builtin_function_or_method"),
        (lambda: globals()["weight"], "builtin_function_or_method"),
        (lambda: vars(np)["pi"], "builtin_function_or_method"),
        (lambda: compile("weight", "", "eval"), "builtin_function_or_method"),
        (lambda: open("weight"), "builtin_function_or_method"),  # noqa: SIM115
        (lambda: os.environ["WEIGHT"], r"os\._Environ"),
        (lambda: os.getenv("WEIGHT"), "function"),
        (lambda: sys.modules["own"], "dict"),
        (lambda: importlib.import_module("own").weight, "function"),
    ],
    ids=[
        "lock", "generator", "file", "sparse", "meta", "scripted", "eval", "globals", "vars",
        "compile", "open", "environ", "getenv", "modules", "import",
    ],
)  # fmt: skip
def test_what_has_no_name_is_refused_in_a_line(thing, kind):
    with pytest.raises(ValueError, match="cannot be kept") as error:
        name_of(objective={"inner": [thing]})
    message = str(error.value)
    assert message.startswith("objective['inner'][0]")
    assert message.endswith("cache_dir=None trains without keeping")
    assert "\n" not in message
    assert re.search(rf"got a ({kind}), so", message)


def test_endless_nesting_is_refused_in_a_line():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(ValueError, match="cannot be kept") as error:
        name_of(objective=nested)
    assert len(str(error.value)) < 300


def test_what_refers_to_itself_has_a_name():
    ring, other = [1], [1]
    ring.append(ring)
    other.append(other)
    assert name_of(ring=ring) == name_of(ring=other) != name_of(ring=[1, [1]])


def test_a_training_that_has_no_name_is_refused_and_trains_without_keeping(
    tiny, settings, new_model, tmp_path
):
    class Locked(Classification):
        lock = threading.Lock()

    quick = replace(settings, epochs=1)
    with pytest.raises(ValueError, match=r"objective.*\.lock must be something that can be named"):
        fit(new_model(), tiny, quick, seed=0, objective=Locked(), cache_dir=tmp_path)
    assert len(fit(new_model(), tiny, quick, seed=0, objective=Locked())) == 1


def test_the_mode_in_which_a_network_comes_does_not_count(tiny, settings, new_model, tmp_path):
    for mode in (True, False):
        fit(new_model().train(mode), tiny, replace(settings, epochs=1), seed=0, cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_the_default_type_counts(tiny, settings, new_model, tmp_path):
    model = new_model()
    quick = replace(settings, epochs=1)
    fit(copy.deepcopy(model), tiny, quick, seed=0, cache_dir=tmp_path)
    torch.set_default_dtype(torch.float64)
    try:
        fit(model, tiny, quick, seed=0, cache_dir=tmp_path)
    finally:
        torch.set_default_dtype(torch.float32)
    assert len(list(tmp_path.iterdir())) == 2


@dataclass(frozen=True)
class Lazy:
    weight: float = 1.0

    @cached_property
    def computed(self):
        return [self.weight]


def test_what_is_computed_from_the_rest_does_not_count():
    one, other = Lazy(), Lazy()
    assert other.computed == [1.0]
    assert name_of(one=one) == name_of(one=other)


def test_code_that_has_run_often_has_its_old_name():
    def hot(n):
        total = 0
        for number in range(n):
            total += number * 2
        return total

    before = name_of(hot=hot)
    hot(100_000)
    assert name_of(hot=hot) == before


def test_a_module_of_ones_own_counts_with_what_is_used_of_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_losses.py").write_text("WEIGHT = 1\ndef loss(): return WEIGHT\n")
    cell = "import own_losses\nthing = lambda: {0}own_losses.loss()"
    late = "def thing():\n    import own_losses\n    return {0}own_losses.loss()"
    first = [name_of(thing=run(one, "")) for one in (cell, late)]
    sys.modules["own_losses"].WEIGHT = 2
    second = [name_of(thing=run(one, "")) for one in (cell, late)]
    del sys.modules["own_losses"]
    assert not set(first) & set(second)
    assert [name_of(thing=run(one, "")) for one in (cell, late)] == first


IN_A_PACKAGE = {
    "an attribute of an attribute": "import own_parts.deep\nthing = lambda: own_parts.deep.W",
    "an import inside": "def thing():\n    from own_parts import deep\n    return deep.W",
    "a name that is imported": "def thing():\n    from own_parts.deep import W\n    return W",
    "a package that imports": "import own_parts\nthing = lambda: own_parts.weight()",
    "what is closed over": (
        "import own_parts.deep\ndef make(own): return lambda: own.deep.W\nthing = make(own_parts)"
    ),
    "an object's attribute": (
        "import own_parts.deep\nclass Loss:\n    def __init__(self, own): self.own = own\n"
        "    def __call__(self): return self.own.W\nthing = Loss(own_parts.deep)"
    ),
    "a text": "import own_parts.deep\nthing = lambda: getattr(own_parts.deep, 'W')",
    "a text from elsewhere": "import own_parts.deep\nthing = lambda n: getattr(own_parts.deep, n)",
    "its dictionary": "import own_parts.deep\nthing = lambda: own_parts.deep.__dict__['W']",
}


@pytest.mark.parametrize("how", IN_A_PACKAGE)
def test_what_a_package_of_ones_own_holds_counts_however_it_is_reached(how, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_parts").mkdir()
    package = "def weight():\n    return inner()\nfrom own_parts.deep import inner\n"
    (tmp_path / "own_parts" / "__init__.py").write_text(package)
    (tmp_path / "own_parts" / "deep.py").write_text("W = 1\ndef inner(): return W\n")
    thing = run(IN_A_PACKAGE[how], "")
    first = name_of(thing=thing)
    assert name_of(thing=thing) == first
    sys.modules["own_parts.deep"].W = 2
    second = name_of(thing=thing)
    for name in ("own_parts", "own_parts.deep"):
        del sys.modules[name]
    assert first != second


@pytest.mark.parametrize(
    "cell",
    [
        "from torch.nn import functional as F\nthing = lambda x: F.relu(x)",
        "import torch\nthing = lambda x: torch.nn.functional.relu(x)",
        "def thing(x):\n    import torch.nn.functional as F\n    return F.relu(x)",
    ],
)
def test_what_was_put_in_the_place_of_an_installed_function_counts(cell, monkeypatch):
    thing = run(cell, "")
    before = name_of(thing=thing)
    names = {before}
    for other in (F.gelu, lambda x: 2 * x, lambda x: 3 * x):
        monkeypatch.setattr(F, "relu", other)
        names.add(name_of(thing=thing))
    monkeypatch.undo()
    assert len(names) == 4
    assert name_of(thing=thing) == before


def test_what_installed_modules_keep_counts_by_its_place_not_by_its_state():
    def thing(x):
        return random.gauss(0, 1) * np.random.rand() * np.exp(x) * torch.nn.functional.max_pool2d(x)

    before = name_of(thing=thing)
    random.gauss(0, 1), np.random.rand()
    assert name_of(thing=thing) == before


def test_a_room_that_was_edited_has_another_name_at_once(monkeypatch):
    before = name_of(thing=fit)
    monkeypatch.setattr(naming_code, "source_digest", lambda part: "edited")
    assert name_of(thing=fit) != before


@pytest.fixture
def computing_as_before(settings):
    """PyTorch notes a precision under several words, and has to be told each of them to forget."""
    before = place_of_training(settings, None)
    of_mkldnn = getattr(torch.backends.mkldnn, "matmul", None)  # from torch 2.9 on
    holders = torch.backends.cuda.matmul, of_mkldnn
    words = [(one, one.fp32_precision) for one in holders if hasattr(one, "fp32_precision")]
    yield
    torch.set_float32_matmul_precision("highest")
    for holder, word in words:
        holder.fp32_precision = word
    assert place_of_training(settings, None) == before, "other tests would be named anew"


@pytest.mark.parametrize(
    ("place", "value"),
    [("cudnn.deterministic", True), ("cudnn.allow_tf32", False), ("mkldnn.enabled", False)],
)
def test_how_exactly_torch_computes_counts(
    place, value, settings, computing_as_before, monkeypatch
):
    before = place_of_training(settings, None)
    holder, _, key = place.rpartition(".")
    monkeypatch.setattr(operator.attrgetter(holder)(torch.backends), key, value)
    assert place_of_training(settings, None) != before


def test_the_precision_of_products_counts(settings, computing_as_before):
    before = place_of_training(settings, None)
    torch.set_float32_matmul_precision("high")
    assert place_of_training(settings, None) != before


def test_what_code_refers_to_is_found_in_functions_inside_it():
    def outer():
        from os import path

        return lambda: np.mean(path)

    found = references(outer.__code__)
    assert found.globals == ("np",)
    assert found.imports == (("os", 0, ("path",)),)
    assert "mean" in found.attributes


def test_structures_are_equal_where_only_numbers_differ():
    def network(dilation=1, act=nn.ReLU):
        return nn.Sequential(nn.Conv2d(3, 3, 3, dilation=dilation), act(), nn.Identity())

    plain = network()
    assert structure_of(plain) == structure_of(network().eval().requires_grad_(False))
    others = [network(2), network(act=nn.GELU), nn.Sequential(*plain[:2])]
    assert len({structure_of(one) for one in [plain, *others]}) == 4
    assert structure_of(plain, plain[2:]) == structure_of(others[2])
