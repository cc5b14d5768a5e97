"""What happens in a server, told to whoever wants to count, trace or log it.

The engine and the services tell; metrics, statistics and traces listen. Listeners are called on the
thread where it happens and must be quick; what they raise goes to the log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

_log = logging.getLogger("trunkline_serve")

Release = Literal["full", "drained"]
"""Why a batch was cut: its budget was reached, or nothing more waited."""


@dataclass(frozen=True)
class Timing:
    """Where a call's time went, in nanoseconds, and its real tokens, special ones included."""

    total_ns: int
    encode_ns: int
    queue_ns: int
    compute_ns: int
    decode_ns: int
    tokens: int


@dataclass(frozen=True)
class BatchRan:
    """One run of a graph.

    Attributes:
        model, version: What ran.
        rows, tokens: Real ones.
        computed_tokens: Tokens computed, padding included.
        budget: Most real tokens it could have had.
        calls: Calls that had rows in it.
        released: Why it was cut.
        oldest_ns: The longest that a row in it had waited.
        run_ns: Time of the run.
    """

    model: str
    version: int
    rows: int
    tokens: int
    computed_tokens: int
    budget: int
    calls: int
    released: Release
    oldest_ns: int
    run_ns: int


@dataclass(frozen=True)
class Answered:
    """One call that was answered.

    Attributes:
        model, version: What answered.
        tasks: Number of documents by task; empty for tensors.
        documents: Of the call; for tensors the size of the batch.
        timing: Where the time went.
    """

    model: str
    version: int
    tasks: Mapping[str, int]
    documents: int
    timing: Timing


@dataclass(frozen=True)
class Failed:
    """One call that was not answered.

    Attributes:
        model: As asked for; may be empty or unknown.
        reason: As in ErrorInfo: `INVALID_INPUT`, `NOT_FOUND`, `OVERLOADED`, `UNAVAILABLE`,
            `DEADLINE_PASSED`, `UNAUTHENTICATED`, `FORBIDDEN`, `INTERNAL`; or `CANCELLED`.
        stage: Where: `admission`, `encode`, `queue`, `decode`.
        spent_ns: From the call's arrival.
    """

    model: str
    reason: str
    stage: str
    spent_ns: int


class Listener:
    """Hears what happens. A base that ignores everything: override what you count."""

    def batch_ran(self, batch: BatchRan) -> None:
        """One graph ran once; called on a thread that computes."""

    def answered(self, call: Answered) -> None:
        """A call was answered; called on the event loop."""

    def failed(self, call: Failed) -> None:
        """A call was refused, failed or cancelled; called on the event loop."""

    def dropped(self, model: str, reason: str, rows: int) -> None:
        """Rows that waited were not computed: `expired` or `cancelled`; on a computing thread."""

    def lane_failed(self) -> None:
        """Computing met an error it did not expect, and goes on; called on its thread."""


class Everyone(Listener):
    """Passes everything on to several listeners, and never raises."""

    def __init__(self, listeners: Sequence[Listener] = ()) -> None:
        self._listeners = list(listeners)

    def add(self, listener: Listener) -> None:
        """Adds a listener."""
        self._listeners.append(listener)

    def batch_ran(self, batch: BatchRan) -> None:
        """Passes it on."""
        self._pass_on(lambda one: one.batch_ran(batch))

    def answered(self, call: Answered) -> None:
        """Passes it on."""
        self._pass_on(lambda one: one.answered(call))

    def failed(self, call: Failed) -> None:
        """Passes it on."""
        self._pass_on(lambda one: one.failed(call))

    def dropped(self, model: str, reason: str, rows: int) -> None:
        """Passes it on."""
        self._pass_on(lambda one: one.dropped(model, reason, rows))

    def lane_failed(self) -> None:
        """Passes it on."""
        self._pass_on(lambda one: one.lane_failed())

    def _pass_on(self, tell: Callable[[Listener], None]) -> None:
        for one in self._listeners:
            try:
                tell(one)
            except Exception:  # whoever counts must not fail a call, nor end a thread
                _log.exception("%s failed", type(one).__name__)
