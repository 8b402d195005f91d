"""Making networks narrower: which channels matter, and taking the others out."""

from smallnets.entries import entries

__getattr__, __dir__ = entries(
    __name__,
    {
        "channel_groups": "importance",
        "scores": "importance",
        "masks_at_macs": "importance",
        "remove": "importance",
        "PruneWhileTraining": "importance",
    },
)
