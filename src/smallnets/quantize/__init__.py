"""Quantisation: weights and activations of a few bits, with their straight-through gradients."""
