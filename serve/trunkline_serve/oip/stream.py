"""Answers in the order of their requests, several of which are worked on at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

Asked = TypeVar("Asked")
Reply = TypeVar("Reply")


async def in_order(
    requests: AsyncIterator[Asked], answer: Callable[[Asked], Awaitable[Reply]], most: int
) -> AsyncIterator[Reply]:
    """Gives the answer to each request.

    Args:
        requests: Read no further while `most` have no answer that was taken.
        answer: Must not raise.
        most: Requests to work on at once.
    """
    begun: asyncio.Queue[asyncio.Future[Reply] | None] = asyncio.Queue()
    room = asyncio.Semaphore(most)
    reader = asyncio.ensure_future(_read(requests, answer, begun, room))
    task: asyncio.Future[Reply] | None = None
    try:
        while (task := await begun.get()) is not None:
            yield await task
            room.release()
        await reader  # raises what ended the requests
    finally:
        reader.cancel()
        for left in (task, *(begun.get_nowait() for _ in range(begun.qsize()))):
            if left is not None:
                left.cancel()


async def _read(
    requests: AsyncIterator[Asked],
    answer: Callable[[Asked], Awaitable[Reply]],
    begun: asyncio.Queue[asyncio.Future[Reply] | None],
    room: asyncio.Semaphore,
) -> None:
    """Begins to answer requests until there are no more, which None stands for."""
    try:
        await room.acquire()
        async for request in requests:
            begun.put_nowait(asyncio.ensure_future(answer(request)))
            await room.acquire()
    finally:
        begun.put_nowait(None)
