"""Calls that need no token: those that do not end by themselves leave room for all others."""

from __future__ import annotations

import asyncio
from typing import Any

from trunkline.errors import InvalidInput, Overloaded
from trunkline_serve.rpc.methods import Context

_RETRY = 1.0  # seconds


class Checks:
    """Bounds the checks of health that are open. Belongs to one event loop.

    A check ends at once, unless its caller never sends its request whole or never reads the answer.
    As many as that would leave no call to those who have a token. The oldest without a request
    makes room for the next; a call whose answer is not read cannot be ended, so that the next is
    refused.

    Args:
        most: Most checks that are open.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open = 0
        self._coming: dict[asyncio.Task[bytes], None] = {}  # oldest first

    async def read(self, context: Context) -> bytes:
        """Returns the request of a check, which counts until it has ended.

        Raises:
            Overloaded: Too many are open.
            InvalidInput: There is none.
        """
        self._make_room()
        self._open += 1
        ended: Any = self._ended  # its type stubs want a class of their own
        context.add_done_callback(ended)
        reading: asyncio.Task[bytes] = asyncio.ensure_future(request_of(context))
        self._coming[reading] = None
        try:
            await asyncio.wait({reading})
        finally:
            self._coming.pop(reading, None)
            reading.cancel()
        if reading.cancelled():
            raise self._too_many()
        return reading.result()

    def _make_room(self) -> None:
        if self._open < self._most:
            return
        if not self._coming:
            raise self._too_many()
        oldest = next(iter(self._coming))
        del self._coming[oldest]
        oldest.cancel()

    def _ended(self, _: object) -> None:
        self._open -= 1

    def _too_many(self) -> Overloaded:
        return Overloaded(f"{self._most} checks of health are open", _RETRY)


async def request_of(context: Context) -> bytes:
    """Returns the request of a call that has one.

    Raises:
        InvalidInput: It has none.
    """
    data = await context.read()
    if not isinstance(data, bytes):
        raise InvalidInput("request", "is missing")
    return data
