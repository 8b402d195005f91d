"""What the documents at the top of the repository say is so."""

import re
import sys
import tomllib

import pytest
import yaml

import smallnets

DOCUMENTS = ("README.md", "CONTRIBUTING.md")


def make_commands(text: str) -> list[str]:
    """The `make ...` commands of a text of shell lines, without their comments."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line.startswith("make ")]


@pytest.fixture(scope="module")
def targets(root) -> set[str]:
    """The targets that a user may call."""
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (root / "Makefile").read_text(), flags=re.MULTILINE)
    return set(phony.split())


def test_readme_has_two_commands(fenced):
    assert make_commands("".join(fenced("README.md", "sh"))) == ["make book", "make test"]


def test_continuous_integration_runs_the_readmes_test_command(fenced, root):
    (_, test) = make_commands("".join(fenced("README.md", "sh")))
    assert make_commands((root / ".ci" / "run").read_text()) == [test]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_name_targets_that_exist(document, root, targets):
    named = re.findall(r"`make ([a-z]+)", (root / document).read_text())
    assert named
    assert set(named) <= targets


def test_readme_and_help_list_every_target(root, run, targets):
    readme, listing = (root / "README.md").read_text(), run(["make"], root).stdout
    for target in targets - {"help", "browser"}:
        assert f"make {target}" in readme, target
        assert f"make {target} " in listing, target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_name_files_that_exist(document, root):
    text = (root / document).read_text()
    named = set(re.findall(r"`([A-Za-z_./-]+\.(?:md|toml|yml|lock|cff|bib)|LICENSE)`", text))
    assert named
    assert [name for name in named if not (root / name).exists()] == []


def in_powershell(plan: str) -> list[str]:
    """What a dry run of make would call of Python, as PowerShell calls it on Windows, but for what
    needs make, git or the system's browser.
    """
    calls = []
    for line in re.sub(r"\S+ tests/stage\.py ?\S*", "", plan).splitlines():
        call = re.search(r"(python3 -m venv \S+|(?<!-x )\.venv/bin/[^|&]*)", line)
        if call and "tests/packaging tests/book" not in line:
            words = " ".join(call[1].split())
            calls.append(
                words.replace("python3 ", "python ").replace(".venv/bin/", ".venv\\Scripts\\")
            )
    return calls


@pytest.mark.packaging
def test_powershell_is_told_what_make_runs(clone, fenced, run):
    """In this order: the set-up, the book, the chapters, the tests, each a block of its own."""
    blocks = fenced("book/how-to-run.md", "powershell")
    told = [[line for line in block.splitlines() if line[0] != "$"] for block in blocks]
    (set_up, book, chapters, test) = told
    assert len(set_up) == 3
    for target, lines in {"book": book, "chapters": chapters, "test": test + book}.items():
        plan = in_powershell(run(["make", "-n", target], clone).stdout)
        assert sorted(plan) == sorted(set_up + lines), target
    assert 'PYTHONUTF8 = "1"' in blocks[0]
    assert 'OMP_NUM_THREADS = "1"' in blocks[3]


def test_readme_example_runs(fenced, run, tmp_path):
    (example,) = fenced("README.md", "python")
    done = run([sys.executable, "-c", f"{example}\nprint(float(loss.detach()))"], tmp_path)
    assert done.returncode == 0, done.stdout
    assert float(done.stdout.split()[-1]) > 0


def test_citation_names_this_version(root):
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == smallnets.__version__
    assert all(author.get("name") for author in citation["authors"])


def test_changelog_has_this_version(root):
    assert f"\n## {smallnets.__version__}" in (root / "CHANGELOG.md").read_text()


def test_licences_are_those_of_the_metadata(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["license"] == "MIT"
    assert (root / "LICENSE").read_text().startswith("MIT License")
    assert "CC-BY-4.0" in (root / "LICENSE-prose.md").read_text()
