"""What is stored: whole runs, fresh, tidy, and described for those who cannot see the figures."""

import ast
import json
import re

import pytest

from smallnets.book.freshness import hashes, stale

pytestmark = pytest.mark.chapters
TAGS = {
    "parameters",
    "claims",
    "remove-cell",
    "hide-input",
    "hide-output",
    "solution",
    "exercise",
}


def code_cells(cells):
    return [cell for cell in cells if cell["cell_type"] == "code"]


def text_of(cell):
    return "".join(cell["source"])


def outputs(cells):
    return [output for cell in code_cells(cells) for output in cell["outputs"]]


def test_outputs_come_from_the_code_beside_them(notebook):
    record = json.loads(notebook.with_suffix(".record.json").read_text())
    assert stale(record, notebook) == [], f"make chapters N={record['chapter']}"
    assert record["scale"] == "small"
    assert len(record["hashes"]) > 10
    assert {"processor", "instructions", "bfloat16", "torch"} == set(record["arithmetic"])


def test_a_run_with_two_workers_takes_little_memory(notebook):
    record = json.loads(notebook.with_suffix(".record.json").read_text())
    assert record["cores"] == 2
    assert 100 < record["peak_memory_mb"] < 2048


def test_a_changed_cell_or_library_file_is_noticed(notebook, tmp_path):
    record = json.loads(notebook.with_suffix(".record.json").read_text())
    changed = json.loads(notebook.read_text())
    code_cells(changed["cells"])[1]["source"].append("\n# changed")
    (tmp_path / "chapters").mkdir()
    copy = tmp_path / "chapters" / notebook.name
    copy.write_text(json.dumps(changed))
    assert "code cells" in stale(record, copy)
    other = {**record, "hashes": {**record["hashes"], "smallnets/checks.py": "0" * 64}}
    assert stale(other, notebook) == ["smallnets/checks.py"]
    assert set(hashes(notebook, record["imports"])) == set(record["hashes"])


def test_cells_were_run_once_from_top_to_bottom(cells):
    counts = [cell["execution_count"] for cell in code_cells(cells)]
    assert counts == list(range(1, len(counts) + 1))


def test_something_is_stored_to_be_compared(cells):
    shown = [cell for cell in code_cells(cells) if cell["outputs"]]
    assert len(shown) >= 10
    assert all(
        output.get("data") or output.get("text") for cell in shown for output in cell["outputs"]
    )


def test_no_output_is_an_error_a_warning_or_a_bar(cells):
    for output in outputs(cells):
        assert output["output_type"] != "error"
        assert output.get("name") != "stderr", output.get("text")


def test_no_output_tells_of_this_machine_or_is_huge(cells):
    for output in outputs(cells):
        text = json.dumps(output)
        assert not re.search(r"(?<![\w.<])/(home|root|usr|tmp|opt|work|Users)/", text)
        assert "site-packages" not in text
        assert len(text) < 1_000_000


def test_every_figure_has_a_description_a_caption_and_a_name(cells):
    names = []
    for cell in code_cells(cells):
        if any("image/svg+xml" in output.get("data", {}) for output in cell["outputs"]):
            shown = cell["metadata"]["mystnb"]
            assert len(shown["image"]["alt"]) > 40
            assert len(shown["figure"]["caption"]) > 20
            names.append(shown["figure"]["name"])
    assert len(names) >= 3
    assert len(set(names)) == len(names)


def test_parameters_are_one_tagged_cell_with_the_common_ones(cells):
    (tagged,) = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
    names = {target.id for node in ast.parse(text_of(tagged)).body for target in node.targets}
    assert names >= {"dataset", "scale", "seeds", "device", "precision", "output_dir"}
    assert 'scale = "small"' in text_of(tagged)


def test_commands_that_a_chapter_prints_give_parameters_that_it_has(cells):
    (tagged,) = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
    names = {target.id for node in ast.parse(text_of(tagged)).body for target in node.targets}
    prose = "\n".join(text_of(cell) for cell in cells if cell["cell_type"] == "markdown")
    given = re.findall(r"(?<=\s-p )\w+(?=[= ])", prose)
    assert given
    assert set(given) <= names


def test_cells_are_short_tagged_as_agreed_and_define_no_class(cells):
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        assert set(cell["metadata"].get("tags", [])) <= TAGS
    for cell in code_cells(cells):
        source = text_of(cell)
        assert len(source.splitlines()) <= 30, cell["id"]
        if "%pip" in source:
            assert 'if "google.colab" in sys.modules' in source
            continue
        for node in ast.walk(ast.parse(source)):
            assert not isinstance(node, ast.ClassDef), cell["id"]
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 15, cell["id"]


def test_chapters_import_the_library_and_little_else(cells):
    allowed = {"smallnets", "dataclasses", "sys", "matplotlib", "numpy", "torch", "torchvision"}
    allowed |= {"IPython", "pandas"}  # sentences with numbers of the run, and tables
    imported = set()
    for cell in code_cells(cells):
        if "%pip" not in text_of(cell):
            for node in ast.walk(ast.parse(text_of(cell))):
                if isinstance(node, ast.Import):
                    imported |= {name.name.split(".")[0] for name in node.names}
                if isinstance(node, ast.ImportFrom):
                    imported.add(node.module.split(".")[0])
    assert imported <= allowed


def test_every_solution_is_hidden_and_every_exercise_has_one(cells):
    text = "\n".join(text_of(cell) for cell in cells if cell["cell_type"] == "markdown")
    exercises = set(re.findall(r"\{exercise\}\n:label: ([\w-]+)", text))
    solutions = set(re.findall(r"\{solution\} ([\w-]+)\n:class: dropdown", text))
    assert exercises == solutions
    assert len(exercises) >= 3


def test_metadata_is_the_same_for_everyone(notebook):
    metadata = json.loads(notebook.read_text())["metadata"]
    assert metadata["kernelspec"]["name"] == "python3"
    assert "papermill" not in json.dumps(metadata)
    assert "version" not in metadata["language_info"]
