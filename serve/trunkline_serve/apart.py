"""The thread that tokenises and decodes what is long, and how long that should take.

What is shorter goes first: a page that comes after a book is done before a book that waits, and
between the documents of a call. Nothing waits for ever: what comes later and passes a piece is at
most `_PATIENCE` times as large as it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from trunkline.errors import DeadlinePassed, Unavailable
from trunkline_serve.faults import contained

T = TypeVar("T")

# Tokenising or decoding a byte takes about half a microsecond, a hop to a thread and back a hundred
# and its turn there: what is short holds up the event loop for less than it would cost elsewhere.
INLINE_BYTES = 4096
_PATIENCE = 16
_PART = 32_768
_FIRST_PACE = 0.5e-6  # seconds for a byte
_PACE_WEIGHT = 0.1  # of the latest piece in the running mean, at least


@dataclass(order=True)
class _Piece:
    """Work that waits; the least is next."""

    turn: int
    number: int
    size: int = field(compare=False)
    deadline: float | None = field(compare=False)
    work: Callable[[], Any] = field(compare=False)
    future: asyncio.Future[Any] = field(compare=False)


@dataclass(eq=False)
class _Job:
    """All that one call has done: bytes that are left of it."""

    left: int


class Apart:
    """Does work on texts beside the event loop it is made for, a piece at a time."""

    def __init__(self) -> None:
        self._ready = threading.Condition()
        self._line: list[_Piece] = []
        self._jobs: set[_Job] = set()
        self._numbers = itertools.count()
        self._dispatched = self._running = 0  # bytes
        self._begun = 0.0
        self._pace = _FIRST_PACE
        self._done = 0
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="trunkline-text", daemon=True)
        self._thread.start()

    async def do(
        self, sizes: Sequence[int], work: Callable[[int], T], deadline: float | None = None
    ) -> list[T]:
        """Returns what work on some items gives: done here if it is little, else on the thread.

        Args:
            sizes: Bytes to tokenise or decode for each item.
            work: Does it for one, by its index.
            deadline: On `time.monotonic`'s clock. What still waits then is not done.

        Raises:
            DeadlinePassed: It did.
            Unavailable: The server shuts down.
        """
        if sum(sizes) <= INLINE_BYTES:
            return [work(at) for at in range(len(sizes))]
        done: list[T] = []
        job = _Job(sum(sizes))
        self._jobs.add(job)
        try:
            for items, size in _parts(sizes):
                done += await self._piece(size, partial(_each, work, items), deadline)
                job.left -= size
        finally:
            self._jobs.discard(job)
        return done

    def expected_wait(self, size: int) -> float:
        """Returns the seconds until work on `size` bytes that comes now should be done.

        The thread is shared: as much of every other call's work is done meanwhile.
        """
        if size <= INLINE_BYTES:
            return 0.0
        others = sum(min(size, job.left) for job in self._jobs)
        with self._ready:
            running, pace = self._running, self._pace
            if running:  # it may be slower than any before
                pace = max(pace, (monotonic() - self._begun) / running)
        return (running + others + size) * pace

    def close(self) -> None:
        """Fails what waits, and ends the thread after what it does."""
        with self._ready:
            self._closed = True
            waiting, self._line = self._line, []
            self._ready.notify()
        for piece in waiting:
            _settle(piece, None, Unavailable("the server is shutting down"))
        self._thread.join()

    async def _piece(self, size: int, work: Callable[[], T], deadline: float | None) -> T:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self._ready:
            if self._closed:
                raise Unavailable("the server is shutting down")
            number = next(self._numbers)
            piece = _Piece(self._turn(size), number, size, deadline, work, future)
            heapq.heappush(self._line, piece)
            self._ready.notify()
        return await future

    def _turn(self, size: int) -> int:
        """Returns the turn of a piece that comes now."""
        return self._dispatched + _PATIENCE * size

    def _work(self) -> None:
        while self._step():
            pass

    def _step(self) -> bool:
        """Does one piece, which is not held afterwards; False when closed."""
        piece = self._next()
        if piece is None:
            return False
        begin = monotonic()
        if piece.deadline is not None and begin >= piece.deadline:
            _settle(piece, None, DeadlinePassed("the deadline passed while the text waited"))
            return True
        try:
            result, error = piece.work(), None
        except BaseException as failed:  # native code may panic; the thread goes on
            result, error = None, contained(failed)
        self._learn((monotonic() - begin) / piece.size)
        _settle(piece, result, error)
        return True

    def _learn(self, latest: float) -> None:
        self._done += 1
        self._pace += max(_PACE_WEIGHT, 1 / self._done) * (latest - self._pace)

    def _next(self) -> _Piece | None:
        with self._ready:
            self._running = 0
            while not self._closed:
                while self._line:
                    piece = heapq.heappop(self._line)
                    if _wanted(piece):
                        self._running, self._begun = piece.size, monotonic()
                        self._dispatched += piece.size
                        return piece
                self._ready.wait()
        return None


def _parts(sizes: Sequence[int]) -> Iterator[tuple[range, int]]:
    """Cuts items into parts of some size: others have their turn between them."""
    first = size = 0
    for at, one in enumerate(sizes):
        size += one
        if size >= _PART or at == len(sizes) - 1:
            yield range(first, at + 1), size
            first, size = at + 1, 0


def _each(work: Callable[[int], T], items: range) -> list[T]:
    return [work(at) for at in items]


def _wanted(piece: _Piece) -> bool:
    return not piece.future.cancelled()


def _settle(piece: _Piece, result: Any, error: Exception | None) -> None:
    """Hands over what became of a piece to the event loop that waits for it."""

    def settle() -> None:
        if piece.future.done():
            return
        if error is None:
            piece.future.set_result(result)
        else:
            piece.future.set_exception(error)

    with suppress(RuntimeError):  # the loop is closed: nobody waits
        piece.future.get_loop().call_soon_threadsafe(settle)
