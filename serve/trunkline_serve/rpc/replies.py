"""Replies to the requests of a stream, a bounded number of which are worked on at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Generic, NamedTuple, TypeVar

from google.protobuf.message import Message

from trunkline_serve.faults import ENDING, contained
from trunkline_serve.rpc.holdings import HELD
from trunkline_serve.security.guard import Meter

Asked = TypeVar("Asked")
Reply = TypeVar("Reply")


class _Ready(NamedTuple, Generic[Reply]):
    """A reply, and what it is counted as."""

    reply: Reply
    size: int


def _byte_size(message: Message) -> int:
    return message.ByteSize()


async def replies(
    requests: AsyncIterator[Asked],
    answer: Callable[[Asked], Coroutine[Any, Any, Reply]],
    failed: Callable[[Asked, Exception], Reply],
    most: int,
    *,
    in_order: bool = False,
    weigh: Callable[[Any], int] = _byte_size,
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
        weigh: Returns the bytes that a request or reply counts as; see `Held`.
    """
    queue: asyncio.Queue[asyncio.Task[_Ready[Reply] | None]] = asyncio.Queue()
    room = asyncio.Semaphore(most)
    tasks: set[asyncio.Task[_Ready[Reply] | None]] = set()
    meter, held = Meter(), HELD.get()

    async def one(request: Asked) -> _Ready[Reply]:
        try:
            meter.charge()
            with held.holding(weigh(request)):
                reply = await answer(request)
            size = weigh(reply)
            held.take(size)
            return _Ready(reply, size)
        except ENDING:
            raise
        except BaseException as error:  # native code may panic
            return _Ready(failed(request, contained(error)), 0)

    def start(work: Coroutine[Any, Any, _Ready[Reply] | None], *, when_done: bool) -> None:
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
            ready = await task
            tasks.discard(task)
            if ready is not None:
                yield ready.reply
                held.give_back(ready.size)
                room.release()
    finally:
        for task in tasks:
            task.cancel()
