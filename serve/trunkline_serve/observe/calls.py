"""One gRPC call as it is seen from outside: its id, its line in the log, its span, its count."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from trunkline_serve.events import Answered, Failed, Listener
from trunkline_serve.observe.tracing import Span, Traces

# The log is also that of processes that have no gRPC.
if TYPE_CHECKING:
    import grpc.aio

REQUEST_ID = "x-request-id"

Metadata = Iterable[tuple[str, str | bytes]]
Ended = Callable[[str, str], None]
"""Hears the method and the status of a call that has ended."""

_log = logging.getLogger("trunkline_serve")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# A process's own start, then a number: random bytes for each call would cost a system call.
_START = secrets.token_hex(6)
_numbers = itertools.count(1)
_current: ContextVar[Call | None] = ContextVar("trunkline_call", default=None)


class Call:
    """One gRPC call, from its arrival to its status.

    Attributes:
        method: As `package.Service/Method`.
        request_id: The caller's own, or a new one.
        status: Name of its status code; set it before a call is aborted.
        model, version, tasks, documents, tokens: Of what was answered; over all requests if it
            is a stream.
        reason, stage: Of what failed last, as in `events.Failed`.
        begin_ns: When it arrived, on `perf_counter_ns`'s clock.
    """

    def __init__(self, method: str, request_id: str, span: Span | None) -> None:
        self.method = method
        self.request_id = request_id
        self.status = "OK"
        self.model, self.version = "", 0
        self.tasks: set[str] = set()
        self.documents = self.tokens = 0
        self.reason = self.stage = ""
        self.begin_ns = perf_counter_ns()
        self._span = span

    @property
    def trailing(self) -> tuple[tuple[str, str], ...]:
        """What to add to the trailing metadata of a status: they replace those of the context."""
        return ((REQUEST_ID, self.request_id),)

    def answered(self, event: Answered) -> None:
        """Adds what was answered."""
        self.model, self.version = event.model, event.version
        self.tasks.update(event.tasks)
        self.documents += event.documents
        self.tokens += event.timing.tokens
        if self._span is not None:
            self._span.answered(event.timing)

    def failed(self, event: Failed) -> None:
        """Notes what failed."""
        self.reason, self.stage = event.reason, event.stage

    def end(self) -> None:
        """Ends the span."""
        if self._span is not None:
            self._span.end(self.status, self._attributes())

    def fields(self, peer: str) -> dict[str, object]:
        """Returns what its line in the log says. There are never texts in it."""
        spent = (perf_counter_ns() - self.begin_ns) / 1e6
        told = {"method": self.method, "peer": peer, "status": self.status, "ms": round(spent, 3)}
        return told | {key: value for key, value in self._facts().items() if value}

    def _facts(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "version": self.version,
            "tasks": sorted(self.tasks),
            "documents": self.documents,
            "tokens": self.tokens,
            "reason": self.reason,
            "stage": self.stage,
        }

    def _attributes(self) -> dict[str, Any]:
        facts = {**self._facts(), "request_id": self.request_id}
        return {f"trunkline.{key}": value for key, value in facts.items() if value}


class Calls(Listener):
    """Follows every gRPC call. Belongs to one event loop.

    What the engine tells is matched to the call whose task it tells it in, or that started it.

    Args:
        log: Whether to log a line per call.
        traces: Where spans go; None for nowhere.
        ended: Hears of each call's end.
    """

    def __init__(
        self, *, log: bool = False, traces: Traces | None = None, ended: Ended | None = None
    ) -> None:
        self._log = log
        self._traces = traces
        self._ended = ended
        self._open = 0
        self._closed = False
        self._none_open = asyncio.Event()

    def close(self) -> None:
        """Waits for no more calls: from now on, only those that are open count for `ended`."""
        self._closed = True
        if not self._open:
            self._none_open.set()

    async def ended(self, seconds: float) -> bool:
        """Returns whether the last call that was open when closed ends in time, its reply sent."""
        try:
            await asyncio.wait_for(self._none_open.wait(), seconds)
        except TimeoutError:
            return False
        return True

    @contextmanager
    def call(self, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> Iterator[Call]:
        """Follows one call, within its handler.

        gRPC runs each handler in a task of its own, so that nobody else is in this context.
        """
        metadata: Metadata = context.invocation_metadata() or ()
        span = None if self._traces is None else self._traces.begin(method, metadata)
        call = Call(method, _request_id(metadata), span)
        context.set_trailing_metadata(call.trailing)
        self._begin(context)
        _current.set(call)
        try:
            yield call
        except (asyncio.CancelledError, GeneratorExit):
            call.status = "CANCELLED"
            raise
        finally:
            self._end(call, context)

    def answered(self, call: Answered) -> None:
        """Adds it to the current call."""
        current = _current.get()
        if current is not None:
            current.answered(call)

    def failed(self, call: Failed) -> None:
        """Adds it to the current call."""
        current = _current.get()
        if current is not None:
            current.failed(call)

    def _begin(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        if not self._closed:
            self._open += 1
            sent: Any = self._sent  # its type stubs want a class of their own
            context.add_done_callback(sent)

    def _sent(self, context: object) -> None:
        self._open -= 1
        if self._closed and not self._open:
            self._none_open.set()

    def _end(self, call: Call, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        call.end()
        if self._ended is not None:
            self._ended(call.method, call.status)
        if self._log:
            _log.info("call", extra={"fields": call.fields(context.peer())})


def current_request_id() -> str:
    """Returns the id of the call that this is done for; empty outside of any."""
    call = _current.get()
    return "" if call is None else call.request_id


def _request_id(metadata: Metadata) -> str:
    """Returns the caller's request id if it is one, else a new one."""
    for key, value in metadata:
        if key == REQUEST_ID and isinstance(value, str) and _ID.fullmatch(value):
            return value
    return f"{_START}-{next(_numbers)}"
