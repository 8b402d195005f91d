"""Distillation: making a small network learn from a large one."""

from smallnets.entries import entries

__getattr__, __dir__ = entries(
    __name__,
    {
        "kd_loss": "classic",
        "at_loss": "classic",
        "sp_loss": "similarity",
        "distil": "similarity",
        "distill_from_ensemble": "fidelity",
        "match": "matching",
        "distill_from_image": "single_image",
    },
)
