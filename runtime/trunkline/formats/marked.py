"""Texts with labelled spans, whatever format they came from or go to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Overlaps = Literal["error", "longest", "keep"]
"""What becomes of spans that overlap: refused, the longest stays, or all stay."""


class Mark(NamedTuple):
    """A labelled span of a text: code points `start` to `end`, end-exclusive.

    `score` is its probability where a model marked it, else None.
    """

    start: int
    end: int
    label: str
    score: float | None = None

    def overlaps(self, other: Mark) -> bool:
        """Tells if the two share a character."""
        return self.start < other.end and other.start < self.end


@dataclass(frozen=True)
class Marked:
    """A text and the spans marked in it.

    Attributes:
        text: The text.
        spans: In the order of the text.
        where: File and line, for errors.
        words: (start, end) of the words that labels go by; None where nobody has split the text.
    """

    text: str
    spans: tuple[Mark, ...]
    where: str = field(default="", compare=False)
    words: tuple[tuple[int, int], ...] | None = field(default=None, compare=False)


def longest(spans: tuple[Mark, ...]) -> tuple[Mark, ...]:
    """Returns spans without those that overlap a longer one; of two as long the first stays."""
    kept: list[Mark] = []
    for mark in sorted(spans, key=lambda mark: (mark.start - mark.end, mark.start)):
        if not any(mark.overlaps(other) for other in kept):
            kept.append(mark)
    return tuple(sorted(kept, key=lambda mark: mark.start))


def overlapping(spans: tuple[Mark, ...]) -> list[tuple[Mark, Mark]]:
    """Returns each span that overlaps an earlier one, with the one that reaches farthest.

    Args:
        spans: In the order of the text.
    """
    pairs = []
    far: Mark | None = None
    for mark in spans:
        if far is not None and mark.overlaps(far):
            pairs.append((far, mark))
        if far is None or mark.end > far.end:
            far = mark
    return pairs
