"""Rows of many calls in one batch.

Whatever waits when the engine gets free is the next batch, up to a budget of real tokens; nothing
ever waits for more to come. One thread runs the batches; calls await it on their event loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from time import monotonic, perf_counter_ns

from trunkline.encode import Row
from trunkline.errors import DeadlinePassed, RuntimeFault, Unavailable
from trunkline.kinds import Output
from trunkline.runner import RowOutputs

_PACE_WEIGHT = 0.2  # of the latest batch in the running mean of nanoseconds per token
_CLOSING = "the server is shutting down"

RunRows = Callable[[Sequence[Row], Sequence[Output]], list[RowOutputs]]


@dataclass(frozen=True)
class Ran:
    """What became of one call's rows.

    Attributes:
        outputs: One per row, in order.
        queue_ns: Time spent waiting.
        compute_ns: Time of the batches the rows were part of.
    """

    outputs: list[RowOutputs]
    queue_ns: int = 0
    compute_ns: int = 0


@dataclass(eq=False)
class Job:
    """Rows of one call in the queue, partly run or not yet.

    Attributes:
        rows: All rows of the call.
        outputs: The graph outputs they need.
        deadline: On `time.monotonic`'s clock; None for none.
        future: Gets the result, on its own event loop.
        tokens: Tokens not yet taken into a batch.
        taken: Number of rows taken into a batch.
        done: Outputs of the rows that ran.
        abandoned: True once nobody waits for the result, or it has failed.
    """

    rows: Sequence[Row]
    outputs: Sequence[Output]
    deadline: float | None
    future: asyncio.Future[Ran]
    tokens: int
    taken: int = 0
    done: list[RowOutputs] = field(default_factory=list)
    abandoned: bool = False
    arrived_ns: int = field(default_factory=perf_counter_ns)
    compute_ns: int = 0

    def take(self, room: int, *, at_least: int) -> Part:
        """Takes as many of the next rows as fit in `room` tokens, but at least so many."""
        end, tokens = self.taken, 0
        while end < len(self.rows):
            length = len(self.rows[end])
            if tokens + length > room and end - self.taken >= at_least:
                break
            end, tokens = end + 1, tokens + length
        rows = self.rows[self.taken : end]
        self.taken = end
        self.tokens -= tokens
        return Part(self, rows, tokens)


@dataclass(frozen=True)
class Part:
    """Rows of one job in one batch, and their number of real tokens."""

    job: Job
    rows: Sequence[Row]
    tokens: int


def cut(waiting: deque[Job], budget: int) -> list[Part]:
    """Takes the next batch off the queue: at most `budget` tokens, but at least one row.

    First come, first served. A job that fits a batch is never split. One that does not gives what
    fits and goes to the back, so that a book does not hold up the sentences behind it.
    """
    parts: list[Part] = []
    room = budget
    for _ in range(len(waiting)):
        job = waiting[0]
        if parts and room < job.tokens <= budget:
            break
        part = job.take(room, at_least=0 if parts else 1)
        if not part.rows:
            break
        parts.append(part)
        room -= part.tokens
        waiting.popleft()
        if job.tokens:
            waiting.append(job)
    return parts


_Outcome = tuple[Job, Ran | Exception]


class Batcher:
    """Runs the rows of concurrent calls together. `submit` belongs to one event loop.

    Args:
        run: Runs rows; called from one thread only.
        budget: Most real tokens in one batch; a longer row runs alone.
    """

    def __init__(self, run: RunRows, budget: int) -> None:
        self._run_rows = run
        self._budget = budget
        self._inbox: SimpleQueue[Job | None] = SimpleQueue()
        self._pending = 0  # tokens of all calls that have no answer yet
        self._pace = 0.0  # nanoseconds per token
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="trunkline-batcher", daemon=True)
        self._thread.start()

    async def submit(
        self, rows: Sequence[Row], outputs: Sequence[Output], deadline: float | None = None
    ) -> Ran:
        """Queues rows and returns their outputs.

        Args:
            rows: May be empty, which costs nothing.
            outputs: The graph outputs wanted.
            deadline: On `time.monotonic`'s clock. Rows that still wait then are not run.

        Raises:
            DeadlinePassed: It did while the rows waited.
            Unavailable: The batcher was closed.
        """
        if self._closed:
            raise Unavailable(_CLOSING)
        if not rows:
            return Ran([])
        tokens = sum(len(row) for row in rows)
        job = Job(rows, outputs, deadline, asyncio.get_running_loop().create_future(), tokens)
        self._pending += tokens
        self._inbox.put(job)
        try:
            return await job.future
        finally:
            self._pending -= tokens
            job.abandoned = True

    def expected_wait(self) -> float:
        """Returns the seconds until what is queued and running now should be done."""
        return self._pending * self._pace / 1e9

    def close(self) -> None:
        """Fails what still waits, and ends the thread after the batch that runs."""
        self._closed = True
        self._inbox.put(None)
        self._thread.join()

    def _work(self) -> None:
        waiting: deque[Job] = deque()
        while self._collect(waiting):
            _drop_dead(waiting)
            parts = cut(waiting, self._budget)
            if parts:
                self._run(parts)
        _post([(job, Unavailable(_CLOSING)) for job in waiting])

    def _collect(self, waiting: deque[Job]) -> bool:
        """Moves what arrived into `waiting`, blocking if there is nothing; False when closed."""
        while True:
            try:
                job = self._inbox.get(block=not waiting)
            except Empty:
                return True
            if job is None:
                return False
            waiting.append(job)

    def _run(self, parts: list[Part]) -> None:
        rows = [row for part in parts for row in part.rows]
        outputs = list(dict.fromkeys(output for part in parts for output in part.job.outputs))
        begin = perf_counter_ns()
        try:
            values = self._run_rows(rows, outputs)
            if len(values) != len(rows):
                raise RuntimeFault(f"{len(rows)} rows gave {len(values)} outputs")
        except Exception as error:
            for part in parts:
                part.job.abandoned = True
            _post([(part.job, error) for part in parts])
            return
        spent = perf_counter_ns() - begin
        latest = spent / sum(part.tokens for part in parts)
        self._pace += _PACE_WEIGHT * (latest - self._pace) if self._pace else latest
        _post(_share_out(parts, values, spent))


def _drop_dead(waiting: deque[Job]) -> None:
    """Drops jobs that nobody waits for and fails those that are late."""
    now = monotonic()
    for _ in range(len(waiting)):
        job = waiting.popleft()
        if job.abandoned:
            continue
        if job.deadline is not None and now >= job.deadline:
            _post([(job, DeadlinePassed("the deadline passed while the call was waiting"))])
            continue
        waiting.append(job)


def _share_out(parts: list[Part], values: list[RowOutputs], spent: int) -> list[_Outcome]:
    """Gives each job the outputs of its rows; returns the jobs that are complete."""
    finished: list[_Outcome] = []
    now = perf_counter_ns()
    rest = iter(values)
    for job, rows in ((part.job, part.rows) for part in parts):
        job.done += [next(rest) for _ in rows]
        job.compute_ns += spent
        if not job.tokens:
            queued = now - job.arrived_ns - job.compute_ns
            finished.append((job, Ran(job.done, queued, job.compute_ns)))
    return finished


def _post(outcomes: list[_Outcome]) -> None:
    """Hands outcomes over to the event loop their calls wait on."""
    if outcomes:
        loop = outcomes[0][0].future.get_loop()
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(_settle, outcomes)


def _settle(outcomes: list[_Outcome]) -> None:
    for job, outcome in outcomes:
        if job.future.done():
            continue
        if isinstance(outcome, Ran):
            job.future.set_result(outcome)
        else:
            job.future.set_exception(outcome)
