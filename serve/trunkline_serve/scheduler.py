"""Rows of many calls in one run of a graph.

Lanes, a thread each, take what waits as soon as they are free: rows that run well together, the
most overdue first, up to a budget of real tokens. Nothing ever waits for more to come. Calls, tasks
and documents mix freely; models share the lanes.

Turns are those of start-time fair queueing (Goyal, Vin and Cheng, 1996): a row's turn is the tokens
dispatched when its call arrived plus the call's own tokens before it. A sentence that comes after
a book goes between the book's rows; nothing that comes later passes the book for ever.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic, perf_counter_ns
from typing import Protocol

from trunkline import Model
from trunkline.encode import Row
from trunkline.errors import DeadlinePassed, RuntimeFault, Unavailable
from trunkline.kinds import Output
from trunkline.runner import RowOutputs
from trunkline_serve.events import BatchRan, Listener, Release

_PACE_WEIGHT = 0.1  # of the latest run in the running mean of nanoseconds per token
_LATE_SHARE = 0.003  # of calls that may take longer than they should by more than the margin
_MARGIN_STEP = 0.05  # seconds
_ALIKE_TOKENS = 512
_CLOSING = "the server is shutting down"


@dataclass(frozen=True)
class Ran:
    """What became of one call's rows.

    Attributes:
        outputs: One per row, in order.
        queue_ns: From the call's arrival until its first row ran.
        compute_ns: From then until its last row was done.
    """

    outputs: list[RowOutputs]
    queue_ns: int = 0
    compute_ns: int = 0


class Computing(Protocol):
    """Whatever computes rows for the engine: lanes in this process, or another process."""

    async def submit(
        self,
        model: Model,
        rows: Sequence[Row],
        outputs: Sequence[Output],
        deadline: float | None = None,
    ) -> Ran:
        """Queues rows and returns their outputs."""
        ...

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait."""
        ...

    def expected_wait(self, tokens: int = 0) -> float:
        """Returns the seconds until a call of so many tokens, made now, should be done."""
        ...


@dataclass(eq=False)
class Job:
    """Rows of one call.

    Attributes:
        future: Gets the result, on its own event loop.
        results: Of the rows that ran.
        left: Number of rows that have not run.
        waiting: Tokens not yet taken into a run.
        dead: True once nobody waits for the result, or it has failed.
        expected: Seconds it should take, as it looked when it came.
    """

    model: Model
    rows: Sequence[Row]
    outputs: Sequence[Output]
    deadline: float | None
    future: asyncio.Future[Ran]
    results: list[RowOutputs]
    left: int
    waiting: int
    dead: bool = False
    expected: float = 0.0
    arrived_ns: int = field(default_factory=perf_counter_ns)
    begun_ns: int = 0


@dataclass(frozen=True)
class Batch:
    """Rows to run together: (job, index of its row), all of one model."""

    model: Model
    parts: Sequence[tuple[Job, int]]
    tokens: int
    budget: int
    released: Release

    @property
    def rows(self) -> list[Row]:
        """The rows."""
        return [job.rows[index] for job, index in self.parts]

    @property
    def jobs(self) -> list[Job]:
        """The jobs that have rows in it."""
        return list(dict.fromkeys(job for job, _ in self.parts))


_Turn = tuple[int, int, Job, int]
"""Turn, order of arrival, job, index of its row."""
_Outcome = tuple[Job, Ran | Exception]


class Queue:
    """What waits, in lines of rows that run well together. Not thread-safe: see `Scheduler`.

    Args:
        budget: Most real tokens of a batch; None leaves it to the runner.
        listener: Hears of rows that are dropped.
    """

    def __init__(self, budget: int | None, listener: Listener) -> None:
        self._budget = budget
        self._listener = listener
        self._lines: dict[tuple[Model, int], list[_Turn]] = {}
        self._running: dict[Model, int] = {}
        self._dispatched = 0  # tokens, ever
        self._order = itertools.count()
        self.tokens = 0

    def add(self, job: Job) -> None:
        """Lets all rows of a job wait for their turns."""
        runner = job.model.runner
        turn = self._dispatched
        for index, row in enumerate(job.rows):
            line = self._lines.setdefault((job.model, runner.group(len(row))), [])
            heapq.heappush(line, (turn, next(self._order), job, index))
            turn += len(row)
        self.tokens += job.waiting

    def kill(self, job: Job) -> None:
        """Takes a job's rows out of the count; its turns are passed over later."""
        self.tokens -= job.waiting
        job.waiting, job.dead = 0, True

    def ahead(self, tokens: int) -> int:
        """Returns the tokens that will run before the last of a call's, if it came now.

        They are those whose turn comes first, and what is taken along with them: the rest of a
        batch, which later rows of the same line fill.
        """
        last = self._dispatched + tokens
        return sum(self._before(model, turns, last) for (model, _), turns in self._lines.items())

    def _before(self, model: Model, turns: list[_Turn], last: int) -> int:
        first = rest = 0
        for turn, _, job, index in turns:
            if job.dead:
                continue
            if turn <= last:
                first += len(job.rows[index])
            else:
                rest += len(job.rows[index])
        budget = self._budget or model.runner.budget
        return first + min(rest, -first % budget)

    def take(self, idle: int) -> tuple[Batch | None, list[_Outcome]]:
        """Takes the next batch, and what failed because its deadline passed meanwhile.

        Args:
            idle: Lanes that have nothing to do, beside the one that asks: what waits is shared
                with them.
        """
        late: list[_Outcome] = []
        line = self._most_overdue(late)
        if line is None:
            return None, late
        (model, _), turns = line
        budget = self._budget or model.runner.budget
        helpers = min(idle, model.runner.lanes - self._running.get(model, 0) - 1)
        room = min(budget, -(-self.tokens // (helpers + 1)))
        parts: list[tuple[Job, int]] = []
        tokens = 0
        while turns and self._head_lives(turns, late):
            _, _, job, index = turns[0]
            length = len(job.rows[index])
            if parts and tokens + length > room:
                break
            heapq.heappop(turns)
            parts.append((job, index))
            tokens += length
            job.waiting -= length
        released: Release = "full" if turns else "drained"
        self._dispatched += tokens
        self.tokens -= tokens
        self._running[model] = self._running.get(model, 0) + 1
        return Batch(model, parts, tokens, budget, released), late

    def done(self, model: Model) -> None:
        """Frees the place of a batch that ran."""
        self._running[model] -= 1
        if not self._running[model]:
            del self._running[model]

    def empty(self) -> list[Job]:
        """Takes out everything that waits."""
        jobs = [job for line in self._lines.values() for _, _, job, _ in line if not job.dead]
        self._lines.clear()
        self.tokens = 0
        return list(dict.fromkeys(jobs))

    def _most_overdue(self, late: list[_Outcome]) -> tuple[tuple[Model, int], list[_Turn]] | None:
        for key in [key for key, turns in self._lines.items() if not self._head_lives(turns, late)]:
            del self._lines[key]
        free = (
            (key, turns)
            for key, turns in self._lines.items()
            if self._running.get(key[0], 0) < key[0].runner.lanes
        )
        return min(free, key=lambda line: line[1][0][:2], default=None)

    def _head_lives(self, turns: list[_Turn], late: list[_Outcome]) -> bool:
        """Drops dead and late rows off the head of a line; returns whether one is left."""
        while turns:
            _, _, job, _ = turns[0]
            if not job.dead and job.deadline is not None and monotonic() >= job.deadline:
                late.append((job, DeadlinePassed("the deadline passed while the call waited")))
                self.kill(job)
                self._listener.dropped(job.model.manifest.name, "expired", job.left)
            if not job.dead:
                return True
            heapq.heappop(turns)
        return False


class _Margin:
    """How much longer than expected calls take, at most, but for a few in a thousand.

    A quantile that is learned as calls come (stochastic approximation, Robbins and Monro, 1951):
    one that takes longer moves it up by much, one that does not moves it down by little.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def learn(self, late: float) -> None:
        """Learns from a call that took `late` seconds longer than expected."""
        up = late > self.seconds
        self.seconds += _MARGIN_STEP * (1 - _LATE_SHARE if up else -_LATE_SHARE)
        self.seconds = max(self.seconds, 0.0)


class Scheduler:
    """Runs the rows of concurrent calls together. `submit` belongs to one event loop.

    Args:
        lanes: Threads that run batches.
        listener: Hears of every batch and of dropped rows.
        budget: Most real tokens of a batch; None leaves it to each model's runner.
    """

    def __init__(self, lanes: int, listener: Listener, budget: int | None = None) -> None:
        self._listener = listener
        self._queue = Queue(budget, listener)
        self._ready = threading.Condition()
        self._idle = 0
        self._running = 0  # tokens
        self._pace = 0.0  # nanoseconds per token of one lane
        self._margin = _Margin()
        self._closed = False
        self._lanes = [
            threading.Thread(target=self._work, name=f"trunkline-lane-{at}", daemon=True)
            for at in range(lanes)
        ]
        for lane in self._lanes:
            lane.start()

    async def submit(
        self,
        model: Model,
        rows: Sequence[Row],
        outputs: Sequence[Output],
        deadline: float | None = None,
    ) -> Ran:
        """Queues rows and returns their outputs.

        Args:
            model: Runs them.
            rows: May be empty, which costs nothing.
            outputs: The graph outputs wanted.
            deadline: On `time.monotonic`'s clock. Rows that still wait then are not run.

        Raises:
            DeadlinePassed: It did while the rows waited.
            Unavailable: The scheduler was closed.
        """
        if not rows:
            return Ran([])
        tokens = sum(len(row) for row in rows)
        future: asyncio.Future[Ran] = asyncio.get_running_loop().create_future()
        nothing: list[RowOutputs] = [{}] * len(rows)
        job = Job(model, rows, outputs, deadline, future, nothing, len(rows), tokens)
        with self._ready:
            if self._closed:
                raise Unavailable(_CLOSING)
            job.expected = 0.0 if deadline is None else self._wait(tokens)
            self._queue.add(job)
            self._ready.notify(len(rows))
        try:
            return await future
        except asyncio.CancelledError:
            self._abandon(job)
            raise

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait."""
        return self._queue.tokens

    def expected_wait(self, tokens: int = 0) -> float:
        """Returns the seconds until a call of so many tokens, made now, should be done."""
        with self._ready:
            if not self._queue.tokens:
                return self._wait(tokens)
            # Where there is a queue, small calls must not slip through gaps that large ones see
            # closed: up to a size, all are judged alike.
            return self._wait(max(tokens, _ALIKE_TOKENS)) + self._margin.seconds

    def close(self) -> None:
        """Fails what still waits, and ends the threads after the batches that run."""
        with self._ready:
            self._closed = True
            waiting = self._queue.empty()
            self._ready.notify_all()
        _post([(job, Unavailable(_CLOSING)) for job in waiting])
        for lane in self._lanes:
            lane.join()

    def _wait(self, tokens: int) -> float:
        ahead = self._queue.ahead(tokens) + tokens + self._running / 2
        return ahead * self._pace / len(self._lanes) / 1e9

    def _abandon(self, job: Job) -> None:
        with self._ready:
            left = job.waiting
            self._queue.kill(job)
        if left:
            self._listener.dropped(job.model.manifest.name, "cancelled", job.left)

    def _work(self) -> None:
        while self._step():
            pass

    def _step(self) -> bool:
        """Runs one batch; False when closed. A lane that waits holds no model."""
        batch = self._next()
        if batch is None:
            return False
        finished = self._run(batch)
        with self._ready:
            self._running -= batch.tokens
            self._queue.done(batch.model)
            self._learn(finished)
        _post(finished)
        return True

    def _next(self) -> Batch | None:
        """Returns the next batch, waiting if there is none; None when closed."""
        with self._ready:
            while not self._closed:
                batch, late = self._queue.take(self._idle)
                self._learn(late)
                _post(late)
                if batch is not None:
                    self._running += batch.tokens
                    return batch
                self._idle += 1
                self._ready.wait()
                self._idle -= 1
        return None

    def _learn(self, ended: list[_Outcome]) -> None:
        """Compares how long calls took with what was expected."""
        now = perf_counter_ns()
        for job, _ in ended:
            if job.deadline is not None:
                self._margin.learn((now - job.arrived_ns) / 1e9 - job.expected)

    def _run(self, batch: Batch) -> list[_Outcome]:
        begin = perf_counter_ns()
        try:
            values = _values(batch)
        except Exception as error:
            return self._alone(batch, error)
        end = perf_counter_ns()
        latest = (end - begin) / batch.tokens
        self._pace += _PACE_WEIGHT * (latest - self._pace) if self._pace else latest
        self._tell(batch, begin, end)
        with self._ready:  # rows of one job may end on several lanes at once
            return _share_out(batch, values, begin, end)

    def _alone(self, batch: Batch, error: Exception) -> list[_Outcome]:
        """Runs each job's rows of a failed batch on their own: one must not fail the others."""
        jobs = batch.jobs
        if len(jobs) == 1:
            with self._ready:
                self._queue.kill(jobs[0])
            return [(jobs[0], error)]
        finished: list[_Outcome] = []
        for job in jobs:
            parts = [part for part in batch.parts if part[0] is job]
            tokens = sum(len(job.rows[index]) for _, index in parts)
            finished += self._run(Batch(batch.model, parts, tokens, batch.budget, "drained"))
        return finished

    def _tell(self, batch: Batch, begin: int, end: int) -> None:
        jobs = batch.jobs
        manifest = batch.model.manifest
        self._listener.batch_ran(
            BatchRan(
                model=manifest.name,
                version=manifest.version,
                rows=len(batch.parts),
                tokens=batch.tokens,
                computed_tokens=batch.model.runner.computed([len(row) for row in batch.rows]),
                budget=batch.budget,
                calls=len(jobs),
                released=batch.released,
                oldest_ns=begin - min(job.arrived_ns for job in jobs),
                run_ns=end - begin,
            )
        )


def _values(batch: Batch) -> list[RowOutputs]:
    rows = batch.rows
    outputs = list(dict.fromkeys(output for job in batch.jobs for output in job.outputs))
    values = batch.model.runner.run(rows, outputs)
    if len(values) != len(rows):
        raise RuntimeFault(f"{len(rows)} rows gave {len(values)} outputs")
    return values


def _share_out(batch: Batch, values: Sequence[RowOutputs], begin: int, end: int) -> list[_Outcome]:
    """Gives each job the outputs of its rows; returns the jobs that are complete."""
    finished: list[_Outcome] = []
    for (job, index), value in zip(batch.parts, values, strict=True):
        job.results[index] = value
        job.begun_ns = min(job.begun_ns or begin, begin)
        job.left -= 1
        if not job.left and not job.dead:
            queued = job.begun_ns - job.arrived_ns
            finished.append((job, Ran(job.results, queued, end - job.begun_ns)))
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
