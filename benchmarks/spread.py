"""What a few rounds say together, and whether one result is worse than another beyond the noise."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_ENOUGH = 5  # rounds, from which on one at either end may be an accident


@dataclass(frozen=True)
class Spread:
    """A figure, and between what numbers its rounds lie, where that is known."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Spread:
        """Returns the median and the range; of five rounds or more without one at either end."""
        inner = sorted(rounds)[1:-1] if len(rounds) >= _ENOUGH else rounds
        return cls(statistics.median(rounds), min(inner), max(inner))

    def below(self, other: Spread) -> bool:
        """Tells whether all rounds lie below all of the other's; never if a range is not known."""
        return self.high is not None and other.low is not None and self.high < other.low
