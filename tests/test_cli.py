import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from smallnets.cli import parse_parameter, sheet

ROOT = Path(__file__).parents[1]


def smallnets(*arguments, cwd=ROOT, **environment):
    command = [sys.executable, "-c", "from smallnets.cli import main; main()", *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )


@pytest.fixture
def workplace(tmp_path):
    """A folder with a chapter 02 of three cells that writes a record as a chapter does."""
    code = nbformat.v4.new_code_cell
    cells = [
        code(
            'scale = "small"\nseeds = 2\noutput_dir = "runs"\ndataset = "x"\nverdict = "partly"',
            metadata={"tags": ["parameters"]},
        ),
        code(
            "import json, pathlib\n"
            "claims = [{'claim': 'It works', 'verdict': verdict, 'comparisons': []}]\n"
            "record = {'chapter': '02', 'scale': scale, 'imports': ['checks.py'], 'seeds': seeds,\n"
            "          'dataset': 'npz:photos.npz', 'claims': claims}\n"
            "folder = pathlib.Path(output_dir)\n"
            "file = folder / '02_similarity_preserving.record.json'\n"
            "_ = file.write_text(json.dumps(record))"
        ),
        code("21 * seeds"),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    (tmp_path / "chapters").mkdir()
    nbformat.write(notebook, tmp_path / "chapters" / "02_similarity_preserving.ipynb")
    return tmp_path


def test_list_names_all_chapters_and_their_state():
    lines = smallnets("list").stdout.splitlines()
    assert len(lines) == 12
    for line in lines:
        number, state = line.split()[:2]
        there = any((ROOT / "chapters").glob(f"{number}_*.ipynb"))
        assert state == ("written" if there else "planned"), line


def test_run_stores_outputs_and_a_record_that_is_fresh(workplace):
    import json

    from smallnets.book.freshness import stale

    notebook = workplace / "chapters" / "02_similarity_preserving.ipynb"
    before = nbformat.read(notebook, as_version=4)
    done = smallnets("run", "02", "--store", cwd=workplace)
    assert done.returncode == 0, done.stderr
    after = nbformat.read(notebook, as_version=4)
    assert [cell.source for cell in after.cells] == [cell.source for cell in before.cells]
    assert [cell.execution_count for cell in after.cells] == [1, 2, 3]
    assert after.cells[2].outputs[0].data["text/plain"] == "42"
    assert after.cells[2].outputs[0].execution_count == 3
    assert "papermill" not in notebook.read_text(encoding="utf-8")
    record = json.loads(notebook.with_suffix(".record.json").read_text(encoding="utf-8"))
    assert record["command"] == "smallnets run 02 --scale small"
    assert stale(record, notebook) == []


def test_an_error_of_a_chapter_is_one_line(workplace):
    notebook = workplace / "chapters" / "02_similarity_preserving.ipynb"
    cells = nbformat.read(notebook, 4)
    cells.cells[-1].source = "raise ValueError('seeds must be odd; got 2')"
    nbformat.write(cells, notebook)
    done = smallnets("run", "2", cwd=workplace)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "smallnets: seeds must be odd; got 2"
    assert "Traceback" not in done.stderr


WITHOUT_NOTEBOOKS = """
import importlib, pkgutil, sys
for absent in ("papermill", "nbformat", "ipykernel"):
    sys.modules[absent] = None
import smallnets
for module in pkgutil.walk_packages(smallnets.__path__, "smallnets."):
    if module.name != "smallnets.book.execution":
        importlib.import_module(module.name)
from smallnets.cli import main
main()
"""


def test_without_the_extra_notebooks_all_but_running_a_chapter_works():
    def call(*arguments):
        command = [sys.executable, "-c", WITHOUT_NOTEBOOKS, *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=300)

    listed, ran = call("list"), call("run", "02")
    assert listed.returncode == 0, listed.stderr
    assert len(listed.stdout.splitlines()) == 12
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert line.endswith("running a chapter needs nbformat: pip install 'smallnets[notebooks]'")


def test_words_for_truth_are_read_in_any_case():
    assert parse_parameter("flips=false") == ("flips", False)
    assert parse_parameter("flips=True") == ("flips", True)
    assert parse_parameter("train=none") == ("train", None)
    assert parse_parameter("dataset=npz:~/x.npz")[1] == f"npz:{Path.home()}/x.npz"


def test_run_passes_parameters_and_keeps_results(workplace):
    import json

    given = ("-p", "seeds=5", "-p", "dataset=my own")
    done = smallnets("run", "2", *given, "--scale", "smoke", "--result", "r", cwd=workplace)
    assert done.returncode == 0, done.stderr
    record = json.loads((workplace / "book" / "results" / "r.json").read_text(encoding="utf-8"))
    assert (record["seeds"], record["scale"]) == (5, "smoke")
    assert record["command"] == "smallnets run 02 --scale smoke -p seeds=5 -p dataset='my own'"
    executed = nbformat.read(
        workplace / "runs" / "02_similarity_preserving" / "02_similarity_preserving.ipynb", 4
    )
    assert executed.cells[-1].outputs[0].data["text/plain"] == "105"


def git(folder, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_evidence_is_stored_with_its_commit_and_what_was_said_before(workplace):
    """The notebook stays as it is, and what is not committed is not run."""
    import json

    from smallnets.book.execution import commit

    git(workplace, "init", "-q")
    git(workplace, "add", "chapters")
    git(workplace, "commit", "-q", "-m", "claims")
    notebook = workplace / "chapters" / "02_similarity_preserving.ipynb"
    before = notebook.read_bytes()
    evidence = ("run", "02", "--scale", "evidence", "--store")
    done = smallnets(*evidence, "-p", "dataset=npz:photos.npz", cwd=workplace)
    assert done.returncode == 0, done.stderr
    path = workplace / "book" / "results" / "02-photos-evidence.json"
    assert str(path.relative_to(workplace)) in done.stdout
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["commit"] == git(workplace, "rev-parse", "HEAD") == commit(workplace)
    assert record["command"] == "smallnets run 02 --scale evidence -p dataset=npz:photos.npz"
    assert (record["scale"], record["history"]) == ("evidence", [])
    assert notebook.read_bytes() == before
    notebook.write_bytes(before.replace(b"partly", b"reproduced"))
    refused = smallnets(*evidence, cwd=workplace)
    assert refused.returncode == 2
    assert f"commit chapters/{notebook.name} first" in refused.stderr
    git(workplace, "commit", "-q", "-a", "-m", "other claims")
    assert smallnets(*evidence, cwd=workplace).returncode == 0
    again = json.loads(path.read_text(encoding="utf-8"))
    assert again["claims"][0]["verdict"] == "reproduced"
    (old,) = again["history"]
    assert old["claims"] == [{"claim": "It works", "verdict": "partly"}]
    assert old["commit"] == record["commit"] != again["commit"]


def test_a_chapter_that_is_stored_again_keeps_what_was_said_before(workplace):
    import json

    notebook = workplace / "chapters" / "02_similarity_preserving.ipynb"
    path = notebook.with_suffix(".record.json")
    old = {"claims": [{"claim": "It works", "verdict": "partly", "rule": "earlier"}]}
    path.write_text(json.dumps(old), encoding="utf-8")
    done = smallnets("run", "02", "--store", cwd=workplace)
    assert done.returncode == 0, done.stderr
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["commit"] is None, "outside of a repository"
    refused = smallnets("run", "02", "--scale", "evidence", "--store", cwd=workplace)
    assert "evidence is stored for what is committed; there is no repository" in refused.stderr
    assert record["history"] == [
        {"rules": ["earlier"], "claims": [{"claim": "It works", "verdict": "partly"}]}
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "13"], "chapter must be one of 01, 02,"),
        (["run", "03"], "chapter 03 is not written"),
        (
            ["run", "02", "-p", "sedes=3"],
            "has the parameters scale, seeds, output_dir, dataset, verdict; got sedes",
        ),
        (
            ["run", "02", "--store", "--scale", "evidence", "-p", "seeds=3"],
            "must be one of dataset, flips, old_classes, speech, train, device, precision; got",
        ),
        (
            ["run", "02", "-p", "seeds=[1"],
            "seeds must be a list such as [0, 1] or ['a', 'b']; got '[1'",
        ),
        (["run", "02", "-p", "seeds=(1)"], "seeds must be a list such as"),
        (["run", "02", "-p", "seeds"], "a parameter must be NAME=VALUE; got 'seeds'"),
        (["run", "02", "--store", "--scale", "smoke"], "--store keeps what the chapter's own"),
        (["run", "--chapters", "nowhere"], "no chapter found in nowhere"),
        (["data", "cats"], "dataset must be one of glyphs10,"),
        (["data", "npz:nowhere.npz"], "nowhere.npz"),
    ],
)
def test_errors_are_one_line(workplace, arguments, message):
    done = smallnets(*arguments, cwd=workplace)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_failing_chapter_fails_the_command_and_keeps_its_notebook(workplace):
    notebook = workplace / "chapters" / "02_similarity_preserving.ipynb"
    broken = nbformat.read(notebook, as_version=4)
    broken.cells[2].source = "1 / 0"
    nbformat.write(broken, notebook)
    done = smallnets("run", "02", cwd=workplace)
    assert done.returncode != 0
    assert "ZeroDivisionError" in done.stderr
    assert (workplace / "runs" / "02_similarity_preserving" / notebook.name).exists()


def test_data_lists_names_and_describes_a_set(tmp_path):
    assert "glyphs10" in smallnets("data").stdout.split()
    done = smallnets("data", "digits", "--picture", tmp_path / "sheet.png")
    assert "1437 training and 360 test images" in done.stdout
    assert (tmp_path / "sheet.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("a=3", 3),
        ("a=0.5", 0.5),
        ("a=True", True),
        ("a=None", None),
        ("a=[0, 8, 1]", [0, 8, 1]),
        ("a=(0, 1)", [0, 1]),
        ("a=['x', 'y']", ["x", "y"]),
        ("a=npz:x=y.npz", f"npz:{Path.cwd() / 'x=y.npz'}"),
        ("a=npz:/x/y.npz", "npz:/x/y.npz"),
        ("a=file:x.jpg", f"file:{Path.cwd() / 'x.jpg'}"),
    ],
)
def test_values_are_read_as_what_they_look_like(pair, value):
    assert parse_parameter(pair) == ("a", value)


PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_a_chapter_runs_in_any_folder_and_locale_and_with_a_relative_cache(workplace):
    notebook = workplace / "chapters" / "02_similarity_preserving.ipynb"
    cells = nbformat.read(notebook, 4)
    cells.cells[
        -1
    ].source = "from smallnets.storage import cache_directory\nstr(cache_directory())  # τ"
    nbformat.write(cells, notebook)
    folder = workplace / "a {b} 50 % #1 {"
    folder.mkdir()
    (workplace / "chapters").rename(folder / "chapters {c}")
    done = smallnets(
        "run", "02", "--chapters", "chapters {c}", "--output-dir", "out{a}", "--result", "r",
        cwd=folder, SMALLNETS_CACHE="kept {d}", **PLAIN,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    executed = nbformat.read(folder / "out{a}" / "02_similarity_preserving" / notebook.name, 4)
    assert executed.cells[-1].outputs[0].data["text/plain"] == repr(str(folder / "kept {d}"))
    assert (folder / "book" / "results" / "r.json").exists()


def test_a_data_set_that_reads_as_a_number_or_none_is_refused_in_one_line(workplace):
    notebook = workplace / "chapters" / "02_similarity_preserving.ipynb"
    cells = nbformat.read(notebook, 4)
    cells.cells[0].source += "\ndataset = 'digits'"
    cells.cells[1].source = "from smallnets.data import load\nload(dataset)"
    nbformat.write(cells, notebook)
    for given, shown in (("10", "10"), ("none", "None")):
        done = smallnets("run", "02", "-p", f"dataset={given}", cwd=workplace)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].endswith(f"; got {shown}")
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("count", "shape", "expected"),
    [
        (1, (3, 4, 5), (4, 5, 3)),
        (6, (3, 4, 5), (4, 30, 3)),
        (10, (1, 4, 5), (4, 50)),
        (37, (3, 4, 5), (12, 50, 3)),
        (3, (1, 1, 1), (1, 3)),
    ],
)
def test_a_sheet_has_rows_of_ten_or_one_of_all(count, shape, expected):
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(count, *shape)
    made = sheet(images)
    assert made.shape == expected
    assert made.ravel()[0] == 0
    assert made.ravel()[-1] == (count if count < 10 else count // 10 * 10) - 1


def test_a_picture_of_a_few_grey_images(tmp_path):
    x = np.full((6, 8, 8), 100, np.uint8)
    y = np.arange(6) % 3
    names = np.array(["größe", "τ", "c"])
    np.savez(tmp_path / "few{1}.npz", x_train=x, y_train=y, x_test=x, y_test=y, class_names=names)
    done = smallnets("data", "npz:few{1}.npz", "--picture", "few{2}.png", cwd=tmp_path, **PLAIN)
    assert done.returncode == 0, done.stderr
    from matplotlib.image import imread

    assert np.allclose(imread(tmp_path / "few{2}.png")[..., :3], 100 / 255, atol=1e-3)


def test_without_a_home_folder_the_command_ends_in_one_line(tmp_path):
    code = (
        "import pathlib\n"
        "def nowhere():\n    raise RuntimeError\n"
        "pathlib.Path.home = staticmethod(nowhere)\n"
        "from smallnets.cli import main\nmain()"
    )
    environment = {name: value for name, value in os.environ.items() if name != "SMALLNETS_CACHE"}
    command = [sys.executable, "-c", code, "data", "glyphs10"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", timeout=300
    )
    assert done.returncode == 2
    assert "set SMALLNETS_CACHE to a folder" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_damaged_record_is_named_by_verify(workplace):
    for folder in ("runs/02_similarity_preserving", "chapters"):
        (workplace / folder).mkdir(parents=True, exist_ok=True)
        (workplace / folder / "02_similarity_preserving.record.json").write_bytes(b"{")
    done = smallnets("verify", "02", cwd=workplace)
    assert done.returncode == 2
    assert ".record.json is damaged: " in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_repetition_is_compared_with_the_stored_evidence(workplace):
    def write(outcomes, path):
        compared = [{"name": f"c{number}", "outcome": one} for number, one in enumerate(outcomes)]
        record = {"dataset": "glyphs10", "claims": [{"claim": "It works", "comparisons": compared}]}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record), encoding="utf-8")

    fresh = workplace / "runs/02_similarity_preserving/02_similarity_preserving.record.json"
    write(["holds"] * 6, workplace / "book/results/02-glyphs10-evidence.json")
    write(["open", *["holds"] * 5], fresh)
    done = smallnets("verify", "02", "--evidence", cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert "02: 1 of 6 comparisons moved" in done.stdout
    assert "It works / c0: holds became open" in done.stdout
    write(["fails", *["holds"] * 5], fresh)
    assert smallnets("verify", "02", "--evidence", cwd=workplace).returncode == 1


@pytest.fixture
def model(tmp_path):
    from torch import nn

    from smallnets.deploy.exporting import export_checked

    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5))
    export_checked(network, (3, 8, 8), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_measure_prints_layers_and_totals_of_a_file(model):
    done = smallnets("measure", model, "--batch", 2, "--rounds", 2)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[1:4] for line in lines[1:3]] == [
        ["Conv", "224", "7,776"],
        ["Gemm", "1,445", "1,440"],
    ]
    assert lines[3].split()[:3] == ["all", "1,669", "9,216"]
    assert lines[4] == f"{model.stat().st_size:,} bytes"
    assert lines[5].startswith("batch 2, threads 1: ")
    assert len(lines) == 6


def test_measure_refuses_what_is_no_model_in_one_line(tmp_path):
    (tmp_path / "text.onnx").write_text("no model")
    says_of = {"none.onnx": "cannot be read", "text.onnx": "must be a whole ONNX model"}
    for name, says in says_of.items():
        done = smallnets("measure", tmp_path / name)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith("smallnets: ")
        assert says in line
