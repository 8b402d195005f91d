"""What chapters need besides the method: validated parameters, claims and verdicts, figures,
records.
"""

from smallnets.book.catalogue import CHAPTERS, Chapter, chapter
from smallnets.book.claims import Claim, Comparison, claims_table
from smallnets.book.figures import use_style
from smallnets.book.parameters import SCALES, Parameters
from smallnets.book.records import save_record, stored_results
from smallnets.book.source import show
from smallnets.book.tables import spread, wins

__all__ = [
    "CHAPTERS",
    "SCALES",
    "Chapter",
    "Claim",
    "Comparison",
    "Parameters",
    "chapter",
    "claims_table",
    "save_record",
    "show",
    "spread",
    "stored_results",
    "use_style",
    "wins",
]
