"""One connection of a front to the engine, with the memory that belongs to it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trunkline import Model
from trunkline.encode import Row
from trunkline.errors import Overloaded, RuntimeFault, Unavailable
from trunkline_serve.fronts.failure import unpack_error
from trunkline_serve.fronts.layout import Column, Layout
from trunkline_serve.fronts.memory import Allocator, Memory, nameless_file
from trunkline_serve.fronts.wire import (
    Cancel,
    Changed,
    Done,
    Fault,
    Models,
    Offer,
    Run,
    Wire,
)
from trunkline_serve.turns import Ran

AWAY = "the engine is being started again; try again"
_SHARE = 4  # no call has more than this part of the memory at a time
_RETRY = 0.1  # seconds


class _Asked(NamedTuple):
    """A message that is answered: its number, and the answer to come."""

    number: int
    answer: asyncio.Future[Any]


class Known(NamedTuple):
    """A model as the engine calls it, and its outputs."""

    key: int
    columns: Mapping[str, Column]


class Link:
    """One connection. Belongs to one event loop.

    Args:
        memory: Shared with the engine over this connection, and no other.

    Attributes:
        memory: As given.
        wire: Messages go here.
        offers: Models that the engine described and nobody has opened yet.
        models: What the engine serves, each time it changes; None once the engine is gone.
        known: The models that were opened.
        sent: Tokens that were ever sent.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.offers: dict[int, Offer] = {}
        self.models: asyncio.Queue[Models | None] = asyncio.Queue()
        self.known: dict[Model, Known] = {}
        self.sent = 0
        self._allocator = Allocator(memory.body, len(memory.bytes))
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._gone = False
        handlers: dict[type[Any], Callable[[Any], None]] = {
            Offer: self._on_offer,
            Models: self.models.put_nowait,
            Done: self._on_answer,
            Changed: self._on_answer,
            Fault: self._on_fault,
        }
        self.wire = Wire(handlers, self._on_lost)

    async def ask(self, kind: Callable[..., Any], *fields: object) -> Any:
        """Sends a message and returns its answer. If it is cancelled, the engine is told.

        Args:
            kind: The message's type, whose first field is a number.
            *fields: The others.

        Raises:
            Unavailable: The engine is gone.
            TrunklineError: What the engine answers with.
        """
        return await self._answer(self._ask(kind, *fields))

    async def run(
        self,
        key: int,
        rows: Sequence[Row],
        wanted: Sequence[Column],
        deadline: float | None,
    ) -> Ran:
        """Has rows run, a part after the other if they are many.

        Raises:
            Overloaded: There is no room in the memory.
            Unavailable: The engine is gone.
            TrunklineError: What the engine answers with.
        """
        parts = _parts(rows, wanted, self.memory.room // _SHARE)
        layouts = [Layout([len(row) for row in part], wanted) for part in parts]
        size = max(layout.size for layout in layouts)
        at = self._take(size)
        block = self.memory.bytes[at : at + size]
        names = [column.output.name for column in wanted]
        asked: _Asked | None = None
        rans = []
        try:
            for part, layout in zip(parts, layouts, strict=True):
                layout.write_rows(block, part)
                asked = self._ask(Run, key, names, deadline, at, layout.lengths)
                self.sent += sum(layout.lengths)
                done: Done = await self._answer(asked)
                rans.append(Ran(layout.read_outputs(block), done.queue_ns, done.compute_ns))
        finally:
            self._give_back(at, asked)
        return _joined(rans)

    def _take(self, size: int) -> int:
        if size > self.memory.room:
            raise RuntimeFault(f"a row needs {size} bytes of {self.memory.room} of memory")
        at = self._allocator.take(size)
        if at is None:
            raise Overloaded(f"no room in memory for {size} bytes of tensors", _RETRY)
        return at

    def _give_back(self, at: int, asked: _Asked | None) -> None:
        """Frees a block as soon as the engine has let go of it, which an answer says."""
        if asked is None:
            self._allocator.give_back(at)
        else:
            asked.answer.add_done_callback(lambda _: self._allocator.give_back(at))

    def _ask(self, kind: Callable[..., Any], *fields: object) -> _Asked:
        if self._gone:
            raise Unavailable(AWAY)
        number = next(self._numbers)
        answer = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self.wire.send(kind(number, *fields))
        return _Asked(number, answer)

    async def _answer(self, asked: _Asked) -> Any:
        try:
            return await asyncio.shield(asked.answer)
        except asyncio.CancelledError:
            if not asked.answer.done():
                self.wire.send(Cancel(asked.number))
            asked.answer.add_done_callback(asyncio.Future.exception)  # nobody else looks at it
            raise

    def _on_offer(self, message: Offer) -> None:
        self.offers[message.key] = message

    def _on_answer(self, message: Done | Changed) -> None:
        self._waiting.pop(message.number).set_result(message)

    def _on_fault(self, message: Fault) -> None:
        self._waiting.pop(message.number).set_exception(unpack_error(message.error))

    def _on_lost(self) -> None:
        self._gone = True
        for answer in self._waiting.values():
            answer.set_exception(Unavailable(AWAY))
        self._waiting.clear()
        self.models.put_nowait(None)


async def connect(path: Path, size: int) -> Link:
    """Connects to the engine's Unix socket, with new memory of `size` bytes.

    Raises:
        OSError: Nobody listens there, or there is no memory.
    """
    loop = asyncio.get_running_loop()
    connection = socket.socket(socket.AF_UNIX)
    with contextlib.ExitStack() as failed:
        failed.callback(connection.close)
        connection.connect(str(path))
        connection.setblocking(False)
        with nameless_file(size) as file:
            link = Link(Memory(file.fileno()))
            socket.send_fds(connection, [b"\0"], [file.fileno()])
        await loop.create_unix_connection(lambda: link.wire, sock=connection)
        failed.pop_all()
    return link


def _parts(rows: Sequence[Row], wanted: Sequence[Column], limit: int) -> list[list[Row]]:
    """Cuts rows into parts that take at most `limit` bytes each, or are one row."""
    parts: list[list[Row]] = []
    left = 0
    for row in rows:
        size = Layout([len(row)], wanted).size
        if size > left or not parts:
            parts.append([])
            left = limit
        parts[-1].append(row)
        left -= size
    return parts


def _joined(rans: Sequence[Ran]) -> Ran:
    if len(rans) == 1:
        return rans[0]
    outputs = [row for ran in rans for row in ran.outputs]
    first, *later = rans
    return Ran(
        outputs,
        first.queue_ns,
        first.compute_ns + sum(ran.queue_ns + ran.compute_ns for ran in later),
    )
