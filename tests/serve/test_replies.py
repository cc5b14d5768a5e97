"""Replies of a stream, in order or as they are ready, while several are worked on."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serve.hosting import PATIENCE
from trunkline_serve.rpc import replies as module
from trunkline_serve.rpc.holdings import HELD, Held, Holdings
from trunkline_serve.security.guard import CALLER
from trunkline_serve.security.tokens import Bucket, Caller


async def each(items: Sequence[int]) -> AsyncIterator[int]:
    for item in items:
        yield item


replies = partial(module.replies, weigh=lambda item: 10)


def run(work: Coroutine[Any, Any, Any], most: int = 1000) -> Any:
    """Runs work on requests and replies that count as 10 bytes each."""

    async def main() -> Any:
        holdings = Holdings(most, most)
        HELD.set(Held(holdings, "peer"))
        found = await asyncio.wait_for(work, PATIENCE)
        for _ in range(5):
            await asyncio.sleep(0)
        Held(holdings, "peer").take(most)  # nothing is held any longer
        return found

    return asyncio.run(main())


class Answers:
    """Answers when told to; knows which requests were begun, and which were cancelled."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.cancelled: list[int] = []
        self.go = asyncio.Event()

    async def __call__(self, item: int) -> int:
        self.begun.append(item)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.append(item)
            raise
        return -item


def told(item: int, error: Exception) -> int:
    """Makes the reply to a request that failed: a thousand more."""
    return 1000 + item


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@settings(deadline=None, max_examples=50)
@given(
    delays=st.lists(st.integers(0, 5), max_size=12),
    most=st.integers(1, 4),
    in_order=st.booleans(),
)
def test_every_request_has_its_reply_and_in_order_if_wanted(
    delays: list[int], most: int, in_order: bool
) -> None:
    working = high = 0

    async def answer(at: int) -> int:
        nonlocal working, high
        working += 1
        high = max(high, working)
        for _ in range(delays[at]):
            await asyncio.sleep(0)
        working -= 1
        return at

    async def collect() -> list[int]:
        found = replies(each(range(len(delays))), answer, told, most, in_order=in_order)
        return [reply async for reply in found]

    found, asked = run(collect()), list(range(len(delays)))
    assert (found if in_order else sorted(found)) == asked
    assert high <= most


@pytest.mark.parametrize("in_order", [False, True])
def test_no_more_is_begun_than_may_be_unanswered(in_order: bool) -> None:
    async def work() -> None:
        answers = Answers()
        found = replies(each(range(9)), answers, told, 3, in_order=in_order)
        first = asyncio.ensure_future(anext(found))
        await settle()
        assert answers.begun == [0, 1, 2]
        answers.go.set()
        assert await first == 0
        await settle()
        assert answers.begun == [0, 1, 2], "the first reply is not yet taken"
        assert await anext(found) == -1
        await settle()
        assert answers.begun == [0, 1, 2, 3]
        assert [reply async for reply in found] == [-at for at in range(2, 9)]

    run(work())


@pytest.mark.parametrize("in_order", [False, True])
def test_what_is_begun_is_cancelled_when_the_caller_goes(in_order: bool) -> None:
    async def work() -> None:
        answers = Answers()
        found = replies(each(range(9)), answers, told, 3, in_order=in_order)
        first = asyncio.ensure_future(anext(found))
        await settle()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await settle()
        assert sorted(answers.cancelled) == [0, 1, 2]
        assert answers.begun == [0, 1, 2]

    run(work())


def test_what_ends_the_requests_is_raised_behind_the_replies() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        yield 2
        raise ValueError("unreadable")

    async def work() -> None:
        answers = Answers()
        answers.go.set()
        found = replies(broken(), answers, told, 4, in_order=True)
        assert [await anext(found), await anext(found)] == [-1, -2]
        with pytest.raises(ValueError, match="unreadable"):
            await anext(found)

    run(work())


def test_replies_come_as_they_are_ready() -> None:
    async def answer(at: int) -> int:
        for _ in range(5 - at):
            await asyncio.sleep(0)
        return at

    async def collect() -> list[int]:
        return [reply async for reply in replies(each(range(5)), answer, told, 5)]

    assert run(collect()) == [4, 3, 2, 1, 0]


def test_what_ends_the_requests_ends_replies_that_need_not_be_in_order() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise ValueError("unreadable")

    async def work() -> None:
        answers = Answers()
        with pytest.raises(ValueError, match="unreadable"):
            await anext(replies(broken(), answers, told, 4))
        await settle()
        assert answers.cancelled == answers.begun

    run(work())


def test_a_request_that_fails_has_a_reply_of_its_own() -> None:
    async def answer(at: int) -> int:
        if at % 2:
            raise ValueError("odd")
        return at

    async def collect() -> list[int]:
        return [reply async for reply in replies(each(range(4)), answer, told, 2, in_order=True)]

    assert run(collect()) == [0, 1001, 2, 1003]


@pytest.mark.parametrize("in_order", [False, True])
def test_requests_after_the_first_count_as_calls(in_order: bool) -> None:
    async def answer(at: int) -> int:
        return at

    async def collect() -> list[int]:
        CALLER.set(Caller("app", False, Bucket(1e-6, 2)))
        found = replies(each(range(5)), answer, told, 5, in_order=in_order)
        return sorted([reply async for reply in found])

    assert run(collect()) == [0, 1, 2, 1003, 1004]


def test_replies_that_nobody_takes_have_no_room_for_more() -> None:
    async def answer(at: int) -> int:
        return at

    async def collect() -> list[int]:
        found = replies(each(range(6)), answer, told, 6, in_order=True)
        first = await anext(found)
        await settle()
        return [first, *[reply async for reply in found]]

    assert run(collect(), 30) == [0, 1, 2, 1003, 1004, 1005]
