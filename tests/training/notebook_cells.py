"""Cells of a notebook that define `thing`, and two values of what each of them has in one place.

`python notebook_cells.py` prints the name of every thing.
"""

import textwrap
import types
from typing import Any

from smallnets.training.naming import name_of

MODULE = """
    from torch import nn
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)
            nn.init.ones_(self.layer.weight), nn.init.zeros_(self.layer.bias)
            {0}
        def forward(self, x):
            return self.layer(x)
    thing = Network()
"""
SLOTS = """
    class Slotted:
        __slots__ = ("weight",)
    thing = Slotted()
    thing.weight = {0}
"""
LOADER = """
    import torch
    from torch.utils.data import DataLoader, TensorDataset
    data = TensorDataset(torch.arange(8.0)[:, None], torch.arange(8))
    thing = DataLoader(data, {0})
"""

# what differs -> (cell, one value, another)
CELLS: dict[str, tuple[str, str, str]] = {
    # functions
    "a constant": ("thing = lambda model, batch: {0} * model(batch)", "1", "2"),
    "1 and 1.0": ("thing = lambda: {0}", "1", "1.0"),
    "True and 1": ("thing = lambda: {0}", "True", "1"),
    "an operator": ("thing = lambda a, b: a {0} b", "+", "-"),
    "a method's name": ("thing = lambda x: x.{0}()", "sum", "mean"),
    "a default": ("thing = lambda a={0}: a", "1", "2"),
    "a keyword's default": ("def thing(*, weight={0}): return weight", "1", "2"),
    "a global": ("weight = {0}\ndef thing(): return weight", "1", "2"),
    "a global of a function inside": (
        "weight = {0}\ndef thing():\n    def inner(): return weight\n    return inner()", "1", "2",
    ),
    "a global of a function that is called": (
        "weight = {0}\ndef inner(): return weight\ndef thing(): return inner()", "1", "2",
    ),
    "what functions that call each other do": (
        "def one(n): return n and other(n - {0})\ndef other(n): return one(n)\nthing = one",
        "1", "2",
    ),
    "an attribute of a function": ("def thing(): return 1\nthing.weight = {0}", "1", "2"),
    "what is closed over": (
        "def make(weight):\n    return lambda: weight\nthing = make({0})", "1", "2",
    ),
    "what a decorated function does": (
        "import torch\n@torch.no_grad()\ndef thing(): return {0}", "1", "2",
    ),
    "a partial's argument": (
        "from functools import partial\ndef f(a): return a\nthing = partial(f, {0})", "1", "2",
    ),
    "a partial's keyword": (
        "from functools import partial\ndef f(a): return a\nthing = partial(f, a={0})", "1", "2",
    ),
    "a function of torch": ("from torch.nn import functional as F\nthing = F.{0}", "relu", "elu"),
    "a builtin of torch": ("import torch\nthing = torch.{0}", "sin", "cos"),
    "a method of tensors": ("import torch\nthing = torch.Tensor.{0}", "sin", "cos"),
    "an operator of torch": ("import torch\nthing = torch.ops.aten.{0}", "sin", "cos"),
    "the function inside functools.cache": (
        "import functools\n@functools.cache\ndef thing(): return {0}", "1", "2",
    ),
    # classes and objects
    "a method of a class": (
        "class Loss:\n    def __call__(self): return {0}\nthing = Loss()", "1", "2",
    ),
    "a method that is called by another": (
        "class Loss:\n    def part(self): return {0}\n    def __call__(self): return self.part()\n"
        "thing = Loss()", "1", "2",
    ),
    "an attribute of a class": ("class Loss:\n    weight = {0}\nthing = Loss()", "1", "2"),
    "an attribute of a base class": (
        "class Base:\n    weight = {0}\nclass Loss(Base): pass\nthing = Loss()", "1", "2",
    ),
    "a property": (
        "class Loss:\n    @property\n    def weight(self): return {0}\nthing = Loss()", "1", "2",
    ),
    "a static method": (
        "class Loss:\n    @staticmethod\n    def weight(): return {0}\nthing = Loss()", "1", "2",
    ),
    "an object's attribute": (
        "class Loss:\n    def __init__(self, w): self.w = w\nthing = Loss({0})", "1", "2",
    ),
    "the object of a bound method": (
        "class Loss:\n    def __init__(self, w): self.w = w\n    def loss(self): return self.w\n"
        "thing = Loss({0}).loss", "1", "2",
    ),
    "the function of a bound method": (
        "class Loss:\n    def a(self): pass\n    def b(self): return 1\nthing = Loss().{0}",
        "a", "b",
    ),
    "a slot": (SLOTS, "1", "2"),
    "a field of a dataclass": (
        "from dataclasses import dataclass\n@dataclass\nclass Loss:\n    w: float\n"
        "thing = Loss({0})", "1.0", "2.0",
    ),
    "the default factory of a dataclass": (
        "from dataclasses import dataclass, field\n@dataclass\nclass Loss:\n"
        "    w: list = field(default_factory=lambda: [{0}])\nthing = Loss", "1", "2",
    ),
    "a named tuple": (
        "from collections import namedtuple\nthing = namedtuple('Pair', 'a b')({0}, 2)", "1", "2",
    ),
    "the fields of a named tuple": (
        "from collections import namedtuple\nthing = namedtuple('Pair', {0})(1, 2)",
        "'a b'", "'b a'",
    ),
    "a member of an enumeration": (
        "import enum\nclass Mode(enum.Enum):\n    A = 1\n    B = 2\nthing = Mode.{0}", "A", "B",
    ),
    "the value of a member": (
        "import enum\nclass Mode(enum.Enum):\n    A = {0}\nthing = Mode.A", "1", "2",
    ),
    "a forward of torch.autograd": (
        "import torch\nclass Scale(torch.autograd.Function):\n    @staticmethod\n"
        "    def forward(ctx, x): return {0} * x\nthing = Scale.apply", "1", "2",
    ),
    # values
    "a number in a long array": (
        "import numpy as np\nthing = np.zeros(5000)\nthing[2500] = {0}", "0", "1",
    ),
    "the type of an array": ("import numpy as np\nthing = np.zeros(3, {0})", "'f4'", "'i4'"),
    "the shape of an array": ("import numpy as np\nthing = np.zeros({0})", "(2, 3)", "(3, 2)"),
    "the mask of an array": (
        "import numpy as np\nthing = np.ma.array([1, 2], mask=[0, {0}])", "0", "1",
    ),
    "a number in a tensor": (
        "import torch\nthing = torch.zeros(5000)\nthing[2500] = {0}", "0", "1",
    ),
    "the shape of a tensor": ("import torch\nthing = torch.zeros({0})", "2, 3", "3, 2"),
    "the type of a tensor": ("import torch\nthing = torch.zeros(3, dtype={0})",
                             "torch.float32", "torch.int32"),
    "a hook of a tensor": (
        "import torch\nthing = torch.zeros(3, requires_grad=True)\n"
        "thing.register_hook(lambda g: {0} * g)", "1", "2",
    ),
    "zero and minus zero": ("thing = {0}", "0.0", "-0.0"),
    "zero and NaN": ("thing = {0}", "0.0", "float('nan')"),
    "NumPy's and Python's numbers": ("import numpy as np\nthing = {0}", "0.5", "np.float32(0.5)"),
    "a type": ("import torch\nthing = {0}", "torch.float32", "torch.bfloat16"),
    "a device": ("import torch\nthing = torch.device({0})", "'cpu'", "'cuda:1'"),
    "a size and a tuple": ("import torch\nthing = {0}", "torch.Size([1])", "(1,)"),
    "the state of a torch generator": (
        "import torch\nthing = torch.Generator().manual_seed({0})", "1", "2",
    ),
    "how far a torch generator has drawn": (
        "import torch\nthing = torch.Generator().manual_seed(0)\n"
        "torch.rand({0}, generator=thing)", "0", "1",
    ),
    "the state of a NumPy generator": (
        "import numpy as np\nthing = np.random.default_rng({0})", "1", "2",
    ),
    "the state of Python's generator": ("import random\nthing = random.Random({0})", "1", "2"),
    "a path": ("from pathlib import Path\nthing = Path('a', {0})", "'b'", "'c'"),
    "a path and a text": ("from pathlib import Path\nthing = {0}", "'b'", "Path('b')"),
    "a set": ("thing = {{'a', 'b', {0}}}", "'c'", "'d'"),
    "keys 1 and '1'": ("thing = {{{0}: 0}}", "1", "'1'"),
    "a tuple and a list": ("thing = {0}", "(1, 2)", "[1, 2]"),
    "where a list ends": ("thing = {0}", "[[1], 2]", "[[1, 2]]"),
    "bytes and a text": ("thing = {0}", "'a'", "b'a'"),
    "None and a text": ("thing = {0}", "None", "'None'"),
    "the factory of a defaultdict": (
        "from collections import defaultdict\nthing = defaultdict({0})", "int", "float",
    ),
    "a list that is met twice": ("a = [1]\nthing = [a, {0}]", "a", "[1]"),
    # networks
    "an activation": (MODULE, "self.act = nn.ReLU()", "self.act = nn.GELU()"),
    "how an activation is approximated": (
        MODULE, "self.act = nn.GELU()", "self.act = nn.GELU(approximate='tanh')",
    ),
    "a function on a network": (
        MODULE, "self.act = nn.functional.relu", "self.act = nn.functional.silu",
    ),
    "a lambda on a network": (MODULE, "self.act = lambda x: x", "self.act = lambda x: 2 * x"),
    "a list on a network": (MODULE, "self.widths = [1, 2]", "self.widths = [2, 1]"),
    "a hidden attribute of a network": (MODULE, "self._width = 1", "self._width = 2"),
    "a buffer that is not saved": (
        MODULE,
        "self.register_buffer('b', nn.init.ones_(self.layer.bias.data.clone()), persistent=False)",
        "self.register_buffer('b', self.layer.bias.data.clone(), persistent=False)",
    ),
    "what asks for a gradient": (
        MODULE, "self.layer.bias.requires_grad_(True)", "self.layer.bias.requires_grad_(False)",
    ),
    "the mode of a module": (MODULE, "self.layer.train()", "self.layer.eval()"),
    "a hook": (
        MODULE,
        "self.layer.register_forward_hook(lambda m, i, o: o)",
        "self.layer.register_forward_hook(lambda m, i, o: 2 * o)",
    ),
    "a hook before": (
        MODULE,
        "self.layer.register_forward_pre_hook(lambda m, i: None)",
        "self.layer.register_forward_pre_hook(lambda m, i: (2 * i[0],))",
    ),
    "a hook with keywords": (
        MODULE,
        "self.layer.register_forward_hook(lambda *a: None)",
        "self.layer.register_forward_hook(lambda *a: None, with_kwargs=True)",
    ),
    "a parametrisation": (
        MODULE,
        "nn.utils.parametrize.register_parametrization(self.layer, 'weight', nn.Tanh())",
        "nn.utils.parametrize.register_parametrization(self.layer, 'weight', nn.Sigmoid())",
    ),
    "layers that are one and layers that are equal": (
        MODULE,
        "self.last = self.layer",
        "import copy; self.last = copy.deepcopy(self.layer)",
    ),
    "weights that are one and weights that are equal": (
        MODULE,
        "self.last = self.layer.weight.data",
        "self.last = self.layer.weight.data.clone()",
    ),
    "a traced graph": (
        "import torch\nclass Act(torch.nn.Module):\n    def forward(self, x): return torch.{0}(x)\n"
        "thing = torch.fx.symbolic_trace(Act())", "sin", "cos",
    ),
    # batches
    "the images of batches": (
        "import torch\nthing = [(torch.full((2, 1), {0}), torch.zeros(2))]", "1.0", "2.0",
    ),
    "the size of batches": (LOADER, "2", "4"),
    "whether batches are shuffled": (LOADER, "2, shuffle=True", "2, shuffle=False"),
    "the generator of a loader": (
        LOADER,
        "2, shuffle=True, generator=torch.Generator().manual_seed(1)",
        "2, shuffle=True, generator=torch.Generator().manual_seed(2)",
    ),
    "how batches are put together": (
        LOADER, "2, collate_fn=lambda batch: batch", "2, collate_fn=lambda batch: batch[:1]",
    ),
    "a data set of one's own": (
        "class Data:\n    def __len__(self): return 8\n    def __getitem__(self, i): return {0}\n"
        "thing = Data()", "1", "2",
    ),
}  # fmt: skip


def run(cell: str, value: str) -> Any:
    """What a cell defines as `thing`, in a notebook of its own."""
    notebook = types.ModuleType("__main__")
    source = textwrap.dedent(cell).format(value)
    exec(compile(source, "<cell>", "exec"), vars(notebook))
    return vars(notebook)["thing"]


if __name__ == "__main__":
    for what, (cell, *values) in CELLS.items():
        print(what, *(name_of(thing=run(cell, value)) for value in values))
