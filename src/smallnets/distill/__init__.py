"""Distillation: making a small network learn from a large one."""
