"""Whole pieces of work to torch's threads, one to each, in place of a share of every step.

Steps on a few images are short. Where several threads share each of them, they mostly wait for one
another, above all on a busy machine; and sums over pieces then depend on how many threads there
are, which those of one thread a piece do not.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from smallnets.training.workers import threads

Item = TypeVar("Item")
Found = TypeVar("Found")


def in_threads(work: Callable[[Item], Found], items: Sequence[Item]) -> list[Found]:
    """`work` of every item, in their order, in as many threads as torch may use on a processor.

    In each of them torch has one thread, for a single item as for many. Several of them work in
    torch's usual modes: gradients are on.
    """
    count = min(torch.get_num_threads(), len(items))
    with threads(1):
        if count < 2:
            return [work(item) for item in items]
        # OpenMP counts for every thread by itself, so each is told.
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, items))
