"""The bytes of requests and replies that a server holds, of each connection and of all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from trunkline.errors import Overloaded

_RETRY = 1.0  # seconds


class Holdings:
    """Counts what all calls hold. Belongs to one event loop.

    Args:
        most: Most bytes of all calls.
        most_of_one: Most bytes of the calls of one connection.
    """

    def __init__(self, most: int, most_of_one: int) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._of_one: Counter[str] = Counter()
        self._all = 0

    def take(self, peer: str, size: int) -> None:
        """Counts bytes of a connection.

        Raises:
            Overloaded: There would be too many.
        """
        _check(size, self._of_one[peer], self._most_of_one, "its connection")
        _check(size, self._all, self._most, "the server")
        self._all += size
        self._of_one[peer] += size

    def give_back(self, peer: str, size: int) -> None:
        """Counts them no longer."""
        self._all -= size
        self._of_one[peer] -= size
        if not self._of_one[peer]:
            del self._of_one[peer]


def _check(size: int, held: int, most: int, whose: str) -> None:
    if held + size > most:
        reason = f"{whose} holds {held} of {most} bytes of requests and replies, no room for {size}"
        raise Overloaded(reason, _RETRY)


class Held:
    """What one call holds, until it has ended."""

    def __init__(self, holdings: Holdings, peer: str) -> None:
        self._holdings = holdings
        self._peer = peer
        self._size = 0
        self._ended = False

    def take(self, size: int) -> None:
        """Counts bytes of a request or reply.

        Raises:
            Overloaded: There would be too many.
        """
        if not self._ended:
            self._holdings.take(self._peer, size)
            self._size += size

    def give_back(self, size: int) -> None:
        """Counts them no longer."""
        if not self._ended:
            self._holdings.give_back(self._peer, size)
            self._size -= size

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Counts bytes of a request while it is at work.

        Raises:
            Overloaded: There would be too many.
        """
        self.take(size)
        try:
            yield
        finally:
            self.give_back(size)

    def end(self) -> None:
        """Counts nothing of the call any longer: its replies are sent, or dropped."""
        self.give_back(self._size)
        self._ended = True


HELD: ContextVar[Held] = ContextVar("held")
"""What the call holds that is being answered."""
