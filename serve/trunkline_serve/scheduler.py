"""Rows of many calls in one run of a graph.

Lanes, a thread each, take what waits as soon as they are free: rows that run well together, the
most overdue first (`turns`), up to a budget of real tokens. Nothing ever waits for more to come.
Calls, tasks and documents mix freely; models share the lanes.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter_ns
from typing import Protocol

from trunkline import Model
from trunkline.encode import Row
from trunkline.errors import RuntimeFault, Unavailable
from trunkline.kinds import Output
from trunkline.runner import RowOutputs
from trunkline_serve.events import BatchRan, Listener
from trunkline_serve.faults import contained
from trunkline_serve.precedence import go_first
from trunkline_serve.turns import Batch, Job, Outcome, Queue, Ran

_log = logging.getLogger("trunkline_serve")

_PACE_WEIGHT = 0.1  # of the latest run in the running mean of nanoseconds per token
_LATE_SHARE = 0.003  # of calls that may take longer than they should by more than the margin
_MARGIN_STEP = 0.05  # seconds
_ALIKE_TOKENS = 512
_CLOSING = "the server is shutting down"


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
        self._queue = Queue(budget)
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
        """Returns the seconds until a call of so many tokens, made now, should be done.

        None where nothing waits or runs, however large the call: a pace that was learned from slow
        or tiny runs would otherwise refuse all the runs that could correct it.
        """
        with self._ready:
            if not (self._queue.tokens or self._running):
                return 0.0
            wait = self._wait(tokens)
            return wait + self._margin.seconds if self._queue.tokens else wait

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
        # Where there is a queue, small calls must not slip through gaps that large ones see closed:
        # up to a size, all are judged alike.
        own = max(tokens, _ALIKE_TOKENS) if self._queue.tokens else tokens
        ahead = self._queue.ahead(own) + own + self._running / 2
        return ahead * self._pace / len(self._lanes) / 1e9

    def _abandon(self, job: Job) -> None:
        with self._ready:
            left = job.waiting
            self._queue.kill(job)
        if left:
            self._listener.dropped(job.model.manifest.name, "cancelled", job.left)

    def _work(self) -> None:
        go_first()
        while self._step():
            pass

    def _step(self) -> bool:
        """Runs one batch; False when closed. A lane that waits holds no model."""
        batch = self._next()
        if batch is None:
            return False
        try:
            finished = self._run(batch)
        except BaseException as error:
            finished = self._give_up(batch.jobs, error)
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
                batch, late = self._take()
                self._learn(late)
                _post(late)
                if batch is not None:
                    self._running += batch.tokens
                    return batch
                self._idle += 1
                self._ready.wait()
                self._idle -= 1
        return None

    def _take(self) -> tuple[Batch | None, list[Outcome]]:
        """Takes the next batch, if there is one, and what failed while it waited."""
        try:
            batch, late = self._queue.take(self._idle)
        except BaseException as error:
            return None, self._give_up(self._queue.empty(), error)
        for job, _ in late:
            self._listener.dropped(job.model.manifest.name, "expired", job.left)
        return batch, late

    def _give_up(self, jobs: Sequence[Job], error: BaseException) -> list[Outcome]:
        """Fails jobs that met with what nobody expects, so that none hangs and the lane goes on."""
        _log.error("computing failed, and goes on", exc_info=error)
        with self._ready:
            for job in jobs:
                self._queue.kill(job)
        self._listener.lane_failed()
        return [(job, contained(error)) for job in jobs]

    def _learn(self, ended: list[Outcome]) -> None:
        """Compares how long calls took with what was expected."""
        now = perf_counter_ns()
        for job, _ in ended:
            if job.deadline is not None:
                self._margin.learn((now - job.arrived_ns) / 1e9 - job.expected)

    def _run(self, batch: Batch) -> list[Outcome]:
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

    def _alone(self, batch: Batch, error: Exception) -> list[Outcome]:
        """Runs each job's rows of a failed batch on their own: one must not fail the others."""
        jobs = batch.jobs
        if len(jobs) == 1:
            with self._ready:
                self._queue.kill(jobs[0])
            return [(jobs[0], contained(error))]
        finished: list[Outcome] = []
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


def _share_out(batch: Batch, values: Sequence[RowOutputs], begin: int, end: int) -> list[Outcome]:
    """Gives each job the outputs of its rows; returns the jobs that are complete."""
    finished: list[Outcome] = []
    for (job, index), value in zip(batch.parts, values, strict=True):
        job.results[index] = value
        job.begun_ns = min(job.begun_ns or begin, begin)
        job.left -= 1
        if not job.left and not job.dead:
            queued = job.begun_ns - job.arrived_ns
            finished.append((job, Ran(job.results, queued, end - job.begun_ns)))
    return finished


def _post(outcomes: list[Outcome]) -> None:
    """Hands outcomes over to the event loop their calls wait on."""
    if outcomes:
        loop = outcomes[0][0].future.get_loop()
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(_settle, outcomes)


def _settle(outcomes: list[Outcome]) -> None:
    for job, outcome in outcomes:
        if job.future.done():
            continue
        if isinstance(outcome, Ran):
            job.future.set_result(outcome)
        else:
            job.future.set_exception(outcome)
