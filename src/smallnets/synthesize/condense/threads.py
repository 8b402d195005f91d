"""Whole pieces of work to torch's threads, one to each, in place of a share of every step.

Steps on a few images are short. Where several threads share each of them, they mostly wait for one
another, above all on a busy machine; and sums over pieces then depend on how many threads there
are, which those of one thread a piece do not.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Found = TypeVar("Found")


def in_threads(work: Callable[[Item], Found], items: Sequence[Item]) -> list[Found]:
    """`work` of every item, in their order, in as many threads as torch may use on a processor.

    In each of them torch has one thread, and works in its usual modes: gradients are on.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(items) == 1:
        return [work(item) for item in items]

    def alone(item: Item) -> Found:
        torch.set_num_threads(1)  # of this thread
        return work(item)

    try:
        with ThreadPoolExecutor(min(threads, len(items))) as pool:
            return list(pool.map(alone, items))
    finally:
        torch.set_num_threads(threads)
