"""The numbers that a setting may have, said beside its type and checked where it is read.

clip_norm: Annotated[float, Range(above=0.0)] = 1.0
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Range:
    """A range of finite numbers.

    Attributes:
        least, above: The lower bound, which is or is not in the range.
        most, below: The upper bound, which is or is not in the range.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        """Returns whether a number is in the range; NaN and infinity are in none."""
        return (
            -math.inf < value < math.inf
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """Returns the range in words, e.g. `above 0 and at most 1`."""
        bounds = {
            "at least": self.least,
            "above": self.above,
            "at most": self.most,
            "below": self.below,
        }
        return " and ".join(f"{word} {n:g}" for word, n in bounds.items() if n is not None)


Positive = Annotated[float, Range(above=0.0)]
NotNegative = Annotated[float, Range(least=0.0)]
Probability = Annotated[float, Range(least=0.0, most=1.0)]
BelowOne = Annotated[float, Range(least=0.0, below=1.0)]
Share = Annotated[float, Range(above=0.0, most=1.0)]
Count = Annotated[int, Range(least=1)]
CountOrZero = Annotated[int, Range(least=0)]
Seed = Annotated[int, Range(least=0, below=2**63)]
