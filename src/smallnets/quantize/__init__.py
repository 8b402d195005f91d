"""Quantisation: weights and activations of a few bits, with their straight-through gradients."""

from smallnets.entries import entries

__getattr__, __dir__ = entries(
    __name__,
    {
        "fake_quantize": "uniform",
        "quantize_model": "modules",
        "quantize_after_training": "modules",
        "choose_bits": "mixed",
        "to_integer": "integer",
        "to_layered": "layered",
        "train_once": "layered",
        "save_layered": "layered",
        "load_layered": "layered",
        "synthesize": "genie",
        "quantize": "genie",
        "reconstruct": "genie",
    },
)
