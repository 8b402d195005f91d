"""What chapters need besides the method: validated parameters, claims and verdicts, figures,
records.
"""

import time

from smallnets.entries import entries

STARTED = time.monotonic()  # of a run, which imports this package first

__getattr__, __dir__ = entries(
    __name__,
    {
        "CHAPTERS": "catalogue",
        "Chapter": "catalogue",
        "Claim": "claims",
        "Comparison": "comparisons",
        "Evidence": "proof",
        "Parameters": "parameters",
        "SCALES": "parameters",
        "WIDTH": "figures",
        "chapter": "catalogue",
        "claims_table": "proof",
        "contact_sheet": "figures",
        "curves": "figures",
        "evidence": "proof",
        "over_seeds": "tables",
        "portraits": "figures",
        "save_record": "records",
        "seed_by_seed": "seedwise",
        "seed_dots": "figures",
        "seed_panels": "figures",
        "show": "source",
        "side_by_side": "proof",
        "sizes": "tables",
        "spread": "tables",
        "stored_results": "records",
        "summary": "tables",
        "use_style": "figures",
        "wins": "tables",
    },
)
