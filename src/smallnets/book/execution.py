"""Executing a chapter, and storing what came out of it as the outputs that the book shows."""

import os
import subprocess
from pathlib import Path
from typing import Any

try:
    import nbformat
    import papermill
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"running a chapter needs {error.name}: pip install 'smallnets[notebooks]'", name=error.name
    ) from error

from smallnets.book.freshness import hashes, read_record, result_name, write_record
from smallnets.book.history import with_history
from smallnets.storage import atomic_path, cache_directory

KEPT_METADATA = ("kernelspec", "language_info")
# What is stored should not depend on the moment: no progress bars.
ENVIRONMENT = {"TQDM_DISABLE": "1", "PYTHONHASHSEED": "0"}


def execute(notebook: Path, folder: Path, parameters: dict[str, Any]) -> Path:
    """Run a chapter from top to bottom with papermill, and return the executed notebook in
    `folder`.

    Raises:
        ValueError: the chapter has no parameter of that name; the message lists those it has.
        papermill.PapermillExecutionError: a cell failed; the notebook up to there lies in `folder`.
    """
    known = papermill.inspect_notebook(_literal(notebook))
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise ValueError(
            f"{notebook.name} has the parameters {', '.join(known)}; got {', '.join(unknown)}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    executed = folder / notebook.name
    # The chapter runs in another folder, from which a relative one would be another.
    environment = {**ENVIRONMENT, "SMALLNETS_CACHE": str(cache_directory())}
    previous = {name: os.environ.get(name) for name in environment}
    os.environ |= environment
    try:
        papermill.execute_notebook(
            _literal(notebook),
            _literal(executed),
            {"output_dir": str(folder), **parameters},
            kernel_name="python3",
            cwd=str(notebook.parent),
            progress_bar=True,
            start_timeout=120,
        )
    finally:
        for name, value in previous.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    return executed


def _literal(path: Path) -> str:
    """A path for papermill, which would put parameters between its braces."""
    return str(path).replace("{", "{{").replace("}", "}}")


def completed_record(executed: Path, notebook: Path, **facts: str | None) -> dict[str, Any]:
    """The record that the run wrote, with the hashes of what it ran and further facts: its command
    and the commit.
    """
    record = read_record(executed.with_suffix(".record.json"), "imports")
    return {**record, **facts, "hashes": hashes(notebook, record["imports"])}


def commit(folder: Path) -> str | None:
    """The commit that is checked out in a folder, or None outside of a repository."""
    return _git(folder, "rev-parse", "HEAD")


def uncommitted(folder: Path) -> list[str]:
    """Files of code and chapters below the top of the repository that differ from its commit."""
    changes = _git(folder, "status", "--porcelain", "--", "src", "chapters", "requirements.lock")
    return [line.split(maxsplit=1)[1] for line in (changes or "").splitlines()]


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, encoding="utf-8"
        )
    except OSError:  # there is no git
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def store(executed: Path, notebook: Path, **facts: str | None) -> None:
    """Take outputs and execution counts into the chapter, and put its record beside it, with the
    verdicts of those before it.

    The chapter's own cells, parameters and metadata stay; what papermill added goes.
    """
    path = notebook.with_suffix(".record.json")
    record = with_history(completed_record(executed, notebook, **facts), path)
    source, run = (nbformat.read(path, as_version=4) for path in (notebook, executed))
    ran = {cell.id: cell for cell in run.cells}
    counts = iter(range(1, len(run.cells) + 1))
    for cell in source.cells:
        if cell.cell_type == "code":
            cell.outputs = [tidy(output) for output in ran[cell.id].outputs]
            cell.execution_count = next(counts)
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = cell.execution_count
    source.metadata = {key: source.metadata[key] for key in KEPT_METADATA if key in source.metadata}
    source.metadata.get("language_info", {}).pop("version", None)
    with atomic_path(notebook) as temporary:
        nbformat.write(source, temporary)
    write_record(record, path)


def tidy(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An output without the metadata that changes from run to run."""
    if output.output_type in ("display_data", "execute_result"):
        output.metadata = {
            key: value for key, value in output.metadata.items() if key != "papermill"
        }
    return output


def keep_result(executed: Path, notebook: Path, path: Path, **facts: str | None) -> None:
    """Keep the record of a long run among the book's results, with the verdicts of those that it
    replaces.
    """
    write_record(with_history(completed_record(executed, notebook, **facts), path), path)


def keep_evidence(executed: Path, notebook: Path, folder: Path, **facts: str | None) -> Path:
    """Keep the record of a run at the scale "evidence" in a folder, under the name that
    `smallnets.book.evidence` looks for.

    Returns:
        Its path.
    """
    record = read_record(executed.with_suffix(".record.json"), "chapter", "dataset")
    path = folder / f"{result_name(record['chapter'], record['dataset'])}.json"
    keep_result(executed, notebook, path, **facts)
    return path
