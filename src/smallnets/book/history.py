"""What was said before: the verdicts of the runs that a record replaces, which are never lost."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smallnets.book.freshness import read_record

Record = Mapping[str, Any]
KEPT = ("scale", "dataset", "command", "seeds", "commit", "definitions", "arithmetic", "versions")


def verdicts(record: Record) -> dict[str, str]:
    """Claim -> verdict, of the claims that a record or an entry of its history judged."""
    return {
        one["claim"]: one["verdict"] for one in record["claims"] if one["verdict"] != "not judged"
    }


def entry(record: Record) -> dict[str, Any]:
    """What is kept of a record that is replaced: how it was made, its rules and its verdicts."""
    rules = dict.fromkeys(one["rule"] for one in record["claims"] if one.get("rule"))
    return {
        **{name: record[name] for name in KEPT if name in record},
        "rules": list(rules),
        "claims": [
            {"claim": claim, "verdict": verdict} for claim, verdict in verdicts(record).items()
        ],
    }


def with_history(record: Record, path: Path) -> dict[str, Any]:
    """A record with the history of the one that it is about to replace, oldest first.

    Raises:
        ValueError: what lies at `path` is damaged; its history would be lost.
    """
    if not path.exists():
        return {**record, "history": []}
    before = read_record(path, "claims")
    earlier = before.get("history", [])
    return {**record, "history": [*earlier, *([entry(before)] if verdicts(before) else [])]}


def moved(record: Record) -> list[tuple[str, str, str]]:
    """(claim, verdict before, verdict now) of each claim that the last run judged otherwise."""
    if not record.get("history"):
        return []
    before, now = verdicts(record["history"][-1]), verdicts(record)
    return [
        (claim, before[claim], verdict)
        for claim, verdict in now.items()
        if before.get(claim, verdict) != verdict
    ]


def moves(one: Record, other: Record) -> dict[str, tuple[str, str]]:
    """Comparisons that two records of the same claims judge otherwise, such as a run and its
    repetition with other seeds: "claim / comparison" -> the two outcomes.

    Raises:
        ValueError: the records do not have the same comparisons.
    """
    first, second = _outcomes(one), _outcomes(other)
    if first.keys() != second.keys():
        names = ", ".join(sorted(first.keys() ^ second.keys()))
        raise ValueError(f"two records must have the same comparisons; they differ in {names}")
    return {
        name: (outcome, second[name]) for name, outcome in first.items() if outcome != second[name]
    }


def disagreements(one: Record, other: Record) -> list[str]:
    """What is against one record's verdicts in its repetition, a line each; none if they agree.

    Other seeds and another arithmetic may move a comparison to or from *open*, a fifth of them at
    most, but none between *holds* and *fails*.
    """
    moved = moves(one, other)
    lines = [f"{name}: {before} became {after}" for name, (before, after) in moved.items()]
    turned = [line for line, pair in zip(lines, moved.values(), strict=True) if "open" not in pair]
    return lines if 5 * len(moved) > len(_outcomes(one)) else turned


def _outcomes(record: Record) -> dict[str, str]:
    return {
        f"{claim['claim']} / {one['name']}": one["outcome"]
        for claim in record["claims"]
        for one in claim["comparisons"]
    }
