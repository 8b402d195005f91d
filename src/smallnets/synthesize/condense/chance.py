"""Random numbers by their place: what iteration i draws for class c depends on nothing else.

So a run that was stopped needs no state of a generator to go on with the same bits, and a class
that is condensed alone meets the networks, batches and transforms of a run of all classes.
"""

import numpy as np
import torch

NETWORK, BATCH, VIEW, START, SYNTHETIC, ORDER, INNER = range(7)  # what the numbers are for


def number_of(seed: int, *place: int) -> int:
    """A number below 2**32 that belongs to a seed and a place, a hash of both."""
    return int(np.random.SeedSequence((seed, *place)).generate_state(1)[0])


def generator(seed: int, *place: int) -> torch.Generator:
    """A generator on the CPU for one place."""
    return torch.Generator().manual_seed(number_of(seed, *place))
