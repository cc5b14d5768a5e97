"""Which rows of each task form the batch of a step: deterministic, recycling, resumable."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

_POOL = 50  # batches whose rows are sorted by length together


class TaskBatches:
    """The endless batches of one task.

    The batch of a step follows from the step alone, so a resumed run goes on exactly where it
    stopped. When all rows were seen they are shuffled anew and start over, whatever the epoch:
    the smaller task is recycled until the larger one is through. Each batch holds rows of similar
    length, for little padding.

    Args:
        lengths: Tokens of each row.
        size: Rows per batch.
        seed: Of the order.
    """

    def __init__(self, lengths: Sequence[int], size: int, seed: Sequence[int]) -> None:
        self._lengths = np.asarray(lengths)
        self._size = size
        self._seed = tuple(seed)
        self.per_pass = -(-len(self._lengths) // size)
        self._pass = lru_cache(maxsize=1)(self._shuffled)

    def at(self, step: int) -> list[int]:
        """Returns the rows of the batch that belongs to a step, counted from 0."""
        return self._pass(step // self.per_pass)[step % self.per_pass]

    def _shuffled(self, number: int) -> list[list[int]]:
        random = np.random.default_rng([*self._seed, number])
        order = random.permutation(len(self._lengths))
        batches: list[list[int]] = []
        pool = _POOL * self._size
        for begin in range(0, len(order), pool):
            rows = order[begin : begin + pool]
            rows = rows[np.argsort(self._lengths[rows], kind="stable")]
            batches += [
                rows[at : at + self._size].tolist() for at in range(0, len(rows), self._size)
            ]
        return [batches[index] for index in random.permutation(len(batches))]
