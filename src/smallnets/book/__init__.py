"""What chapters need besides the method: validated parameters, claims and verdicts, figures,
records.
"""

from smallnets.book.catalogue import CHAPTERS, Chapter, chapter
from smallnets.book.claims import Claim, Comparison, claims_table
from smallnets.book.figures import (
    WIDTH,
    contact_sheet,
    curves,
    portraits,
    seed_dots,
    seed_panels,
    use_style,
)
from smallnets.book.parameters import SCALES, Parameters
from smallnets.book.records import save_record, stored_results
from smallnets.book.source import show
from smallnets.book.tables import over_seeds, sizes, spread, summary, wins

__all__ = [
    "CHAPTERS",
    "SCALES",
    "WIDTH",
    "Chapter",
    "Claim",
    "Comparison",
    "Parameters",
    "chapter",
    "claims_table",
    "contact_sheet",
    "curves",
    "over_seeds",
    "portraits",
    "save_record",
    "seed_dots",
    "seed_panels",
    "show",
    "sizes",
    "spread",
    "stored_results",
    "summary",
    "use_style",
    "wins",
]
