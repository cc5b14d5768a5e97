"""Code-point offsets in the units other languages count in."""

from __future__ import annotations

import enum

import numpy as np
from numpy.typing import NDArray

_UTF8_LIMITS = (0x7F, 0x7FF, 0xFFFF)
_UTF16_LIMITS = (0xFFFF,)


class OffsetUnit(enum.Enum):
    """What one step of an offset is: Python counts code points, Java UTF-16 units, Go bytes."""

    CODE_POINT = "code-point"
    UTF8_BYTE = "utf8-byte"
    UTF16_UNIT = "utf16-unit"


class OffsetMap:
    """Turns code-point offsets into one text into another unit.

    Args:
        text: The text the offsets point into.
        unit: The unit wanted.
    """

    def __init__(self, text: str, unit: OffsetUnit) -> None:
        self._end = len(text)
        same = unit is OffsetUnit.CODE_POINT or text.isascii()
        self._positions = None if same else _positions(text, unit)

    def __call__(self, offset: int) -> int:
        """Returns the code-point `offset` in the wanted unit."""
        return offset if self._positions is None else int(self._positions[offset])

    def back(self, offset: int) -> int | None:
        """Returns the code point that stands at `offset` in the wanted unit.

        None if that is out of the text, or inside a character.
        """
        if self._positions is None:
            return offset if 0 <= offset <= self._end else None
        at = int(np.searchsorted(self._positions, offset))
        found = at < len(self._positions) and self._positions[at] == offset
        return at if found else None


def _positions(text: str, unit: OffsetUnit) -> NDArray[np.int64]:
    """Returns where each code point starts in the wanted unit, and where the text ends."""
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    # Each limit a code point passes costs one more unit.
    limits = _UTF8_LIMITS if unit is OffsetUnit.UTF8_BYTE else _UTF16_LIMITS
    widths = 1 + sum((points > limit).astype(np.int64) for limit in limits)
    return np.concatenate([[0], np.cumsum(widths)])
