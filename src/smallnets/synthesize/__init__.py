"""Synthesis: small training sets and replayed images that stand for data which are not kept."""
