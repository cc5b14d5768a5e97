"""Memory that a front and the engine have both mapped: who may use which part, and its header.

It belongs to a file without a name, whose descriptor a front hands to the engine when it connects:
the system takes it back as soon as both are gone, however they died.
"""

from __future__ import annotations

import mmap
import os
from bisect import bisect_left
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

_ALIGN = 64  # bytes; of blocks, and the size of the header
_QUEUED, _SEEN, _WAIT, _WAIT_SOME = range(4)
SOME_TOKENS = 512
"""Size of the call whose wait the header has, beside that of an empty call."""


class Allocator:
    """Hands out parts of a range of bytes, the first that fits.

    Args:
        begin, end: The range; `begin` is a multiple of 64.
    """

    def __init__(self, begin: int, end: int) -> None:
        self._free = [(begin, end)]  # sorted, and never adjacent
        self._taken: dict[int, int] = {}

    def take(self, size: int) -> int | None:
        """Returns where `size` bytes are free, a multiple of 64; None if they are nowhere."""
        size = -(-max(size, 1) // _ALIGN) * _ALIGN
        for at, (begin, end) in enumerate(self._free):
            if end - begin >= size:
                self._free[at : at + 1] = [(begin + size, end)] if end - begin > size else []
                self._taken[begin] = begin + size
                return begin
        return None

    def give_back(self, begin: int) -> None:
        """Frees what `take` returned.

        Raises:
            KeyError: It is not taken.
        """
        end = self._taken.pop(begin)
        at = bisect_left(self._free, (begin, end))
        first, last = at, at
        if at < len(self._free) and self._free[at][0] == end:
            end, last = self._free[at][1], at + 1
        if at and self._free[at - 1][1] == begin:
            begin, first = self._free[at - 1][0], at - 1
        self._free[first:last] = [(begin, end)]


class Memory:
    """Mapped memory, whose header the engine writes and the front reads.

    Args:
        descriptor: Of the file; not needed any longer once it is mapped.

    Attributes:
        bytes: All of it.
        body: Where the header ends.
        room: Bytes behind it.

    Raises:
        OSError: It cannot be mapped.
    """

    body = _ALIGN

    def __init__(self, descriptor: int) -> None:
        self.bytes: Bytes = np.frombuffer(mmap.mmap(descriptor, 0), np.uint8)
        self.room = len(self.bytes) - self.body
        self._header = self.bytes[:_ALIGN].view(np.float64)

    def say_queue(self, queued: int, seen: int) -> None:
        """Writes the tokens that wait, and all tokens that ever came from this front."""
        self._header[_QUEUED], self._header[_SEEN] = queued, seen

    def say_waits(self, empty: float, some: float) -> None:
        """Writes the seconds that an empty call would take now, and one of SOME_TOKENS."""
        self._header[_WAIT], self._header[_WAIT_SOME] = empty, some

    def queued(self, sent: int) -> int:
        """Returns the tokens that wait, with those on their way of the `sent` ever sent."""
        return int(self._header[_QUEUED] + sent - self._header[_SEEN])

    def expected_wait(self, tokens: int) -> float:
        """Returns the seconds until a call of so many tokens, made now, should be done."""
        empty, some = float(self._header[_WAIT]), float(self._header[_WAIT_SOME])
        return empty + (some - empty) * tokens / SOME_TOKENS


def nameless_file(size: int) -> BinaryIO:
    """Returns a file in memory, for the caller to close; a page takes room once it is written."""
    file = os.fdopen(os.memfd_create("trunkline-front"), "r+b", buffering=0)
    file.truncate(size)
    return file
