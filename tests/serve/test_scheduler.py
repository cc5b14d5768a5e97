import asyncio
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.serve.hosting import PATIENCE
from trunkline.encode import Row
from trunkline.errors import DeadlinePassed, RuntimeFault, Unavailable
from trunkline.kinds import Output
from trunkline.runner import RowOutputs
from trunkline_serve.events import BatchRan, Everyone, Listener
from trunkline_serve.scheduler import Scheduler
from trunkline_serve.turns import Batch, Job, Queue, Ran

NER, QA = Output("ner.logits", ("batch",)), Output("qa.start_logits", ("batch",))
BUDGET = 100
lengths = st.lists(st.integers(1, 40), min_size=1, max_size=12)


def row(length: int, name: int = 0) -> Row:
    return Row(np.full(length, name), np.zeros(length, np.int64), 1, 0, length, 0, length)


class Echo:
    """Gives each row its own name back; can be held, and fails for rows named -1."""

    def __init__(self, lanes: int = 1, width: int = 1000) -> None:
        self.lanes = lanes
        self.budget = BUDGET
        self._width = width
        self.batches: list[Sequence[Row]] = []
        self.outputs: list[Sequence[Output]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.busy = threading.Semaphore(0)

    def group(self, length: int) -> int:
        return length // self._width

    def computed(self, lengths: Sequence[int]) -> int:
        return sum(lengths)

    def run(self, rows: Sequence[Row], outputs: Sequence[Output]) -> list[RowOutputs]:
        self.batches.append(rows)
        self.outputs.append(outputs)
        self.busy.release()
        assert self.gate.wait(PATIENCE)
        if any(one.input_ids[0] == -1 for one in rows):
            raise ValueError("bad row")
        return [{"name": one.input_ids} for one in rows]


@dataclass(frozen=True)
class Manifest:
    name: str = "echo"
    version: int = 1


@dataclass(frozen=True, eq=False)
class Served:
    """What the scheduler looks at of a model."""

    runner: Any
    manifest: Manifest = field(default_factory=Manifest)


@dataclass
class Heard(Listener):
    batches: list[BatchRan] = field(default_factory=list)
    drops: list[tuple[str, int]] = field(default_factory=list)
    lane_failures: int = 0

    def lane_failed(self) -> None:
        self.lane_failures += 1

    def batch_ran(self, batch: BatchRan) -> None:
        self.batches.append(batch)

    def dropped(self, model: str, reason: str, rows: int) -> None:
        self.drops.append((reason, rows))


class Desk:
    """A scheduler of one model, and what it did."""

    def __init__(self, echo: Echo) -> None:
        self.echo = echo
        self.heard = Heard()
        self.model: Any = Served(echo)
        self.scheduler = Scheduler(echo.lanes, self.heard)

    async def submit(
        self, rows: Sequence[Row], outputs: Sequence[Output] = (NER,), deadline: float | None = None
    ) -> Ran:
        return await self.scheduler.submit(self.model, rows, outputs, deadline)

    async def busy(self) -> None:
        assert await asyncio.to_thread(self.echo.busy.acquire, timeout=PATIENCE)

    async def hold(self) -> "asyncio.Task[Ran]":
        """Keeps a lane busy with a row of its own until the gate opens."""
        self.echo.gate.clear()
        task = asyncio.create_task(self.submit([row(1)]))
        await self.busy()
        return task


def run(test: Callable[[Desk], Any], echo: Echo | None = None) -> None:
    async def main() -> None:
        desk = Desk(echo or Echo())
        try:
            async with asyncio.timeout(PATIENCE):
                await test(desk)
        finally:
            desk.echo.gate.set()
            desk.scheduler.close()

    asyncio.run(main())


def names(ran: Ran) -> list[int]:
    return [int(one["name"][0]) for one in ran.outputs]


def job(model: Any, rows: Sequence[Row]) -> Job:
    # A queue does not look at the future.
    tokens = sum(map(len, rows))
    return Job(model, rows, (NER,), None, None, [{}] * len(rows), len(rows), tokens)  # type: ignore[arg-type]


def drained(queue: Queue) -> list[Batch]:
    batches = []
    while True:
        batch, late = queue.take(0)
        assert late == []
        if batch is None:
            return batches
        queue.done(batch.model)
        batches.append(batch)


@examples(deadline=None)
@given(st.lists(lengths, min_size=1, max_size=12), st.integers(1, 20))
def test_every_row_runs_once_in_its_group_within_the_budget(
    calls: list[list[int]], width: int
) -> None:
    model, queue = Served(Echo(width=width)), Queue(None)
    jobs = [job(model, [row(length) for length in rows]) for rows in calls]
    for one in jobs:
        queue.add(one)
    batches = drained(queue)
    for batch in batches:
        assert len(batch.rows) == 1 or sum(map(len, batch.rows)) <= BUDGET
        assert batch.tokens == sum(map(len, batch.rows))
        assert len({len(one) // width for one in batch.rows}) == 1
    ran = [part for batch in batches for part in batch.parts]
    assert len(ran) == len(set(ran)) == sum(len(one.rows) for one in jobs)
    assert queue.tokens == 0
    assert all(one.waiting == 0 for one in jobs)


@examples(deadline=None)
@given(st.lists(lengths, min_size=1, max_size=12))
def test_nothing_waits_while_later_rows_of_its_length_go(calls: list[list[int]]) -> None:
    model, queue = Served(Echo(width=10)), Queue(None)
    for rows in calls:
        queue.add(job(model, [row(length) for length in rows]))
    order: dict[int, list[int]] = {}
    for batch in drained(queue):
        for one, index in batch.parts:
            order.setdefault(len(one.rows[index]) // 10, []).append(sum(map(len, one.rows[:index])))
    # All came at once, so a row's turn is the tokens of its own call before it.
    assert all(turns == sorted(turns) for turns in order.values())


@examples(deadline=None)
@given(st.lists(lengths, min_size=1, max_size=12), st.integers(1, 400), st.integers(0, 5))
def test_what_goes_first_is_never_underestimated(
    calls: list[list[int]], tokens: int, taken: int
) -> None:
    model, queue = Served(Echo(width=10)), Queue(None)
    waiting: dict[tuple[Job, int], int] = {}
    dispatched = 0
    for at, sizes in enumerate(calls):
        one = job(model, [row(length) for length in sizes])
        for index in range(len(sizes)):
            waiting[one, index] = dispatched + sum(sizes[:index])
        queue.add(one)
        if at < taken:
            batch, _ = queue.take(0)
            assert batch is not None
            queue.done(batch.model)
            dispatched += batch.tokens
            for part in batch.parts:
                del waiting[part]
    first = [part for part, turn in waiting.items() if turn <= dispatched + tokens]
    assert sum(len(one.rows[index]) for one, index in first) <= queue.ahead(tokens) <= queue.tokens


def test_a_sentence_goes_between_the_rows_of_a_book() -> None:
    model, queue = Served(Echo()), Queue(None)
    book, sentence = job(model, [row(60)] * 10), job(model, [row(5)])
    queue.add(book)
    first, _ = queue.take(0)
    assert first is not None
    assert first.jobs == [book]
    queue.add(sentence)
    queue.done(first.model)
    second, _ = queue.take(0)
    assert second is not None
    assert sentence in second.jobs


def test_sentences_do_not_hold_up_a_book_for_ever() -> None:
    model, queue = Served(Echo()), Queue(None)
    book = job(model, [row(60)] * 5)
    queue.add(book)
    batches = 0
    while book.waiting:
        queue.add(job(model, [row(50)]))
        queue.add(job(model, [row(50)]))
        batch, _ = queue.take(0)
        assert batch is not None
        queue.done(batch.model)
        batches += 1
        assert batches < 20
    assert batches >= 5


def test_what_waits_is_shared_with_idle_lanes() -> None:
    model, queue = Served(Echo(lanes=2)), Queue(None)
    queue.add(job(model, [row(20)] * 4))
    first, _ = queue.take(1)
    second, _ = queue.take(0)
    assert first is not None
    assert second is not None
    assert (first.tokens, second.tokens) == (40, 40)


def test_a_runner_is_not_run_more_often_at_once_than_it_can() -> None:
    one, two = Served(Echo(lanes=1)), Served(Echo(lanes=2))
    queue = Queue(None)
    for _ in range(3):
        queue.add(job(one, [row(100)]))
    taken, _ = queue.take(5)
    assert taken is not None
    assert queue.take(5) == (None, [])
    queue.add(job(two, [row(100)]))
    other, _ = queue.take(5)
    assert other is not None
    assert other.model is two  # type: ignore[comparison-overlap]
    queue.done(taken.model)
    assert queue.take(5)[0] is not None


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("lanes", [1, 3])
def test_everyone_gets_their_own_rows(seed: int, lanes: int) -> None:
    async def test(desk: Desk) -> None:
        random_ = random.Random(seed)
        calls = [
            [row(random_.randint(1, 60), at * 100 + k) for k in range(random_.randint(0, 8))]
            for at in range(1000)
        ]
        answers = await asyncio.gather(*(desk.submit(rows) for rows in calls))
        for rows, ran in zip(calls, answers, strict=True):
            assert names(ran) == [int(one.input_ids[0]) for one in rows]
        assert all(sum(map(len, b)) <= BUDGET or len(b) == 1 for b in desk.echo.batches)
        assert sum(batch.rows for batch in desk.heard.batches) == sum(map(len, calls))
        assert desk.scheduler.queued_tokens == 0

    run(test, Echo(lanes, width=16))


def test_what_waits_is_one_batch_of_all_outputs_wanted() -> None:
    async def test(desk: Desk) -> None:
        first = await desk.hold()
        calls = [
            asyncio.create_task(desk.submit([row(5, at)], (QA if at % 2 else NER,)))
            for at in range(10)
        ]
        await asyncio.sleep(0)
        assert desk.scheduler.expected_wait() == 0  # nothing is known of the speed
        assert desk.scheduler.queued_tokens == 50
        desk.echo.gate.set()
        assert [names(ran) for ran in await asyncio.gather(*calls)] == [[at] for at in range(10)]
        await first
        assert [len(batch) for batch in desk.echo.batches] == [1, 10]
        assert list(desk.echo.outputs[1]) == [NER, QA]
        last = desk.heard.batches[1]
        assert (last.rows, last.tokens, last.calls, last.released) == (10, 50, 10, "drained")
        assert last.oldest_ns > 0

    run(test)


def test_a_failure_hits_its_own_call_only() -> None:
    async def test(desk: Desk) -> None:
        first = await desk.hold()
        calls = [desk.submit([row(30, name)]) for name in (-1, 1, 2)]
        answers = asyncio.gather(*calls, return_exceptions=True)
        await asyncio.sleep(0)
        desk.echo.gate.set()
        bad, *good = await answers
        await first
        assert isinstance(bad, ValueError)
        assert [names(ran) for ran in good] == [[1], [2]]
        assert names(await desk.submit([row(1, 3)])) == [3]

    run(test)


def test_a_failed_book_stops() -> None:
    async def test(desk: Desk) -> None:
        with pytest.raises(ValueError, match="bad row"):
            await desk.submit([row(60, -1), *[row(60)] * 5])
        await desk.submit([row(1)])
        assert len(desk.echo.batches) == 2
        assert desk.scheduler.queued_tokens == 0

    run(test)


def test_missing_outputs_are_a_fault() -> None:
    class Mute(Echo):
        def run(self, rows: Sequence[Row], outputs: Sequence[Output]) -> list[RowOutputs]:
            return []

    async def test(desk: Desk) -> None:
        with pytest.raises(RuntimeFault, match="1 rows gave 0 outputs"):
            await desk.submit([row(1)])

    run(test, Mute())


class Panic(BaseException):
    """As what native code panics with: no Exception."""


@pytest.mark.parametrize("error", [ValueError("odd"), Panic("odd"), SystemExit(1), StopIteration()])
@pytest.mark.parametrize("place", ["run", "computed", "lanes"])
def test_an_error_anywhere_fails_the_calls_at_hand_and_no_lane_ends(
    error: BaseException, place: str
) -> None:
    class Broken(Echo):
        def __getattribute__(self, name: str) -> Any:
            if name == place and super().__getattribute__("broken"):
                raise error
            return super().__getattribute__(name)

    echo = Broken()
    echo.broken = False

    async def test(desk: Desk) -> None:
        first = await desk.hold()
        calls = [asyncio.create_task(desk.submit([row(60, at)] * 3)) for at in range(4)]
        await asyncio.sleep(0)
        echo.broken = True
        desk.echo.gate.set()
        await asyncio.wait([first, *calls])
        assert all(isinstance(call.exception(), Exception) for call in calls)
        echo.broken = False
        assert names(await desk.submit([row(1, 3)])) == [3]
        assert desk.scheduler.queued_tokens == 0
        assert desk.scheduler.expected_wait() == 0
        expected = place == "run" and isinstance(error, Exception)
        assert bool(desk.heard.lane_failures) is not expected

    run(test, echo)


def test_a_listener_that_raises_fails_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Bad(Listener):
        def batch_ran(self, batch: BatchRan) -> None:
            raise ValueError("odd")

    async def test(desk: Desk) -> None:
        desk.scheduler._listener = Everyone([Bad(), desk.heard])
        for name in range(2):
            assert names(await desk.submit([row(1, name)])) == [name]

    run(test)
    assert caplog.text.count("Bad failed") == 2


def test_cancelled_rows_do_not_run() -> None:
    async def test(desk: Desk) -> None:
        first = await desk.hold()
        gone = asyncio.create_task(desk.submit([row(5, 7)]))
        kept = asyncio.create_task(desk.submit([row(5, 8)]))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        assert desk.scheduler.queued_tokens == 5
        desk.echo.gate.set()
        assert names(await kept) == [8]
        await first
        assert gone.cancelled()
        assert [int(batch[0].input_ids[0]) for batch in desk.echo.batches] == [0, 8]
        assert desk.heard.drops == [("cancelled", 1)]

    run(test)


def test_late_rows_do_not_run() -> None:
    async def test(desk: Desk) -> None:
        first = await desk.hold()
        late = asyncio.create_task(desk.submit([row(5, 7)] * 2, deadline=monotonic() + 0.01))
        await asyncio.sleep(0.05)
        desk.echo.gate.set()
        with pytest.raises(DeadlinePassed):
            await late
        await first
        assert len(desk.echo.batches) == 1
        assert desk.heard.drops == [("expired", 2)]
        assert desk.scheduler.queued_tokens == 0

    run(test)


def test_a_cancelled_book_stops_after_the_batch_that_runs() -> None:
    async def test(desk: Desk) -> None:
        desk.echo.gate.clear()
        book = asyncio.create_task(desk.submit([row(60)] * 50))
        await desk.busy()
        book.cancel()
        await asyncio.sleep(0)
        desk.echo.gate.set()
        await desk.submit([row(1)])
        assert len(desk.echo.batches) == 2

    run(test)


def test_no_rows_need_no_batch() -> None:
    async def test(desk: Desk) -> None:
        assert await desk.submit([]) == Ran([])
        assert desk.echo.batches == []

    run(test)


def test_times_add_up_over_several_batches() -> None:
    async def test(desk: Desk) -> None:
        begin = monotonic()
        ran = await desk.submit([row(60)] * 3)
        assert len(desk.echo.batches) == 3
        assert min(ran.queue_ns, ran.compute_ns) > 0
        assert ran.queue_ns + ran.compute_ns <= (monotonic() - begin) * 1e9

    run(test)


def test_the_expected_wait_counts_only_what_goes_first() -> None:
    async def test(desk: Desk) -> None:
        desk.echo.gate.clear()
        held = asyncio.create_task(desk.submit([row(100)]))
        await desk.busy()
        await asyncio.sleep(0.1)
        desk.echo.gate.set()
        await held  # the pace is now about a millisecond per token
        held = await desk.hold()
        book = asyncio.create_task(desk.submit([row(100)] * 20))
        await asyncio.sleep(0)
        assert 0 < desk.scheduler.expected_wait(10) < 1.5
        assert desk.scheduler.expected_wait(1900) > 2
        desk.echo.gate.set()
        await asyncio.gather(held, book)

    run(test)


def test_nothing_is_expected_to_wait_where_nothing_runs_however_slow_the_last_run_was() -> None:
    async def test(desk: Desk) -> None:
        desk.echo.gate.clear()
        held = asyncio.create_task(desk.submit([row(1)]))
        await desk.busy()
        await asyncio.sleep(0.1)
        assert desk.scheduler.expected_wait(1000) == 0  # nothing is known of the speed
        desk.echo.gate.set()
        await held  # the pace is now a tenth of a second per token
        assert desk.scheduler.expected_wait(1000) == 0
        held = await desk.hold()
        assert desk.scheduler.expected_wait(1000) > 10
        desk.echo.gate.set()
        await held

    run(test)


def test_closing_fails_what_waits() -> None:
    async def test(desk: Desk) -> None:
        first = await desk.hold()
        waiting = asyncio.create_task(desk.submit([row(1)]))
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(desk.scheduler.close))
        await asyncio.sleep(0.01)
        desk.echo.gate.set()
        await closing
        await first
        with pytest.raises(Unavailable):
            await waiting
        with pytest.raises(Unavailable):
            await desk.submit([row(1)])

    run(test)
