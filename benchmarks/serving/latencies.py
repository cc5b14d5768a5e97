"""Latencies in an HdrHistogram, which bounds memory and error however many there are."""

from __future__ import annotations

from hdrh.histogram import HdrHistogram

_LOWEST, _HIGHEST, _DIGITS = 1, 600_000_000, 3  # microseconds
_MICRO = 1e6
_ALL = 100.0  # per cent


class Latencies:
    """Times in seconds, kept to three digits. Can be sent to another process."""

    def __init__(self) -> None:
        self._histogram = HdrHistogram(_LOWEST, _HIGHEST, _DIGITS)

    def __len__(self) -> int:
        """Number of times recorded."""
        return int(self._histogram.get_total_count())

    def __getstate__(self) -> bytes:
        """Returns the histogram in HdrHistogram's own encoding."""
        return bytes(self._histogram.encode())

    def __setstate__(self, state: bytes) -> None:
        """Takes what `__getstate__` gave."""
        self._histogram = HdrHistogram.decode(state)

    def record(self, seconds: float) -> None:
        """Adds one time; those beyond ten minutes count as ten minutes."""
        self._histogram.record_value(int(min(max(seconds * _MICRO, _LOWEST), _HIGHEST)))

    def add(self, other: Latencies) -> None:
        """Adds all times of another."""
        self._histogram.add(other._histogram)

    def at(self, percentile: float) -> float | None:
        """Returns a percentile in seconds; None if nothing was recorded."""
        if not len(self):
            return None
        return float(self._histogram.get_value_at_percentile(percentile)) / _MICRO

    def ms(self, percentile: float) -> float | None:
        """Returns a percentile in milliseconds; None if nothing was recorded."""
        return _ms(self.at(percentile))

    def tail_ms(self, percentile: float) -> float | None:
        """Returns a percentile in milliseconds; None if it would be the largest of too few times.

        The 99th takes a hundred times, the 99.9th a thousand.
        """
        enough = len(self) * (_ALL - percentile) >= _ALL - 1e-6
        return self.ms(percentile) if enough else None

    def mean_ms(self) -> float | None:
        """Returns the mean in milliseconds; None if nothing was recorded."""
        return _ms(self._histogram.get_mean_value() / _MICRO if len(self) else None)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
