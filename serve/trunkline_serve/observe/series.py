"""Counters and histograms that cost a few hundred nanoseconds to add to.

The library's own take a lock and search their buckets one by one, for each of the dozen figures of
a call. These are plain dictionaries: whoever adds on several threads takes one lock for all.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Counts(Collector):
    """A counter.

    Args:
        name: Without `_total`.
        about: Its help text.
        labels: Names of its labels.
    """

    def __init__(self, name: str, about: str, labels: Sequence[str]) -> None:
        self.name, self.about, self.labels = name, about, labels
        self._values: dict[tuple[str, ...], float] = defaultdict(float)

    def add(self, labels: tuple[str, ...], amount: float = 1) -> None:
        """Adds to one of its series."""
        self._values[labels] += amount

    def collect(self) -> Iterator[Metric]:
        """Yields it, as it is now; on any thread."""
        family = CounterMetricFamily(self.name, self.about, labels=self.labels)
        for labels, value in list(self._values.items()):
            family.add_metric(labels, value)
        yield family


class Spread(Collector):
    """A histogram.

    Args:
        name: Of the metric.
        about: Its help text.
        labels: Names of its labels.
        bounds: Upper bounds of its buckets, rising; one more takes what is above.
    """

    def __init__(
        self, name: str, about: str, labels: Sequence[str], bounds: Sequence[float]
    ) -> None:
        self.name, self.about, self.labels = name, about, labels
        self._bounds = bounds
        self._texts = [*map(floatToGoString, bounds), "+Inf"]
        self._counts: dict[tuple[str, ...], list[int]] = defaultdict(self._none)
        self._sums: dict[tuple[str, ...], float] = defaultdict(float)

    def add(self, labels: tuple[str, ...], value: float) -> None:
        """Adds a value to one of its series."""
        self._counts[labels][bisect_left(self._bounds, value)] += 1
        self._sums[labels] += value

    def collect(self) -> Iterator[Metric]:
        """Yields it, as it is now; on any thread."""
        family = HistogramMetricFamily(self.name, self.about, labels=self.labels)
        for labels, counts in list(self._counts.items()):
            buckets = list(zip(self._texts, accumulate(counts), strict=True))
            family.add_metric(labels, buckets, self._sums[labels])
        yield family

    def _none(self) -> list[int]:
        return [0] * len(self._texts)
