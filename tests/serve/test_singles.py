"""Where a model's rows run best alone (a budget of 1), the scheduler serves them so."""

import asyncio

from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.serve.test_scheduler import Desk, Echo, Served, drained, job, names, row, run
from trunkline_serve.turns import Queue

calls = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=12), min_size=1, max_size=12)


def singles(lanes: int) -> Echo:
    echo = Echo(lanes)
    echo.budget = 1
    return echo


@examples(deadline=None)
@given(calls)
def test_every_row_is_taken_alone_and_calls_take_turns(given_: list[list[int]]) -> None:
    model, queue = Served(singles(1)), Queue(None)
    for lengths in given_:
        queue.add(job(model, [row(length) for length in lengths]))
    batches = drained(queue)
    assert all(len(batch.rows) == 1 for batch in batches)
    assert len(batches) == sum(map(len, given_))
    # All came at once, so a row's turn is the tokens of its own call before it.
    turns = [sum(map(len, one.rows[:index])) for batch in batches for one, index in batch.parts]
    assert turns == sorted(turns)


def test_only_the_beginning_of_a_long_call_is_ahead_of_a_short_one() -> None:
    model, queue = Served(singles(1)), Queue(None)
    queue.add(job(model, [row(100)] * 20))
    queue.add(job(model, [row(20)] * 2))
    assert 100 + 40 <= queue.ahead(100) <= 200 + 40
    assert queue.ahead(5000) == 2040


def test_all_lanes_run_rows_of_one_call_and_answers_keep_their_order() -> None:
    async def test(desk: Desk) -> None:
        desk.echo.gate.clear()
        waiting = [
            asyncio.create_task(desk.submit([row(5, call * 10 + at) for at in range(6)]))
            for call in range(4)
        ]
        for _ in range(3):
            await desk.busy()
        assert [len(batch) for batch in desk.echo.batches] == [1, 1, 1]
        desk.echo.gate.set()
        for call, ran in enumerate(await asyncio.gather(*waiting)):
            assert names(ran) == [call * 10 + at for at in range(6)]
        assert all(len(batch) == 1 for batch in desk.echo.batches)
        assert len(desk.echo.batches) == len(desk.heard.batches) == 24
        assert {batch.computed_tokens for batch in desk.heard.batches} == {5}
        assert desk.scheduler.queued_tokens == 0

    run(test, singles(3))
