"""Synthesis: images that stand for data, as condensed sets and as replay without a memory."""

from smallnets.entries import entries

__getattr__, __dir__ = entries(
    __name__,
    {
        "match_gradients": "condense",
        "select": "condense",
        "train_generator": "replay",
        "incremental_fit": "replay",
        "learn_task": "replay",
        "choose_learning_rate": "replay",
    },
)
