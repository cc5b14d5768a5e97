"""Metrics as another process reads them: fetched, parsed, and what changed between two readings."""

from __future__ import annotations

import http.client
import math
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterable
from time import monotonic

from prometheus_client.parser import text_string_to_metric_families

from trunkline.errors import Unavailable

_PATIENCE = 5.0  # seconds
_LAST_PORT = 65_535
_MEND = "give the HOST:PORT of `trunkline serve --metrics-port`"

Labels = tuple[tuple[str, str], ...]


class Scrape:
    """One reading of a server's metrics.

    Args:
        text: In Prometheus' text format.
        when: In seconds, on `time.monotonic`'s clock.
    """

    def __init__(self, text: str, when: float) -> None:
        self.when = when
        self._values: dict[str, dict[Labels, float]] = defaultdict(dict)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._values[sample.name][tuple(sorted(sample.labels.items()))] = sample.value

    def sums(self, name: str, *by: str) -> dict[tuple[str, ...], float]:
        """Returns the sums of a metric's values by some of its labels."""
        found: dict[tuple[str, ...], float] = defaultdict(float)
        for labels, value in self._values.get(name, {}).items():
            found[tuple(dict(labels).get(label, "") for label in by)] += value
        return found

    def total(self, name: str) -> float:
        """Returns the sum of a metric's values; NaN if there is no such metric."""
        return sum(self._values[name].values()) if name in self._values else math.nan


class Change:
    """What happened between two readings of one server.

    A counter that is less than before belongs to a server that was started since: what it counts
    now is what happened.
    """

    def __init__(self, before: Scrape, after: Scrape) -> None:
        self.seconds = max(after.when - before.when, 1e-9)
        self._before = before
        self._after = after

    def counts(self, name: str, *by: str) -> dict[tuple[str, ...], float]:
        """Returns how much a counter grew, by some of its labels; what did not is left out."""
        return {key: value for key, value in sorted(self._growth(name, *by).items()) if value}

    def count(self, name: str) -> float:
        """Returns how much a counter grew in all."""
        return sum(self.counts(name).values())

    def quantiles(
        self, name: str, shares: Iterable[float], *by: str
    ) -> dict[tuple[str, ...], list[float]]:
        """Returns quantiles of what a histogram was told, by some of its labels."""
        buckets: dict[tuple[str, ...], list[tuple[float, float]]] = defaultdict(list)
        for (*key, bound), count in self._growth(f"{name}_bucket", *by, "le").items():
            buckets[tuple(key)].append((float(bound), count))
        asked = list(shares)
        return {
            key: [_quantile(share, sorted(found)) for share in asked]
            for key, found in buckets.items()
            if any(count for _, count in found)
        }

    def _growth(self, name: str, *by: str) -> dict[tuple[str, ...], float]:
        before = self._before.sums(name, *by)
        return {
            key: value - before.get(key, 0) if value >= before.get(key, 0) else value
            for key, value in self._after.sums(name, *by).items()
        }


def fetch(address: str) -> Scrape:
    """Reads the metrics served at an address.

    Args:
        address: `host:port`.

    Raises:
        Unavailable: Nothing answers there, or not with metrics of a Trunkline server.
    """
    # The server's log names it as a URL.
    address = address.removeprefix("http://").removesuffix("/metrics")
    port = address.rpartition(":")[2]
    if port.isdecimal() and int(port) > _LAST_PORT:  # it would be taken for another one
        raise Unavailable(f"no metrics at {address}: there is no such port; {_MEND}")
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=_PATIENCE) as reply:
            text = reply.read().decode()
        scrape = Scrape(text, monotonic())
    except http.client.HTTPException:
        raise Unavailable(f"no metrics at {address}: what answers is not HTTP; {_MEND}") from None
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise Unavailable(f"no metrics at {address}: {reason}; {_MEND}") from None
    if math.isnan(scrape.total("trunkline_build_info")):
        raise Unavailable(f"no metrics at {address}: what answers is not a Trunkline server")
    return scrape


def _quantile(share: float, buckets: list[tuple[float, float]]) -> float:
    """Returns a quantile of cumulative counts by bound, evenly spread within a bucket."""
    wanted = share * buckets[-1][1]
    below, counted = 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted:
            if math.isinf(bound):
                return below
            return below + (bound - below) * (wanted - counted) / max(count - counted, 1e-9)
        below, counted = bound, count
    return below
