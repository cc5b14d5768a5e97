"""CountTable per example, and the metrics that are functions of their sums.

Written so, a metric and its bootstrap interval come from one definition: to draw examples anew is
to weigh their counts.
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
    """What each of n examples adds to k columns. Zeros are left out: most labels are in few texts.

    Attributes:
        shape: (n, k).
        rows, columns, values: [e] the numbers, by column.
    """

    shape: tuple[int, int]
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    values: Sums

    @classmethod
    def of(cls, shape: tuple[int, int], cells: Iterable[tuple[int, int, float]]) -> CountTable:
        """Returns the counts of (row, column, number)."""
        rows, columns, values = np.array([*cells], np.float64).reshape(-1, 3).T
        order = np.argsort(columns, kind="stable")
        return cls(shape, rows[order].astype(int), columns[order].astype(int), values[order])

    @classmethod
    def of_rows(cls, rows: Sequence[Sequence[float]], width: int) -> CountTable:
        """Returns the counts of examples that have a number for each of a few columns."""
        cells = ((at, to, one) for at, row in enumerate(rows) for to, one in enumerate(row) if one)
        return cls.of((len(rows), width), cells)

    def __len__(self) -> int:
        """Number of examples."""
        return self.shape[0]

    def sums(self, times: Sums) -> Sums:
        """Returns [d, k], the sums of the columns if examples count `times` [n, d]."""
        found = np.zeros((self.shape[1], times.shape[1]))
        columns, begins = np.unique(self.columns, return_index=True)
        if len(begins):
            weighed = times[self.rows]
            weighed *= self.values[:, None]
            found[columns] = np.add.reduceat(weighed, begins, axis=0)
        return found.T

    def beside(self, other: CountTable) -> CountTable:
        """Returns the columns of both, for the same examples."""
        (n, width), (_, more) = self.shape, other.shape
        return CountTable(
            (n, width + more),
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.columns, other.columns + width]),
            np.concatenate([self.values, other.values]),
        )


@dataclass(frozen=True, eq=False)
class Tally:
    """What scoring counted.

    Attributes:
        counts: What each example adds.
        metrics: By name; each maps sums of counts [..., k] to points [...]. They are instances of
            module-level classes, so that a tally can go from process to process.
    """

    counts: CountTable
    metrics: Mapping[str, Metric]

    def values(self) -> dict[str, float]:
        """Returns every metric over all examples, in points."""
        (sums,) = self.counts.sums(np.ones((len(self.counts), 1)))
        return {name: float(metric(sums)) for name, metric in self.metrics.items()}


def points(part: Sums, whole: Sums) -> Sums:
    """Returns 100 x part / whole; 0 where the whole is 0, as the official scorers say."""
    filled: Sums = 100.0 * part / np.where(whole == 0.0, 1.0, whole)
    return filled


@dataclass(frozen=True)
class Share:
    """The metric that divides the column `part` by the column `whole`."""

    part: int
    whole: int

    def __call__(self, sums: Sums) -> Sums:
        """Returns points [...] of sums [..., k]."""
        return points(sums[..., self.part], sums[..., self.whole])
