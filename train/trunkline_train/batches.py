"""Which rows form the batches of a data set: deterministic, recycling, resumable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_POOL = 50  # batches whose rows are sorted by length together

Ints = NDArray[np.int64]


class Batches:
    """The endless batches of one data set.

    Which rows the n-th batch holds follows from n alone, so a resumed run goes on exactly where it
    stopped. When all rows were seen they are shuffled anew and start over, whatever the epoch: a
    small data set is recycled until the larger ones are through. Each batch holds rows of similar
    length, for little padding.

    Args:
        lengths: Tokens of each row.
        size: Rows per batch.
        seed: Of the order.
        tokens: Fill batches up to this many padded tokens, rather than by rows.
    """

    def __init__(
        self, lengths: Sequence[int] | Ints, size: int, seed: Sequence[int], tokens: int | None
    ) -> None:
        self._lengths = np.asarray(lengths)
        self._seed = tuple(seed)
        self._cut: Callable[[Ints], list[list[int]]]
        if tokens is None:
            self._pool, self._cut = _POOL * size, lambda rows: _by_rows(rows, size)
        else:
            mean = float(self._lengths.mean())
            self._pool = max(1, int(_POOL * tokens / mean))
            self._cut = lambda rows: _by_tokens(rows, self._lengths, tokens)
        self._pass = lru_cache(maxsize=1)(self._shuffled)
        # Passes differ in their number of batches if tokens are counted: where each one starts.
        self._starts = [0]

    @property
    def per_pass(self) -> int:
        """Number of batches of the first pass."""
        return len(self._pass(0)) if len(self._starts) == 1 else self._starts[1]

    def at(self, number: int) -> list[int]:
        """Returns the rows of a batch, counted from 0."""
        while self._starts[-1] <= number:
            self._starts.append(self._starts[-1] + len(self._pass(len(self._starts) - 1)))
        passed = int(np.searchsorted(self._starts, number, side="right")) - 1
        return self._pass(passed)[number - self._starts[passed]]

    def _shuffled(self, number: int) -> list[list[int]]:
        random = np.random.default_rng([*self._seed, number])
        order = random.permutation(len(self._lengths))
        batches: list[list[int]] = []
        for begin in range(0, len(order), self._pool):
            rows = order[begin : begin + self._pool]
            batches += self._cut(rows[np.argsort(self._lengths[rows], kind="stable")])
        return [batches[index] for index in random.permutation(len(batches))]


def _by_rows(rows: Ints, size: int) -> list[list[int]]:
    return [rows[at : at + size].tolist() for at in range(0, len(rows), size)]


def _by_tokens(rows: Ints, lengths: Ints, tokens: int) -> list[list[int]]:
    """Cuts rows, shortest first, where one more would exceed the budget; never to none."""
    batches: list[list[int]] = []
    current: list[int] = []
    for row in rows.tolist():
        if current and (len(current) + 1) * int(lengths[row]) > tokens:
            batches.append(current)
            current = []
        current.append(row)
    return [*batches, current] if current else batches
