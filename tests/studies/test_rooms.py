"""Method rooms hold methods: no preset, no loop over seeds, no data set's name, no claim."""

import ast
import importlib
from pathlib import Path

import pytest

import smallnets
from smallnets.data import names
from smallnets.studies.study import StudySettings

LIBRARY = Path(smallnets.__file__).parent
ROOMS = ("distill", "prune", "search", "gan", "quantize", "structure", "synthesize")
STUDIES = (
    "condense",
    "similarity",
    "fidelity",
    "matching",
    "importance",
    "lana",
    "landscape",
    "layered",
    "genie",
    "replay",
    "single_image",
)
SCALES = {"smoke", "small", "paper", "evidence"}
# Methods that are many trainings themselves: a protocol of evaluation, a search over networks.
MANY = {f"synthesize/condense/{name}.py" for name in ("evaluation", "search")}
HOLD_METHODS = (*ROOMS, "deploy", "remedies")
FILES = [path for room in HOLD_METHODS for path in sorted((LIBRARY / room).rglob("*.py"))]


def faults(source: str) -> list[str]:
    """What a method's module has of our experiments."""
    tree = ast.parse(source)
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    texts = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in documentation
    }
    found = [f"data set {name}" for name in names() if name in texts]
    if len(SCALES & texts) > 1:
        found.append("presets by scale")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            said = {alias.name for alias in node.names}
            if (node.module or "").startswith(("smallnets.studies", "smallnets.book")):
                found.append(f"import of {node.module}")
            if said & {"load", "run_parallel", "for_seeds"} and (node.module or "").startswith(
                ("smallnets.data", "smallnets.training")
            ):
                found.append(f"import of {', '.join(sorted(said))}")
        if isinstance(node, ast.For | ast.comprehension) and isinstance(node.iter, ast.Call):
            over = ast.unparse(node.iter)
            if over.startswith("range(") and "seeds" in over:
                found.append("a loop over seeds")
        if isinstance(node, ast.Name) and node.id in ("PRESETS", "Claim", "StudySettings"):
            found.append(node.id)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_method_rooms_hold_methods(path):
    many = path.relative_to(LIBRARY).as_posix() in MANY
    found = [one for one in faults(path.read_text()) if not (many and "run_parallel" in one)]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "from smallnets.data import load",
        "from smallnets.training import run_parallel",
        "from smallnets.studies.study import open_study",
        'x = take("glyphs10")',
        'SIZES = {"smoke": 1, "small": 2}',
        "PRESETS = {}",
        "results = [train(seed) for seed in range(settings.seeds)]",
        "for seed in range(seeds):\n    train(seed)",
    ],
)
def test_what_belongs_to_studies_is_noticed(source):
    assert faults(source)


@pytest.mark.parametrize("name", STUDIES)
def test_studies_have_one_shape(name):
    study = importlib.import_module(f"smallnets.studies.{name}")
    assert set(study.PRESETS) == SCALES
    assert all(isinstance(one, study.Settings) for one in study.PRESETS.values())
    assert issubclass(study.Settings, StudySettings)
    dataset, settings = study.prepare("digits", "smoke", study.Options(seeds=1, train=200))
    assert settings.train == len(dataset.y_train) == 200
    assert settings.seeds == 1
    sources = [*(LIBRARY / "studies" / name).glob("*.py")]
    assert {"plan.py", "experiments.py"} <= {path.name for path in sources}
    assert not [path for path in sources if "def main" in path.read_text()]


@pytest.mark.parametrize("room", HOLD_METHODS)
def test_rooms_lead_to_their_methods(room):
    package = importlib.import_module(f"smallnets.{room}")
    methods = getattr(package, "__all__", None) or dir(package)
    assert methods
    for entry in methods:
        method = getattr(package, entry)
        assert (callable(method) and method.__doc__) or entry.isupper(), entry
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing
