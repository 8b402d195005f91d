"""Finding architectures: choosing, for every layer of a trained network, what shall compute it."""
