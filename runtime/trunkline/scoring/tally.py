"""Counts per example, and the metrics that are functions of their sums.

Written so, a metric and its bootstrap interval come from one definition: to draw examples anew is
to weigh their counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Sums = NDArray[np.float64]
Metric = Callable[[Sums], Sums]


@dataclass(frozen=True, eq=False)
class Tally:
    """What scoring counted.

    Attributes:
        counts: [n, k], what each example adds.
        metrics: By name; each maps sums of counts [..., k] to points [...]. They are instances of
            module-level classes, so that a tally can go from process to process.
    """

    counts: Sums
    metrics: Mapping[str, Metric]

    def values(self) -> dict[str, float]:
        """Returns every metric over all examples, in points."""
        sums = self.counts.sum(axis=0)
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
