"""How far a figure may be off: bootstrap intervals over examples, and paired differences.

Examples are drawn with replacement as often as there are (Efron, 1979), the metric is computed on
each draw, and the interval holds the middle 95 % of the draws. It speaks of the examples only: what
another training seed would give, it does not know. Where all examples are right no draw is wrong,
and the interval is a point: few examples, all right, prove less than it says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trunkline.scoring.tally import Sums, Tally

RESAMPLES = 1000
LEVEL = 0.95
_SEED = 0  # the same examples always give the same interval
_DRAWS_AT_ONCE = 4_000_000  # bounds the memory to tens of megabytes


@dataclass(frozen=True)
class Interval:
    """Bounds of a metric, in points."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """How much better the second of two systems is, in points, with its bounds.

    If `low` and `high` have one sign, the choice of examples does not explain the difference.
    """

    value: float
    low: float
    high: float


def intervals(
    tally: Tally, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = _SEED
) -> dict[str, Interval]:
    """Returns the interval of every metric; none if there are no examples."""
    if not len(tally.counts):
        return {}
    sums = np.concatenate(list(_resampled(tally.counts, resamples, seed)))
    return {name: Interval(*_bounds(metric(sums), level)) for name, metric in tally.metrics.items()}


def differences(
    one: Tally,
    two: Tally,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = _SEED,
) -> dict[str, Difference]:
    """Returns `two` minus `one` for every metric both have, on the same draws for both.

    Paired draws are what makes small differences between two systems visible: examples that are
    hard are hard for both.

    Raises:
        ValueError: They are not of the same number of examples.
    """
    if len(one.counts) != len(two.counts):
        raise ValueError(f"{len(one.counts)} examples cannot be paired with {len(two.counts)}")
    if not len(one.counts):
        return {}
    width = one.counts.shape[1]
    both = np.concatenate([one.counts, two.counts], axis=1)
    sums = np.concatenate([both.sum(axis=0)[None], *_resampled(both, resamples, seed)])
    found = {}
    for name in one.metrics.keys() & two.metrics.keys():
        gains = two.metrics[name](sums[:, width:]) - one.metrics[name](sums[:, :width])
        found[name] = Difference(float(gains[0]), *_bounds(gains[1:], level))
    return found


def _bounds(values: Sums, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def _resampled(counts: Sums, resamples: int, seed: int) -> Iterator[Sums]:
    """Yields the sums of counts [n, k] over each draw, some draws [d, k] at a time."""
    n = len(counts)
    generator = np.random.default_rng(seed)
    most = max(1, _DRAWS_AT_ONCE // n)
    for begin in range(0, resamples, most):
        draws = min(most, resamples - begin)
        chosen = generator.integers(0, n, (draws, n)) + n * np.arange(draws)[:, None]
        times = np.bincount(chosen.ravel(), minlength=draws * n).reshape(draws, n)
        yield times.astype(np.float64) @ counts
