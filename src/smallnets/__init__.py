"""Small Networks: twelve papers on making neural networks small, implemented in full."""

__version__ = "0.1.0"
