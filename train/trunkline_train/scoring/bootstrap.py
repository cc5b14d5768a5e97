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

from trunkline_train.scoring.tally import CountTable, Sums, Tally

RESAMPLES = 1000
LEVEL = 0.95
_SEED = 0  # the same examples always give the same interval
_NUMBERS_AT_ONCE = 4_000_000  # bounds the memory to tens of megabytes


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
    found: dict[str, list[Sums]] = {name: [] for name in tally.metrics}
    for sums in _resampled(tally.counts, resamples, seed):
        for name, metric in tally.metrics.items():
            found[name].append(metric(sums))
    return {name: Interval(*_bounds(np.concatenate(of), level)) for name, of in found.items()}


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
    width, both = one.counts.shape[1], one.counts.beside(two.counts)
    names = one.metrics.keys() & two.metrics.keys()
    gains: dict[str, list[Sums]] = {name: [] for name in names}
    for sums in (both.sums(np.ones((len(both), 1))), *_resampled(both, resamples, seed)):
        for name in names:
            gain = two.metrics[name](sums[:, width:]) - one.metrics[name](sums[:, :width])
            gains[name].append(gain)
    return {name: _difference(np.concatenate(of), level) for name, of in gains.items()}


def _difference(gains: Sums, level: float) -> Difference:
    """Returns the first gain, with the bounds of the others."""
    return Difference(float(gains[0]), *_bounds(gains[1:], level))


def _bounds(values: Sums, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def _resampled(counts: CountTable, resamples: int, seed: int) -> Iterator[Sums]:
    """Yields the sums of counts over each draw, some draws [d, k] at a time."""
    n = len(counts)
    generator = np.random.default_rng(seed)
    most = max(1, _NUMBERS_AT_ONCE // max(n, counts.shape[1], len(counts.values)))
    for begin in range(0, resamples, most):
        draws = min(most, resamples - begin)
        chosen = generator.integers(0, n, (draws, n)) + n * np.arange(draws)[:, None]
        times = np.bincount(chosen.ravel(), minlength=draws * n).reshape(draws, n)
        yield counts.sums(np.ascontiguousarray(times.T, np.float64))
