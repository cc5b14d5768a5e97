"""Counts per example, and metrics that are functions of their sums.

A metric and its bootstrap interval thus share one definition: resampling examples means weighting
their counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Sums = NDArray[np.float64]
Metric = Callable[[Sums], Sums]


@dataclass(frozen=True, eq=False)
class CountTable:
    """Sparse counts of n examples in k columns; most are zero, as most labels are in few texts.

    Attributes:
        shape: (n, k).
        rows, columns, values: [e] the nonzero entries, sorted by column.
    """

    shape: tuple[int, int]
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    values: Sums

    @classmethod
    def of(cls, shape: tuple[int, int], cells: Iterable[tuple[int, int, float]]) -> CountTable:
        """Builds a table from (row, column, number) entries."""
        rows, columns, values = np.array([*cells], np.float64).reshape(-1, 3).T
        order = np.argsort(columns, kind="stable")
        return cls(shape, rows[order].astype(int), columns[order].astype(int), values[order])

    @classmethod
    def of_rows(cls, rows: Sequence[Sequence[float]], width: int) -> CountTable:
        """Builds a table from dense rows of `width` numbers."""
        cells = ((at, to, one) for at, row in enumerate(rows) for to, one in enumerate(row) if one)
        return cls.of((len(rows), width), cells)

    def __len__(self) -> int:
        """Number of examples."""
        return self.shape[0]

    def sums(self, times: Sums) -> Sums:
        """Returns the column sums [d, k] for d weightings of the examples, `times` [n, d]."""
        found = np.zeros((self.shape[1], times.shape[1]))
        columns, begins = np.unique(self.columns, return_index=True)
        if len(begins):
            weighed = times[self.rows]
            weighed *= self.values[:, None]
            found[columns] = np.add.reduceat(weighed, begins, axis=0)
        return found.T

    def beside(self, other: CountTable) -> CountTable:
        """Concatenates the columns of two tables of the same examples."""
        (n, width), (_, more) = self.shape, other.shape
        return CountTable(
            (n, width + more),
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.columns, other.columns + width]),
            np.concatenate([self.values, other.values]),
        )


@dataclass(frozen=True, eq=False)
class Tally:
    """Counts of scored examples, with their metrics.

    Attributes:
        counts: Counts of each example.
        metrics: Metrics by name; each maps sums of counts [..., k] to points [...]. They are
            instances of module-level classes, so that a tally can be pickled.
    """

    counts: CountTable
    metrics: Mapping[str, Metric]

    def values(self) -> dict[str, float]:
        """Computes every metric over all examples, in points."""
        (sums,) = self.counts.sums(np.ones((len(self.counts), 1)))
        return {name: float(metric(sums)) for name, metric in self.metrics.items()}


def points(part: Sums, whole: Sums) -> Sums:
    """Returns 100 x part / whole, or 0 where the whole is 0, as the official scorers do."""
    filled: Sums = 100.0 * part / np.where(whole == 0.0, 1.0, whole)
    return filled


@dataclass(frozen=True)
class Share:
    """A metric that divides the column `part` by the column `whole`."""

    part: int
    whole: int

    def __call__(self, sums: Sums) -> Sums:
        """Returns points [...] of sums [..., k]."""
        return points(sums[..., self.part], sums[..., self.whole])
