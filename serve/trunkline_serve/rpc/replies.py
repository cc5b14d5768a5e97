"""Replies to the requests of a stream, a bounded number of which are worked on at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from trunkline_serve.faults import ENDING, contained
from trunkline_serve.security.guard import Meter

Asked = TypeVar("Asked")
Reply = TypeVar("Reply")


async def replies(
    requests: AsyncIterator[Asked],
    answer: Callable[[Asked], Coroutine[Any, Any, Reply]],
    failed: Callable[[Asked, Exception], Reply],
    most: int,
    *,
    in_order: bool = False,
) -> AsyncIterator[Reply]:
    """Yields the reply to each request; closed early, it drops the work that is under way.

    Args:
        requests: Read no further while `most` have no reply that was taken: a caller that does not
            read replies is not read from either. What it raises ends the replies: at once, or
            behind those that come before it `in_order`.
        answer: Must not give None. Requests after the first count as calls: see `Meter`.
        failed: Makes the reply to a request that `answer` raised an error for, or that was one too
            many.
        most: Requests to work on at once.
        in_order: Whether replies come in the order of their requests, not as they are ready.
    """
    queue: asyncio.Queue[asyncio.Task[Reply | None]] = asyncio.Queue()
    room = asyncio.Semaphore(most)
    tasks: set[asyncio.Task[Reply | None]] = set()
    meter = Meter()

    async def one(request: Asked) -> Reply:
        try:
            meter.charge()
            return await answer(request)
        except ENDING:
            raise
        except BaseException as error:  # native code may panic
            return failed(request, contained(error))

    def start(work: Coroutine[Any, Any, Reply | None], *, when_done: bool) -> None:
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        if when_done:
            task.add_done_callback(queue.put_nowait)
        else:
            queue.put_nowait(task)

    async def read() -> None:
        await room.acquire()
        async for request in requests:
            start(one(request), when_done=not in_order)
            await room.acquire()

    try:
        start(read(), when_done=True)
        while tasks:
            task = await queue.get()
            reply = await task
            tasks.discard(task)
            if reply is not None:
                yield reply
                room.release()
    finally:
        for task in tasks:
            task.cancel()
