"""Making networks narrower: which channels matter, and taking the others out."""
