"""Networks outside of torch: exported, checked against the original, measured, and timed."""

from smallnets.entries import entries

__getattr__, __dir__ = entries(
    __name__,
    {
        "export_checked": "exporting",
        "measure_onnx": "reading",
        "pack": "packed",
        "unpack": "packed",
        "with_codebook": "packed",
        "with_int8_weights": "packed",
    },
)
