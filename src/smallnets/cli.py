"""The command line: a thin layer over papermill, which works on the chapters directly as well."""

import ast
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smallnets import checks
from smallnets.book.catalogue import CHAPTERS, Chapter, chapter
from smallnets.storage import one_line, user_path

if TYPE_CHECKING:
    import numpy
    import torch

# What evidence may be asked for: the data, and how the machine counts.
OF_DATA = ("dataset", "flips", "old_classes", "speech", "train", "device", "precision")
OF_FILES = ("npz", "file")  # "npz:FILE": arrays, "file:FILE": a picture
REFUSED = (
    "ValueError",
    "OSError",
    "FileNotFoundError",
    "PermissionError",
    "NotADirectoryError",
    "IsADirectoryError",
    "ConnectionError",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Run the chapters of Small Networks and look at their data."""


def main() -> None:
    """Entry point: errors in what was asked for are one line, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a letter that a terminal lacks ends no command
            stream.reconfigure(errors="replace")
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except (ValueError, OSError) as error:
        click.echo(f"smallnets: {one_line(error)}", err=True)
        sys.exit(2)
    except Exception as error:
        # Of a chapter that refused what it was given: its own error says what was wrong.
        if getattr(error, "ename", None) not in REFUSED:
            raise
        click.echo(f"smallnets: {error.evalue}", err=True)  # type: ignore[attr-defined]
        sys.exit(2)


@cli.command("list")
@click.option("--chapters", "folder", default="chapters", help="Folder with the notebooks.")
def list_chapters(folder: str) -> None:
    """List the twelve chapters and which of them can be run."""
    for one in CHAPTERS:
        state = "written" if (Path(folder) / one.notebook).exists() else "planned"
        click.echo(f"{one.number}  {state:8}{one.part:15}{one.title}")


@cli.command()
@click.argument("numbers", nargs=-1)
@click.option(
    "--scale", default="small", show_default=True, help="smoke, small, evidence or paper."
)
@click.option(
    "-p", "--parameter", "pairs", multiple=True, metavar="NAME=VALUE", help="A chapter's parameter."
)
@click.option(
    "--chapters", "folder", default="chapters", show_default=True, help="Folder with the notebooks."
)
@click.option(
    "--output-dir",
    default="runs",
    show_default=True,
    help="Executed notebooks and their records.",
)
@click.option(
    "--store",
    is_flag=True,
    help="Write outputs and record back into the chapters' folder; of evidence, its record into "
    "book/results.",
)
@click.option("--result", metavar="NAME", help="Keep the record as book/results/NAME.json.")
def run(
    numbers: tuple[str, ...],
    scale: str,
    pairs: tuple[str, ...],
    folder: str,
    output_dir: str,
    store: bool,
    result: str | None,
) -> None:
    """Execute chapters (all that are written, unless NUMBERS such as 02 are given)."""
    from smallnets.book.freshness import shown

    try:
        from smallnets.book import execution
    except ModuleNotFoundError as error:  # says in one line what to install
        raise ValueError(error) from error

    parameters = dict(map(parse_parameter, pairs))
    results = Path(folder).parent / "book" / "results"
    if store:
        check_storing(scale, list(parameters))
    changed = execution.uncommitted(Path(folder).parent)
    commit = None if changed else execution.commit(Path(folder).parent)  # a later one does not run
    if store and scale == "evidence" and commit is None:
        missing = f"commit {', '.join(changed)} first" if changed else "there is no repository"
        raise ValueError(f"evidence is stored for what is committed; {missing}")
    for one in written_chapters(numbers, Path(folder)):
        notebook = Path(folder) / one.notebook
        began = time.monotonic()
        executed = execution.execute(
            notebook, Path(output_dir).resolve() / one.stem, {"scale": scale, **parameters}
        )
        click.echo(f"{one.number}: {time.monotonic() - began:.0f} s, {os.path.relpath(executed)}")
        given = [
            f"-p {name}={shlex.quote(shown(str(value)))}" for name, value in parameters.items()
        ]
        command = " ".join(["smallnets run", one.number, "--scale", scale, *given])
        facts = {"command": command, "commit": commit}
        if store and scale == "evidence":
            kept = execution.keep_evidence(executed, notebook, results, **facts)
            click.echo(f"    {os.path.relpath(kept)}")
        elif store:
            execution.store(executed, notebook, **facts)
        if result:
            execution.keep_result(executed, notebook, results / f"{result}.json", **facts)


def check_storing(scale: str, given: list[str]) -> None:
    """Raise ValueError where --store would keep another run than the one that a reader expects."""
    if scale == "evidence":
        for name in given:
            checks.one_of("-p with --store --scale evidence", name, OF_DATA)
    elif scale != "small" or given:
        raise ValueError(
            "--store keeps what the chapter's own parameters give: no -p, --scale small or evidence"
        )


@cli.command()
@click.argument("numbers", nargs=-1)
@click.option(
    "--chapters", "folder", default="chapters", show_default=True, help="Folder with the notebooks."
)
@click.option(
    "--output-dir", default="runs", show_default=True, help="Where the runs left their records."
)
@click.option(
    "--evidence",
    is_flag=True,
    help="Compare verdicts with the stored evidence on the same data: other seeds, any processor.",
)
def verify(numbers: tuple[str, ...], folder: str, output_dir: str, evidence: bool) -> None:
    """Compare the records of fresh runs with those stored beside the chapters.

    Exits with 1 if a measurement is not confirmed, and prints which.
    """
    from smallnets.book.freshness import read_record
    from smallnets.book.verify import flattened, problems

    if evidence:
        repeated(numbers, Path(folder), Path(output_dir))
        return
    confirmed = True
    for one in written_chapters(numbers, Path(folder)):
        notebook = Path(folder) / one.notebook
        paths = (
            Path(output_dir) / one.stem / f"{one.stem}.record.json",
            notebook.with_suffix(".record.json"),
        )
        for path in paths:
            if not path.exists():
                raise ValueError(f"{path} does not exist: run chapter {one.number} first")
        fresh, stored = (read_record(path, "measurements") for path in paths)
        found = problems(fresh, stored)
        confirmed &= not found
        same = fresh.get("arithmetic") == stored.get("arithmetic")
        count = len(list(flattened(stored["measurements"])))
        click.echo(
            f"{one.number}: {count} measurements, in {'the same' if same else 'another'} "
            f"arithmetic: {f'{len(found)} not confirmed' if found else 'confirmed'}"
        )
        for line in found:
            click.echo(f"    {line}")
    if not confirmed:
        sys.exit(1)


def repeated(numbers: tuple[str, ...], folder: Path, output_dir: Path) -> None:
    """Compare the verdicts of fresh runs with those of the stored evidence; exit with 1 if they
    disagree.
    """
    from smallnets.book import history
    from smallnets.book.freshness import read_record, result_name

    agreed = True
    for one in written_chapters(numbers, folder):
        fresh = read_record(output_dir / one.stem / f"{one.stem}.record.json", "claims")
        name = f"{result_name(one.number, fresh['dataset'])}.json"
        stored = read_record(folder.parent / "book" / "results" / name, "claims")
        moved, against = history.moves(stored, fresh), history.disagreements(stored, fresh)
        agreed &= not against
        count = sum(len(claim["comparisons"]) for claim in stored["claims"])
        click.echo(f"{one.number}: {len(moved)} of {count} comparisons moved")
        for comparison, (before, after) in moved.items():
            click.echo(f"    {comparison}: {before} became {after}")
    if not agreed:
        sys.exit(1)


def written_chapters(numbers: tuple[str, ...], folder: Path) -> list[Chapter]:
    """The chapters asked for, or all that have a notebook in `folder`."""
    chosen = [chapter(number) for number in numbers] or [
        one for one in CHAPTERS if (folder / one.notebook).exists()
    ]
    for one in chosen:
        if not (folder / one.notebook).exists():
            raise ValueError(
                f"chapter {one.number} is not written: {folder / one.notebook} does not exist"
            )
    if not chosen:
        raise ValueError(
            f"no chapter found in {folder}; use --chapters to name the folder with the notebooks"
        )
    return chosen


def parse_parameter(pair: str) -> tuple[str, Any]:
    """NAME=VALUE, with the value as a number, truth value, None or list where it reads as one.

    A file in "npz:FILE" or "file:FILE" is looked for from here, not from the folder in which a
    chapter runs.
    """
    from papermill.cli import _resolve_type

    name, equals, value = pair.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"a parameter must be NAME=VALUE; got {pair!r}")
    kind, colon, file = value.partition(":")
    if colon and kind in OF_FILES:
        value = f"{kind}:{user_path(file).absolute()}"
    if value.startswith(("[", "(")):
        try:
            return name, list(ast.literal_eval(value))
        except (ValueError, SyntaxError, TypeError):
            raise ValueError(
                f"{name} must be a list such as [0, 1] or ['a', 'b']; got {value!r}"
            ) from None
    words = {"true": True, "false": False, "none": None}
    return name, words.get(value.lower(), _resolve_type(value))


@cli.command()
@click.argument("model")
@click.option(
    "--batch",
    "batches",
    multiple=True,
    type=int,
    default=(1, 32),
    show_default=True,
    help="Examples a pass; may be given several times.",
)
@click.option("--threads", default=1, show_default=True, help="Of ONNX Runtime.")
@click.option("--rounds", default=30, show_default=True, help="Timed passes.")
def measure(model: str, batches: tuple[int, ...], threads: int, rounds: int) -> None:
    """Measure the ONNX file MODEL: layers, parameters, multiply-adds, bytes and latency."""
    from smallnets.deploy.reading import file_layers, measure_onnx

    found = measure_onnx(model, batches=batches, threads=(threads,), rounds=rounds)
    layers = file_layers(model)
    wide = max([len("layer"), *(len(one.name) for one in layers)])
    click.echo(f"{'layer':{wide}}  {'kind':16}{'parameters':>13}{'MACs':>16}  bits")
    for one in layers:
        bits = f"{one.weight_bits} x {one.input_bits}"
        line = f"{one.name:{wide}}  {one.kind:16}{one.parameters:>13,}{one.macs:>16,}  {bits}"
        click.echo(line)
    click.echo(
        f"{'all':{wide}}  {'':16}{found.parameters:>13,}{found.macs:>16,}  "
        f"{found.bit_operations:,} bit operations"
    )
    click.echo(f"{found.bytes:,} bytes")
    for (batch, count), taken in found.latency.items():
        quartiles = f"{1000 * taken.low:.3f} to {1000 * taken.high:.3f}"
        click.echo(
            f"batch {batch}, threads {count}: {1000 * taken.median:.3f} ms, quartiles {quartiles}"
        )


@cli.command("data")
@click.argument("name", required=False)
@click.option(
    "--picture",
    type=click.Path(dir_okay=False),
    help="Write a sheet of training images to this PNG file.",
)
def show_data(name: str | None, picture: str | None) -> None:
    """Describe the data set NAME (made or downloaded if need be), or list the names."""
    from smallnets import data

    if name is None:
        click.echo("\n".join(data.names()))
        return
    dataset = data.load(name)
    click.echo(repr(dataset))
    click.echo(f"classes: {', '.join(dataset.class_names)}")
    if picture:
        from matplotlib.image import imsave

        imsave(picture, sheet(dataset.x_train[:100]), cmap="gray", vmin=0, vmax=255)
        click.echo(f"wrote {picture}")


def sheet(images: "torch.Tensor") -> "numpy.ndarray":
    """Images (n, channels, height, width) in rows of ten, full ones if there are ten or more.

    Returns:
        uint8 (height, width, 3), or (height, width) of grey images.
    """
    columns = min(10, len(images))
    images = images[: len(images) // columns * columns]
    rows = images.unflatten(0, (-1, columns)).permute(0, 3, 1, 4, 2)
    height, width = rows.shape[0] * rows.shape[1], rows.shape[2] * rows.shape[3]
    return rows.reshape(height, width, -1).squeeze(-1).numpy()
