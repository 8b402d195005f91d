"""Claims of a paper and of our own, judged by a rule that is fixed before the run.

A claim has one main comparison, its first, and further ones where it needs them. All K comparisons
that a record judges have intervals at the level 1 - 0.05 / K (Bonferroni), so that in at most one
record of twenty chance alone decides anything. The verdict of a claim is

- *reproduced* if all of its comparisons hold,
- *contradicted* if the main one fails,
- *partly* if the main one holds and another does not,
- *inconclusive* otherwise,
- *not at this scale* if it was said before the run that the run does not meet its premise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from smallnets import checks
from smallnets.book.comparisons import Comparison
from smallnets.checks import plain
from smallnets.storage import content_key

ERROR = 0.05  # how often a record decides anything where there is nothing
OUTCOMES = ("reproduced", "partly", "contradicted", "inconclusive")
VERDICTS = (*OUTCOMES, "not at this scale")
SOURCES = ("paper", "ours")
JUDGING = ("evidence", "paper")  # scales that decide


@dataclass(frozen=True)
class Claim:
    """What is said, by whom, and what was measured.

    Attributes:
        text: the claim in one sentence.
        published: the paper's own figure, or that it gives none.
        comparisons: what would have to hold; the first is the main one.
        reasons: outcome -> the sentence that is printed beside that verdict. A single sentence
            explains why comparisons are open, so it is for "partly" and "inconclusive".
        source: "paper", or "ours" for a hypothesis of our own.
        not_here: why the run does not meet the claim's premise, where it does not. The claim is
            then shown with its numbers and not judged.

    Raises:
        ValueError: the source or an outcome is unknown.
    """

    text: str
    published: str
    comparisons: Sequence[Comparison]
    reasons: Mapping[str, str] | str = field(default_factory=dict)
    source: str = "paper"
    not_here: str = ""

    def __post_init__(self) -> None:
        checks.one_of(f"source of {self.text!r}", self.source, SOURCES)
        if not isinstance(self.reasons, str):
            for outcome in self.reasons:
                checks.one_of(f"outcome of a reason for {self.text!r}", outcome, OUTCOMES)

    def verdict(self, level: float = 1 - ERROR) -> str:
        """By the rule of this module, with intervals at a level."""
        if self.not_here:
            return "not at this scale"
        outcomes = [comparison.outcome(level) for comparison in self.comparisons]
        main = outcomes[0] if outcomes else "open"
        if main == "fails":
            return "contradicted"
        if main == "open":
            return "inconclusive"
        return "reproduced" if set(outcomes) == {"holds"} else "partly"

    def reason(self, verdict: str) -> str:
        """The sentence that was written for a verdict, or an empty one."""
        if verdict == "not at this scale":
            return self.not_here
        if isinstance(self.reasons, str):
            return self.reasons if verdict in ("partly", "inconclusive") else ""
        return self.reasons.get(verdict, "")

    def row(self, level: float = 1 - ERROR, judged: bool = True) -> dict[str, Any]:
        """The claim as a record holds it; without judgement its verdict is "not judged", unless it
        is never judged here.
        """
        verdict = self.verdict(level) if judged or self.not_here else "not judged"
        compared = [comparison.row(level) for comparison in self.comparisons]
        return {
            "claim": self.text,
            "paper": self.published,
            "source": self.source,
            "comparisons": compared,
            "measured": "; ".join(
                f"{one['name']}: {one['text']} ({one['outcome']})" for one in compared
            ),
            "verdict": verdict,
            "reason": self.reason(verdict),
            "level": level,
        }


def counted(claims: Sequence[Claim]) -> int:
    """K: how many comparisons share the 5 %. Neither exact ones do nor those of claims that are not
    judged.
    """
    return sum(not one.exact for claim in claims if not claim.not_here for one in claim.comparisons)


def common_level(claims: Sequence[Claim]) -> float:
    """The level of all intervals of a record: 1 - 0.05 / K."""
    return 1 - ERROR / max(counted(claims), 1)


def rule(claims: Sequence[Claim]) -> str:
    """The rule in a sentence, with this record's numbers."""
    count = counted(claims)
    return (
        f"paired differences over seeds, two-sided t-intervals at {common_level(claims):.3%} "
        f"(5 % shared by {count} comparison{'s' if count != 1 else ''}); a comparison holds if its "
        "interval lies where the claim says, fails if it lies outside, and is open otherwise"
    )


def judge(claims: Sequence[Claim], judged: bool = True) -> list[dict[str, Any]]:
    """All claims of a record as rows, at their common level and with the rule.

    Args:
        claims: of the paper and of our own; they share the level.
        judged: whether the run decides; otherwise every verdict is "not judged".
    """
    level = common_level(claims)
    return [{**claim.row(level, judged), "rule": rule(claims)} for claim in claims]


def definitions(claims: Sequence[Claim]) -> str:
    """Sixteen hexadecimal digits that change with what is claimed: statements, whose they are, what
    is compared in which order, margins, and what is not judged. Reasons and published figures are
    no part of it.
    """
    return content_key(
        claims=[
            {
                "claim": claim.text,
                "source": claim.source,
                "judged": not claim.not_here,
                "comparisons": [
                    [one.name, one.exact, *(repr(float(plain(bound))) for bound in one.bounds)]
                    for one in claim.comparisons
                ],
            }
            for claim in claims
        ]
    )
