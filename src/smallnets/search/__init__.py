"""Finding architectures: choosing, for every layer of a trained network, what shall compute it."""

from smallnets.entries import entries

__getattr__, __dir__ = entries(
    __name__,
    {
        "ReplaceableLayers": "lana",
        "build_pool": "lana",
        "distil_candidates": "lana",
        "solve": "lana",
        "fine_tune": "lana",
    },
)
