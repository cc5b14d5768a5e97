"""Who is next: rows of calls in lines, each with its turn.

Turns are those of start-time fair queueing (Goyal, Vin and Cheng, 1996): a row's turn is the tokens
dispatched when its call arrived plus the call's own tokens before it. A sentence that comes after
a book goes between the book's rows; nothing that comes later passes the book for ever.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from time import monotonic, perf_counter_ns

from trunkline import Model
from trunkline.encode import Row
from trunkline.errors import DeadlinePassed
from trunkline.kinds import Output
from trunkline.runner import RowOutputs
from trunkline_serve.events import Release

_LONG = 512  # tokens of a call, at least, before its end is counted behind later calls


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

    @cached_property
    def rows(self) -> list[Row]:
        """The rows."""
        return [job.rows[index] for job, index in self.parts]

    @cached_property
    def jobs(self) -> list[Job]:
        """The jobs that have rows in it."""
        return list(dict.fromkeys(job for job, _ in self.parts))


_Turn = tuple[int, int, Job, int]
"""Turn, order of arrival, job, index of its row."""
Outcome = tuple[Job, Ran | Exception]


class Queue:
    """What waits, in lines of rows that run well together. Not thread-safe: see `Scheduler`.

    Args:
        budget: Most real tokens of a batch; None leaves it to the runner.
    """

    def __init__(self, budget: int | None) -> None:
        self._budget = budget
        self._lines: dict[tuple[Model, int], list[_Turn]] = {}
        self._running: dict[Model, int] = {}
        self._dispatched = 0  # tokens, ever
        self._order = itertools.count()
        self._long: dict[Job, int] = {}  # long jobs, and the turn behind their last row
        self.tokens = 0

    def add(self, job: Job) -> None:
        """Lets all rows of a job wait for their turns."""
        groups = [job.model.runner.group(len(row)) for row in job.rows]
        turn = self._dispatched
        for index, (row, group) in enumerate(zip(job.rows, groups, strict=True)):
            line = self._lines.setdefault((job.model, group), [])
            heapq.heappush(line, (turn, next(self._order), job, index))
            turn += len(row)
        self.tokens += job.waiting
        if job.waiting > max(self._most(job.model), _LONG):
            self._long[job] = turn

    def kill(self, job: Job) -> None:
        """Takes a job's rows out of the count; its turns are passed over later."""
        self.tokens -= job.waiting
        job.waiting, job.dead = 0, True
        self._long.pop(job, None)

    def ahead(self, tokens: int) -> int:
        """Returns the tokens that may run before the last of a call's, if it came now.

        They are those whose turn comes first, which is all that waits but the ends of long calls,
        and of each of these a batch that is taken along. Costs a step per long call only: every
        call that has a deadline asks.
        """
        last = self._dispatched + tokens
        return self.tokens - sum(
            max(0, min(job.waiting, end - last) - self._most(job.model))
            for job, end in self._long.items()
        )

    def _most(self, model: Model) -> int:
        """Returns the most tokens of one batch."""
        return self._budget or model.runner.budget

    def take(self, idle: int) -> tuple[Batch | None, list[Outcome]]:
        """Takes the next batch, and what failed because its deadline passed meanwhile.

        Args:
            idle: Lanes that have nothing to do, beside the one that asks: what waits is shared
                with them.
        """
        late: list[Outcome] = []
        line = self._most_overdue(late)
        if line is None:
            return None, late
        (model, _), turns = line
        budget = self._most(model)
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
            if not job.waiting:
                self._long.pop(job, None)
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
        """Takes out everything that waits, and kills it."""
        turns = [turn for line in self._lines.values() for turn in line]
        jobs = list(dict.fromkeys(job for _, _, job, _ in turns if not job.dead))
        self._lines.clear()
        for job in jobs:
            self.kill(job)
        return jobs

    def _most_overdue(self, late: list[Outcome]) -> tuple[tuple[Model, int], list[_Turn]] | None:
        for key in [key for key, turns in self._lines.items() if not self._head_lives(turns, late)]:
            del self._lines[key]
        free = (
            (key, turns)
            for key, turns in self._lines.items()
            if self._running.get(key[0], 0) < key[0].runner.lanes
        )
        return min(free, key=lambda line: line[1][0][:2], default=None)

    def _head_lives(self, turns: list[_Turn], late: list[Outcome]) -> bool:
        """Drops dead and late rows off the head of a line; returns whether one is left."""
        while turns:
            _, _, job, _ = turns[0]
            if not job.dead and job.deadline is not None and monotonic() >= job.deadline:
                late.append((job, DeadlinePassed("the deadline passed while the call waited")))
                self.kill(job)
            if not job.dead:
                return True
            heapq.heappop(turns)
        return False
