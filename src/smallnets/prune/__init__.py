"""Fewer weights: which of them, or which channels, matter, and networks without the others."""

from smallnets.entries import entries

__getattr__, __dir__ = entries(
    __name__,
    {
        "channel_groups": "importance",
        "scores": "importance",
        "masks_at_macs": "importance",
        "remove": "importance",
        "PruneWhileTraining": "importance",
        "magnitude_masks": "sparse",
        "prune_gradually": "sparse",
        "lottery_ticket": "sparse",
        "prune_channels": "structured",
        "GatedChannels": "structured",
        "EarlyExit": "structured",
    },
)
