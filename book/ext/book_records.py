"""Local Sphinx extension: the table of chapters and the results page, made from the stored records.

A record is a JSON file that a run leaves behind: `chapters/NN_slug.record.json` for the outputs
stored in a notebook, `book/results/NN-DATA-evidence.json` for the run that verdicts come from, and
others in `book/results` for long runs that an earlier rule judged. Only verdicts of evidence are
counted, and of them only those on claims of the papers.
"""

import hashlib
import json
import re
from pathlib import Path

from book_sections import parsed, section
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[2]
VERDICTS = (
    "reproduced", "partly", "contradicted", "inconclusive", "not at this scale", "not judged",
)  # fmt: skip
NEEDED = {
    "chapter", "title", "scale", "dataset", "command", "parameters", "seeds", "seconds",
    "peak_memory_mb", "cores", "precision", "versions", "claims",
}  # fmt: skip


def record_files():
    """All record files, those of the chapters first."""
    return [
        *sorted((ROOT / "chapters").glob("*.record.json")),
        *sorted((ROOT / "book" / "results").glob("*.json")),
    ]


def read_record(path):
    """One record; ValueError names the file and what is missing or unknown in it."""
    record = json.loads(path.read_text(encoding="utf-8"))
    if missing := NEEDED - record.keys():
        raise ValueError(f"{path.name}: the record lacks {', '.join(sorted(missing))}")
    for claim in record["claims"]:
        if claim["verdict"] not in VERDICTS:
            allowed = ", ".join(VERDICTS)
            raise ValueError(f"{path.name}: verdict {claim['verdict']!r} is none of {allowed}")
    return record


def duration(seconds):
    """Seconds as a reader says them: 93 s, 4 min 10 s, 2 h 5 min."""
    seconds = round(seconds)
    if seconds < 100:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def seed_list(seeds):
    """Seeds as a range where they are one: 0-4, else 3, 7, 11."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}–{seeds[-1]}"
    return ", ".join(map(str, seeds))


def table(header, rows, kind):
    """MyST text of a list-table; cells are MyST text of one paragraph."""
    lines = ["````{list-table}", ":header-rows: 1", f":class: records {kind}", ""]
    for row in (header, *rows):
        for column, cell in enumerate(row):
            text = re.sub(r"(?<=\d) (?=%)|(?<=±) | (?=±)", "\u00a0", " ".join(str(cell).split()))
            lines.append(("* - " if column == 0 else "  - ") + text)
    return [*lines, "````", ""]


def verdict_mark(verdict):
    """The verdict as a coloured word."""
    return f"[{verdict}]{{.verdict .verdict-{verdict.replace(' ', '-')}}}"


class MadeFromRecords(SphinxDirective):
    """A directive whose content is made from the records."""

    def run(self):
        try:
            records = [read_record(path) for path in record_files()]
        except ValueError as error:
            raise self.error(str(error)) from None
        made_from(self.env)[self.env.docname] = state_of_records(self.env)
        return self.nodes(records)


class ChapterTable(MadeFromRecords):
    """The twelve chapters: part, paper, verdicts, and the time that the stored run took."""

    def nodes(self, records):
        from smallnets.book.catalogue import CHAPTERS

        # The chapter's own run comes first, and so it is the one that stays.
        stored = {r["chapter"]: r for r in reversed(records) if r["scale"] == "small"}
        rows = []
        for chapter in CHAPTERS:
            page = f"chapters/{chapter.stem}"
            written = page in self.env.found_docs
            record = stored.get(chapter.number) if written else None
            rows.append(
                (
                    int(chapter.number),
                    f"{{doc}}`{chapter.title} </{page}>`" if written else chapter.title,
                    chapter.part,
                    f"{{cite:t}}`{chapter.paper}`",
                    judged(chapter.number, records, written, record),
                    measured_time(record) if record else "–",
                )
            )
        header = ("No.", "Chapter", "Part", "Paper", "Claims", "Time on two cores")
        return parsed(self, table(header, rows, "chapters"))


def memory(megabytes):
    """The most that a run needed, where its machine tells."""
    if megabytes is None:
        return "memory not measured"
    return f"{megabytes / 1000:.1f} GB of memory at most"


def measured_time(record):
    """Time of a run, with the number of cores where it is not two."""
    other = f" ({record['cores']} cores)" if record["cores"] != 2 else ""
    return duration(record["seconds"]) + other


class Results(MadeFromRecords):
    """Every stored run: a table of verdict counts, then one section a run."""

    def nodes(self, records):
        if not records:
            return parsed(self, ["No results are stored yet."])
        summary, sections = [], []
        for number, record in enumerate(sorted(records, key=place), start=1):
            name = f"result-{number}"
            summary.append((f"{{ref}}`{name}`", verdict_counts(record) or "–", movement(record)))
            sections.append(section(self, name, run_title(record), self.account(record)))
        header = ("Run", "Claims of the paper", "Since the run before")
        return [*parsed(self, table(header, summary, "runs")), *sections]

    def account(self, record):
        page = f"chapters/{record['chapter']}_{record.get('slug', '').replace('-', '_')}"
        versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        lines = [
            *([f"A run of {{doc}}`/{page}`.", ""] if page in self.env.found_docs else []),
            "```shell",
            record["command"],
            "```",
            "",
            f"Data set `{record['dataset']}`, scale `{record['scale']}`, "
            f"seeds {seed_list(record['seeds'])}, precision {record['precision']}; "
            f"{duration(record['seconds'])} on {record['cores']} cores, "
            f"{memory(record['peak_memory_mb'])}; {versions}.",
            "",
            "````{dropdown} All parameters",
            *(f"- `{name}`: `{value!r}`" for name, value in record["parameters"].items()),
            "````",
            "",
        ]
        return [*lines, *claims(record), *earlier(record)]


def claims(record):
    """MyST text with the claims of a record, as its rule had them."""
    if kind(record) != "earlier":
        from smallnets.book.verdicts import tables

        return ["``````{raw} html", tables(record["claims"]), "``````", ""] * bool(record["claims"])
    rows = [
        (
            claim["claim"],
            claim["paper"],
            claim["measured"],
            verdict_mark(claim["verdict"]),
            claim.get("reason") or "–",
        )
        for claim in record["claims"]
    ]
    header = ("Claim", "Published", "Measured here", "Verdict", "Why")
    rules = dict.fromkeys(claim["rule"] for claim in record["claims"] if claim.get("rule"))
    return [
        "These verdicts were passed under an earlier rule, and are not counted.",
        "",
        *table(header, rows, "claims"),
        *(f"*Rule: {rule}.*\n" for rule in rules),
    ]


def earlier(record):
    """MyST text with what runs before this one said: each claim whose verdict moved, and all."""
    from smallnets.book.history import moved

    lines = [
        f"- “{claim}” was {verdict_mark(before)} and is {verdict_mark(now)}."
        for claim, before, now in moved(record)
    ]
    if lines:
        lines = ["Verdicts that moved since the run before:", "", *lines, ""]
    for number, before in enumerate(record.get("history", []), start=1):
        made = f"commit {before['commit'][:7]}" if before.get("commit") else "an older commit"
        lines += [
            f"````{{dropdown}} Verdicts of run {number}, {made}",
            *(f"*Rule: {rule}.*\n" for rule in before.get("rules", [])),
            *(f"- {one['claim']}: {verdict_mark(one['verdict'])}" for one in before["claims"]),
            "````",
            "",
        ]
    return lines


KINDS = {"evidence": "evidence", "live": "live run", "earlier": "under an earlier rule"}


def kind(record):
    """Whether a record decides ("evidence"), shows a live run, or was judged by an earlier rule."""
    if any("comparisons" not in c and c["verdict"] != "not judged" for c in record["claims"]):
        return "earlier"
    return "evidence" if record["scale"] == "evidence" else "live"


def place(record):
    """Where a record stands on the page: evidence first, then chapter by chapter."""
    return list(KINDS).index(kind(record)), record["chapter"], record["dataset"]


def movement(record):
    """How many verdicts moved, where they count and there was a run before."""
    from smallnets.book.history import moved

    if not record.get("history") or not verdict_counts(record):
        return "–"
    count = len(moved(record))
    return f"{count} verdict{'s' if count != 1 else ''} moved" if count else "no verdict moved"


def judged(number, records, written, stored):
    """What the landing page says of a chapter's claims: counts of its evidence, or its state."""
    counts = [
        f"{run_data(record)}: {verdict_counts(record)}"
        for record in records
        if record["chapter"] == number and verdict_counts(record)
    ]
    if written and counts:
        return "; ".join(counts)
    return "not yet judged" if stored else "written" if written else "planned"


def run_data(record):
    """A run's data set, of a file its name."""
    return record["dataset"].removeprefix("npz:").removesuffix(".npz")


def run_title(record):
    """Heading of a run: chapter, data set, and what its verdicts are worth."""
    return f"Chapter {int(record['chapter'])}: {run_data(record)}, {KINDS[kind(record)]}"


def verdict_counts(record):
    """How often evidence passed each verdict on the paper's claims: "2 reproduced, 1 partly"."""
    if kind(record) != "evidence":
        return ""
    found = [c["verdict"] for c in record["claims"] if c.get("source", "paper") == "paper"]
    return ", ".join(f"{found.count(v)} {verdict_mark(v)}" for v in VERDICTS if v in found)


def made_from(env):
    """For each page that shows records, the state of the records it was made from."""
    if not hasattr(env, "smallnets_records"):
        env.smallnets_records = {}
    return env.smallnets_records


def state_of_records(env):
    """Digest of the records, of the chapters present, and of the code that shows them."""
    digest = hashlib.sha256()
    book = ROOT / "src" / "smallnets" / "book"
    used = [book / f"{name}.py" for name in ("catalogue", "history", "interval_plot", "verdicts")]
    for path in (*record_files(), *used, Path(__file__)):
        digest.update(path.name.encode() + path.read_bytes())
    digest.update(repr(sorted(d for d in env.found_docs if d.startswith("chapters/"))).encode())
    return digest.hexdigest()


def outdated_pages(app, env, added, changed, removed):
    """Pages to make again because a record or chapter was added, changed or removed."""
    now = state_of_records(env)
    return [
        page for page, state in made_from(env).items() if state != now and page in env.found_docs
    ]


def setup(app):
    app.add_directive("chapter-table", ChapterTable)
    app.add_directive("results", Results)
    app.connect("env-get-outdated", outdated_pages)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
