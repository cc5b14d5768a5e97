"""The thread for long texts: whose turn it is, what it should take, and what it does not do."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from time import monotonic
from typing import Any

import pytest

from tests.serve.hosting import PATIENCE
from trunkline.errors import DeadlinePassed, Unavailable
from trunkline_serve.apart import INLINE_BYTES, Apart

LONG = 2 * INLINE_BYTES


async def do(
    apart: Apart, size: int, work: Callable[[], Any], deadline: float | None = None
) -> Any:
    """Does work on one item."""
    (done,) = await apart.do([size], lambda _: work(), deadline)
    return done


class Held:
    """Work that goes on until it is told to end."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        assert self.go.wait(PATIENCE)

    async def wait_until_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, PATIENCE)


def run(test: Callable[[Apart, Held], Awaitable[None]]) -> None:
    """Runs a test while the thread is held by a first piece of work."""

    async def main() -> None:
        held = Held()
        with closing(Apart()) as apart:
            first = asyncio.create_task(do(apart, 10 * LONG, held))
            await held.wait_until_begun()
            try:
                async with asyncio.timeout(PATIENCE):
                    await test(apart, held)
            finally:
                held.go.set()
            await first

    asyncio.run(main())


def test_short_work_is_done_on_the_spot() -> None:
    async def test(apart: Apart, held: Held) -> None:
        assert await do(apart, INLINE_BYTES, threading.get_ident) == threading.get_ident()
        assert apart.expected_wait(INLINE_BYTES) == 0

    run(test)


def test_what_is_shorter_goes_before_what_is_longer() -> None:
    async def test(apart: Apart, held: Held) -> None:
        done: list[int] = []
        sizes = [9 * LONG, 2 * LONG, 5 * LONG, LONG]
        pieces = [asyncio.create_task(do(apart, s, lambda s=s: done.append(s))) for s in sizes]
        await asyncio.sleep(0)
        held.go.set()
        await asyncio.gather(*pieces)
        assert done == sorted(sizes)

    run(test)


def test_the_work_of_others_is_counted_as_far_as_it_goes_before() -> None:
    async def main() -> None:
        with closing(Apart()) as apart:
            alone = apart.expected_wait(LONG)
            held = Held()
            first = asyncio.create_task(do(apart, LONG, held))
            await held.wait_until_begun()
            large = [asyncio.create_task(do(apart, 50 * LONG, lambda: None)) for _ in range(3)]
            await asyncio.sleep(0)
            # The one that runs, counted twice, three shares of the same size, and its own.
            assert apart.expected_wait(LONG) >= 6 * alone - 1e-9
            assert apart.expected_wait(100 * LONG) >= 252 * alone - 1e-9
            for one in large:
                one.cancel()
            await asyncio.sleep(0)
            slow = apart.expected_wait(LONG)
            await asyncio.sleep(0.1)
            assert apart.expected_wait(LONG) > slow, "what runs is slower than was thought"
            held.go.set()
            await first
            assert apart.expected_wait(0) == 0

    asyncio.run(main())


def test_others_have_their_turn_between_the_items_of_a_call() -> None:
    async def test(apart: Apart, held: Held) -> None:
        done: list[Any] = []
        sizes = [8 * LONG] * 20
        book = asyncio.create_task(apart.do(sizes, done.append))
        await asyncio.sleep(0)
        held.go.set()
        while 2 not in done:
            await asyncio.sleep(0)
        await do(apart, LONG, lambda: done.append("page"))
        assert await book == [None] * 20
        assert [one for one in done if one != "page"] == list(range(20))
        assert done.index("page") < 20

    run(test)


def test_nobody_waits_for_what_is_late_or_given_up() -> None:
    async def test(apart: Apart, held: Held) -> None:
        done: list[str] = []
        late = asyncio.create_task(do(apart, LONG, lambda: done.append("late"), monotonic() + 0.01))
        given_up = asyncio.create_task(do(apart, LONG, lambda: done.append("given up")))
        good = asyncio.create_task(do(apart, LONG, lambda: done.append("good"), monotonic() + 99))
        await asyncio.sleep(0.02)
        given_up.cancel()
        held.go.set()
        await good
        with pytest.raises(DeadlinePassed):
            await late
        assert done == ["good"]

    run(test)


def test_an_error_is_that_of_its_caller() -> None:
    async def test(apart: Apart, held: Held) -> None:
        def fail() -> None:
            raise ValueError("mine")

        failing = asyncio.create_task(do(apart, LONG, fail))
        sound = asyncio.create_task(do(apart, LONG, lambda: "sound"))
        await asyncio.sleep(0)
        held.go.set()
        with pytest.raises(ValueError, match="mine"):
            await failing
        assert await sound == "sound"

    run(test)


def test_closing_fails_what_waits() -> None:
    async def main() -> None:
        held, apart = Held(), Apart()
        first = asyncio.create_task(do(apart, LONG, held))
        await held.wait_until_begun()
        waiting = asyncio.create_task(do(apart, LONG, lambda: None))
        await asyncio.sleep(0)
        held.go.set()
        apart.close()
        with pytest.raises(Unavailable):
            await waiting
        await first
        with pytest.raises(Unavailable):
            await do(apart, LONG, lambda: None)

    asyncio.run(main())


def test_the_pace_is_learned() -> None:
    async def main() -> None:
        with closing(Apart()) as apart:
            before = apart.expected_wait(LONG)
            for _ in range(20):
                await do(apart, LONG, lambda: threading.Event().wait(0.02))
            assert apart.expected_wait(LONG) > 2 * before

    asyncio.run(main())


def test_nothing_waits_for_ever() -> None:
    async def test(apart: Apart, held: Held) -> None:
        done: list[str] = []
        book = asyncio.create_task(do(apart, 2 * LONG, lambda: done.append("book")))
        held.go.set()

        async def pages() -> None:
            for _ in range(100):
                await do(apart, LONG, lambda: done.append("page"))

        callers = [asyncio.create_task(pages()) for _ in range(4)]
        await book
        assert done.index("book") < 50
        await asyncio.gather(*callers)

    run(test)
