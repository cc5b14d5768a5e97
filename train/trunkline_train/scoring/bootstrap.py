"""Bootstrap intervals of metrics over examples, and paired differences.

A draw samples n of n examples with replacement (Efron, 1979); the interval holds the middle 95 % of
the metric over the draws. It covers the choice of examples only, not the training seed. If all
examples are right, the interval is a single point, which overstates the certainty of a small
sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trunkline_train.scoring.tally import CountTable, Sums, Tally

RESAMPLES = 1000
LEVEL = 0.95
_SEED = 0  # the same examples always give the same interval
_NUMBERS_AT_ONCE = 4_000_000  # limits memory to tens of megabytes


@dataclass(frozen=True)
class Interval:
    """Bounds of a metric, in points."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Gain of the second of two systems over the first, in points, with its bounds.

    If `low` and `high` have the same sign, the difference is significant.
    """

    value: float
    low: float
    high: float


def intervals(
    tally: Tally, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = _SEED
) -> dict[str, Interval]:
    """Returns the interval of every metric, or an empty dict if there are no examples."""
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
    """Returns `two` minus `one` for every metric that both have, on the same draws for both.

    Paired draws make small differences between two systems visible, since hard examples are usually
    hard for both.

    Raises:
        ValueError: The numbers of examples differ.
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
    """Returns the first gain with the bounds of the rest."""
    return Difference(float(gains[0]), *_bounds(gains[1:], level))


def _bounds(values: Sums, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def _resampled(counts: CountTable, resamples: int, seed: int) -> Iterator[Sums]:
    """Yields the sums of counts over the draws, in chunks [d, k] of d draws."""
    n = len(counts)
    generator = np.random.default_rng(seed)
    most = max(1, _NUMBERS_AT_ONCE // max(n, counts.shape[1], len(counts.values)))
    for begin in range(0, resamples, most):
        draws = min(most, resamples - begin)
        chosen = generator.integers(0, n, (draws, n)) + n * np.arange(draws)[:, None]
        times = np.bincount(chosen.ravel(), minlength=draws * n).reshape(draws, n)
        yield counts.sums(np.ascontiguousarray(times.T, np.float64))
