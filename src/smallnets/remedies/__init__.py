"""Which remedy for my network? All of them, tried and measured.

Fewer bits, fewer weights, better structure: the three families of Roth et al. (JMLR 2024), by the
rooms of this library, on a network and a loader of one's own::

    tried = try_remedies(network, test, Budget(bytes=3e6), train=train)
    print(tried)                  # the table, and what is best within the budget
    tried.best.path               # its file, for ONNX Runtime

- `try_remedies`, `Plan`, `Budget`: what is tried, and what it may cost.
- `Tried`, `Row`: the table, the Pareto front, the best.
"""

from smallnets.entries import entries

__getattr__, __dir__ = entries(
    __name__,
    {
        "Remedy": "making",
        "remedies": "making",
        "COSTS": "plan",
        "Budget": "plan",
        "Plan": "plan",
        "Row": "table",
        "Tried": "table",
        "try_remedies": "trying",
    },
)
