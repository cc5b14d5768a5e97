import asyncio
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serve.hosting import PATIENCE
from trunkline.encode import Row
from trunkline.errors import DeadlinePassed, RuntimeFault, Unavailable
from trunkline.kinds import Output
from trunkline.runner import RowOutputs
from trunkline_serve.batcher import Batcher, Job, Ran, cut

NER, QA = Output("ner.logits", ("batch",)), Output("qa.start_logits", ("batch",))
BUDGET = 100
lengths = st.lists(st.integers(1, 40), min_size=1, max_size=12)


def row(length: int, name: int = 0) -> Row:
    return Row(np.full(length, name), np.zeros(length, np.int64), 1, 0, length, 0, length)


def job(rows: Sequence[Row]) -> Job:
    # `cut` does not look at the future.
    return Job(rows, (NER,), None, None, sum(len(one) for one in rows))  # type: ignore[arg-type]


class Echo:
    """Gives each row its own name back; can be held, and fails for rows named -1."""

    def __init__(self) -> None:
        self.batches: list[Sequence[Row]] = []
        self.outputs: list[Sequence[Output]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.busy = threading.Semaphore(0)

    def __call__(self, rows: Sequence[Row], outputs: Sequence[Output]) -> list[RowOutputs]:
        self.batches.append(rows)
        self.outputs.append(outputs)
        self.busy.release()
        assert self.gate.wait(PATIENCE)
        if any(one.input_ids[0] == -1 for one in rows):
            raise ValueError("bad row")
        return [{"name": one.input_ids} for one in rows]

    async def hold(self, batcher: Batcher) -> "asyncio.Task[Ran]":
        """Keeps the batcher busy with a row of its own until the gate opens."""
        self.gate.clear()
        task = asyncio.create_task(batcher.submit([row(1)], (NER,)))
        assert await asyncio.to_thread(self.busy.acquire, timeout=PATIENCE)
        return task


def names(ran: Ran) -> list[int]:
    return [int(one["name"][0]) for one in ran.outputs]


def run(test: Callable[[Batcher, Echo], Any], budget: int = BUDGET) -> None:
    async def main() -> None:
        echo = Echo()
        batcher = Batcher(echo, budget)
        try:
            async with asyncio.timeout(PATIENCE):
                await test(batcher, echo)
        finally:
            echo.gate.set()
            batcher.close()

    asyncio.run(main())


@settings(deadline=None)
@given(st.lists(lengths, min_size=1, max_size=12), st.integers(1, 120))
def test_cut_runs_every_row_once_in_order_within_the_budget(
    calls: list[list[int]], budget: int
) -> None:
    waiting = deque(job([row(length) for length in rows]) for rows in calls)
    jobs = list(waiting)
    taken: dict[int, list[Row]] = {id(one): [] for one in jobs}
    while waiting:
        parts = cut(waiting, budget)
        rows = [one for part in parts for one in part.rows]
        assert len(rows) == 1 or sum(map(len, rows)) <= budget
        assert all(part.rows and part.tokens == sum(map(len, part.rows)) for part in parts)
        for part in parts:
            taken[id(part.job)] += part.rows
    assert all(taken[id(one)] == list(one.rows) for one in jobs)
    assert all(one.tokens == 0 for one in jobs)


@settings(deadline=None)
@given(st.lists(lengths, min_size=1, max_size=12))
def test_a_job_that_fits_is_not_split_and_keeps_its_turn(calls: list[list[int]]) -> None:
    waiting = deque(job([row(length) for length in rows]) for rows in calls)
    fitting = [one for one in waiting if one.tokens <= BUDGET]
    order = []
    while waiting:
        for part in cut(waiting, BUDGET):
            if part.job in fitting:
                assert part.rows == part.job.rows
                order.append(part.job)
    assert order == fitting


def test_a_book_goes_behind_the_sentences_after_each_batch() -> None:
    book, sentence = job([row(40)] * 10), job([row(5)])
    waiting = deque([book, sentence])
    assert [part.job for part in cut(waiting, BUDGET)] == [book, sentence]
    late = job([row(5)])
    waiting.append(late)
    assert [part.job for part in cut(waiting, BUDGET)] == [book, late]


@pytest.mark.parametrize("seed", range(3))
def test_everyone_gets_their_own_rows(seed: int) -> None:
    async def test(batcher: Batcher, echo: Echo) -> None:
        random_ = random.Random(seed)
        calls = [
            [row(random_.randint(1, 60), at * 100 + k) for k in range(random_.randint(0, 8))]
            for at in range(200)
        ]
        answers = await asyncio.gather(*(batcher.submit(rows, (NER,)) for rows in calls))
        for rows, ran in zip(calls, answers, strict=True):
            assert names(ran) == [int(one.input_ids[0]) for one in rows]
        assert all(sum(map(len, batch)) <= BUDGET or len(batch) == 1 for batch in echo.batches)

    run(test)


def test_what_waits_is_one_batch_of_all_outputs_wanted() -> None:
    async def test(batcher: Batcher, echo: Echo) -> None:
        first = await echo.hold(batcher)
        calls = [
            asyncio.create_task(batcher.submit([row(5, at)], (QA if at % 2 else NER,)))
            for at in range(10)
        ]
        await asyncio.sleep(0)
        assert batcher.expected_wait() == 0  # nothing is known of the speed
        echo.gate.set()
        assert [names(ran) for ran in await asyncio.gather(*calls)] == [[at] for at in range(10)]
        await first
        assert [len(batch) for batch in echo.batches] == [1, 10]
        assert list(echo.outputs[1]) == [NER, QA]

    run(test)


def test_a_failure_hits_its_own_batch_only() -> None:
    async def test(batcher: Batcher, echo: Echo) -> None:
        first = await echo.hold(batcher)
        calls = [batcher.submit([row(40, name)], (NER,)) for name in (-1, 1, 2)]
        answers = asyncio.gather(*calls, return_exceptions=True)
        await asyncio.sleep(0)
        echo.gate.set()
        bad, beside, behind = await answers
        await first
        assert isinstance(bad, ValueError)
        assert isinstance(beside, ValueError)
        assert isinstance(behind, Ran)
        assert names(await batcher.submit([row(1, 3)], (NER,))) == [3]

    run(test)


def test_a_failed_book_stops() -> None:
    async def test(batcher: Batcher, echo: Echo) -> None:
        with pytest.raises(ValueError, match="bad row"):
            await batcher.submit([row(60, -1), *[row(60)] * 5], (NER,))
        await batcher.submit([row(1)], (NER,))
        assert len(echo.batches) == 2

    run(test)


def test_missing_outputs_are_a_fault() -> None:
    async def main() -> None:
        batcher = Batcher(lambda rows, outputs: [], BUDGET)
        try:
            with pytest.raises(RuntimeFault, match="1 rows gave 0 outputs"):
                await batcher.submit([row(1)], (NER,))
        finally:
            batcher.close()

    asyncio.run(main())


def test_cancelled_rows_do_not_run() -> None:
    async def test(batcher: Batcher, echo: Echo) -> None:
        first = await echo.hold(batcher)
        gone = asyncio.create_task(batcher.submit([row(5, 7)], (NER,)))
        kept = asyncio.create_task(batcher.submit([row(5, 8)], (NER,)))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        echo.gate.set()
        assert names(await kept) == [8]
        await first
        assert gone.cancelled()
        assert [int(batch[0].input_ids[0]) for batch in echo.batches] == [0, 8]

    run(test)


def test_late_rows_do_not_run() -> None:
    async def test(batcher: Batcher, echo: Echo) -> None:
        first = await echo.hold(batcher)
        late = asyncio.create_task(batcher.submit([row(5, 7)], (NER,), monotonic() + 0.01))
        await asyncio.sleep(0.05)
        echo.gate.set()
        with pytest.raises(DeadlinePassed):
            await late
        await first
        assert len(echo.batches) == 1

    run(test)


def test_a_cancelled_book_stops_after_the_batch_that_runs() -> None:
    async def test(batcher: Batcher, echo: Echo) -> None:
        echo.gate.clear()
        book = asyncio.create_task(batcher.submit([row(60)] * 50, (NER,)))
        assert await asyncio.to_thread(echo.busy.acquire, timeout=PATIENCE)
        book.cancel()
        await asyncio.sleep(0)
        echo.gate.set()
        await batcher.submit([row(1)], (NER,))
        assert len(echo.batches) == 2

    run(test)


def test_no_rows_need_no_batch() -> None:
    async def test(batcher: Batcher, echo: Echo) -> None:
        assert await batcher.submit([], (NER,)) == Ran([])
        assert echo.batches == []

    run(test)


def test_times_add_up_over_several_batches() -> None:
    async def test(batcher: Batcher, echo: Echo) -> None:
        begin = monotonic()
        ran = await batcher.submit([row(60)] * 3, (NER,))
        assert len(echo.batches) == 3
        assert min(ran.queue_ns, ran.compute_ns) > 0
        assert ran.queue_ns + ran.compute_ns <= (monotonic() - begin) * 1e9
        assert batcher.expected_wait() == 0

    run(test)


def test_closing_fails_what_waits() -> None:
    async def test(batcher: Batcher, echo: Echo) -> None:
        first = await echo.hold(batcher)
        waiting = asyncio.create_task(batcher.submit([row(1)], (NER,)))
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        await asyncio.sleep(0.01)
        echo.gate.set()
        await closing
        await first
        with pytest.raises(Unavailable):
            await waiting
        with pytest.raises(Unavailable):
            await batcher.submit([row(1)], (NER,))

    run(test)
