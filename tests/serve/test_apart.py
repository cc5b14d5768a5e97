"""The thread for long texts: whose turn it is, what it should take, and what it does not do."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from time import monotonic

import pytest

from tests.serve.hosting import PATIENCE
from trunkline.errors import DeadlinePassed, Unavailable
from trunkline_serve.apart import INLINE_BYTES, Apart

LONG = 2 * INLINE_BYTES


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
            first = asyncio.create_task(apart.do(10 * LONG, held))
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
        assert await apart.do(INLINE_BYTES, threading.get_ident) == threading.get_ident()
        assert apart.expected_wait(INLINE_BYTES) == 0

    run(test)


def test_what_is_shorter_goes_before_what_is_longer() -> None:
    async def test(apart: Apart, held: Held) -> None:
        done: list[int] = []
        sizes = [9 * LONG, 2 * LONG, 5 * LONG, LONG]
        pieces = [asyncio.create_task(apart.do(s, lambda s=s: done.append(s))) for s in sizes]
        await asyncio.sleep(0)
        held.go.set()
        await asyncio.gather(*pieces)
        assert done == sorted(sizes)

    run(test)


def test_what_waits_and_goes_before_is_counted() -> None:
    async def test(apart: Apart, held: Held) -> None:
        alone = apart.expected_wait(LONG)
        large = asyncio.create_task(apart.do(50 * LONG, lambda: None))
        await asyncio.sleep(0)
        assert apart.expected_wait(LONG) == alone, "it goes before the large piece"
        assert apart.expected_wait(60 * LONG) > apart.expected_wait(40 * LONG) + alone / 3
        large.cancel()
        await asyncio.sleep(0)
        assert apart.expected_wait(60 * LONG) == pytest.approx(alone * 70 / 11)

    run(test)


def test_nobody_waits_for_what_is_late_or_given_up() -> None:
    async def test(apart: Apart, held: Held) -> None:
        done: list[str] = []
        late = asyncio.create_task(apart.do(LONG, lambda: done.append("late"), monotonic() + 0.01))
        given_up = asyncio.create_task(apart.do(LONG, lambda: done.append("given up")))
        good = asyncio.create_task(apart.do(LONG, lambda: done.append("good"), monotonic() + 99))
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

        failing = asyncio.create_task(apart.do(LONG, fail))
        sound = asyncio.create_task(apart.do(LONG, lambda: "sound"))
        await asyncio.sleep(0)
        held.go.set()
        with pytest.raises(ValueError, match="mine"):
            await failing
        assert await sound == "sound"

    run(test)


def test_closing_fails_what_waits() -> None:
    async def main() -> None:
        held, apart = Held(), Apart()
        first = asyncio.create_task(apart.do(LONG, held))
        await held.wait_until_begun()
        waiting = asyncio.create_task(apart.do(LONG, lambda: None))
        await asyncio.sleep(0)
        held.go.set()
        apart.close()
        with pytest.raises(Unavailable):
            await waiting
        await first
        with pytest.raises(Unavailable):
            await apart.do(LONG, lambda: None)

    asyncio.run(main())


def test_the_pace_is_learned() -> None:
    async def main() -> None:
        with closing(Apart()) as apart:
            before = apart.expected_wait(LONG)
            for _ in range(20):
                await apart.do(LONG, lambda: threading.Event().wait(0.02))
            assert apart.expected_wait(LONG) > 2 * before

    asyncio.run(main())


def test_nothing_waits_for_ever() -> None:
    async def test(apart: Apart, held: Held) -> None:
        done: list[str] = []
        book = asyncio.create_task(apart.do(2 * LONG, lambda: done.append("book")))
        held.go.set()

        async def pages() -> None:
            for _ in range(100):
                await apart.do(LONG, lambda: done.append("page"))

        callers = [asyncio.create_task(pages()) for _ in range(4)]
        await book
        assert done.index("book") < 50
        await asyncio.gather(*callers)

    run(test)
