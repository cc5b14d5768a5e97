"""Code-point offsets in the units other languages count in."""

from __future__ import annotations

import enum

import numpy as np
from numpy.typing import NDArray


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
        same = unit is OffsetUnit.CODE_POINT or text.isascii()
        self._positions = None if same else _positions(text, unit)

    def __call__(self, offset: int) -> int:
        """Returns the code-point `offset` in the wanted unit."""
        return offset if self._positions is None else int(self._positions[offset])


def _positions(text: str, unit: OffsetUnit) -> NDArray[np.int64]:
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    if unit is OffsetUnit.UTF8_BYTE:
        widths = 1 + (points > 0x7F) + (points > 0x7FF) + (points > 0xFFFF).astype(np.int64)
    else:
        widths = 1 + (points > 0xFFFF).astype(np.int64)
    return np.concatenate([[0], np.cumsum(widths)])
