"""The engine's side of its fronts: their jobs, the models they know, what they ask to change."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
from collections.abc import Callable, Coroutine, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from trunkline.errors import Unavailable
from trunkline.kinds import Output
from trunkline.structure import plain
from trunkline_serve.description import ModelId
from trunkline_serve.fronts.failure import pack_error
from trunkline_serve.fronts.layout import Layout, columns
from trunkline_serve.fronts.memory import SOME_TOKENS, Memory
from trunkline_serve.fronts.wire import (
    Applied,
    Cancel,
    Changed,
    Done,
    Fault,
    Load,
    Message,
    Models,
    Offer,
    Release,
    Run,
    Unload,
    Wire,
)
from trunkline_serve.loading import Loading
from trunkline_serve.models import Registry, Served
from trunkline_serve.scheduler import Computing

_log = logging.getLogger("trunkline_serve")
_WAITS_EVERY = 0.02  # seconds; the estimate goes through all that waits
_ACCEPT_AGAIN = 0.1  # seconds
_APPLY_SECONDS = 10.0  # a front that takes longer to serve a model is not waited for


class Sessions:
    """All fronts of an engine. Belongs to one event loop.

    Args:
        computing: Runs the jobs.
        registry: What is served.
        loader: Loads and unloads models for fronts that ask.
    """

    def __init__(self, computing: Computing, registry: Registry, loader: Loading) -> None:
        self.computing = computing
        self.loader = loader
        self._registry = registry
        self._keys = itertools.count()
        self._known: dict[Served, int] = {}
        self._generation = 0
        self.sessions: set[Session] = set()
        self._moved = asyncio.Event()
        self._waits_due = False
        registry.on_change(self._follow)

    async def listen(self, path: Path) -> None:
        """Takes fronts that connect to a Unix socket, until cancelled."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.setblocking(False)
            path.unlink(missing_ok=True)
            listener.bind(str(path))
            listener.listen()
            async with asyncio.TaskGroup() as group:
                while True:
                    try:
                        connection, _ = await loop.sock_accept(listener)
                    except OSError as error:  # no descriptor or no memory is left
                        _log.error("no front can connect: %s", error)
                        await asyncio.sleep(_ACCEPT_AGAIN)
                    else:
                        group.create_task(self._welcome(connection))

    async def _welcome(self, connection: socket.socket) -> None:
        """Begins a session with a front; one that fails connects again."""
        try:
            await self._begin(connection)
        except Exception:
            _log.exception("a front could not connect")

    async def _begin(self, connection: socket.socket) -> None:
        """Begins a session with a front, which first sends the file of its memory."""
        with ExitStack() as failed:
            failed.callback(connection.close)
            descriptors = await _receive_descriptors(connection)
            if not descriptors:  # it has gone already, or none is left here
                return
            try:
                memory = Memory(descriptors[0])
            finally:
                os.close(descriptors[0])
            session = Session(self, memory)
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(lambda: session.wire, connection)
            failed.pop_all()
        self.sessions.add(session)
        session.offer(self._generation, self._known)
        self.publish()

    def leave(self, session: Session) -> None:
        """Forgets a front that is gone."""
        self.sessions.discard(session)
        self.notify()

    def notify(self) -> None:
        """Has changes looked at again that wait for fronts to serve them."""
        self._moved.set()
        self._moved = asyncio.Event()

    async def applied(self) -> None:
        """Waits until all fronts serve what is served now, or have taken too long."""
        generation = self._generation
        try:
            async with asyncio.timeout(_APPLY_SECONDS):
                while any(one.generation < generation for one in self.sessions):
                    await self._moved.wait()
        except TimeoutError:
            _log.warning("a front does not yet serve what the engine does")

    def publish(self) -> None:
        """Lets all fronts know how much waits."""
        queued = self.computing.queued_tokens
        for session in self.sessions:
            session.memory.say_queue(queued, session.seen)
        if not self._waits_due:
            self._waits_due = True
            asyncio.get_running_loop().call_later(_WAITS_EVERY, self._publish_waits)

    def _publish_waits(self) -> None:
        self._waits_due = False
        waits = self.computing.expected_wait(), self.computing.expected_wait(SOME_TOKENS)
        for session in self.sessions:
            session.memory.say_waits(*waits)

    def _follow(self) -> None:
        """Tells all fronts what is served now."""
        self._generation += 1
        self._known = {
            served: self._known[served] if served in self._known else next(self._keys)
            for served in self._registry.all()
        }
        for session in self.sessions:
            session.offer(self._generation, self._known)


class Session:
    """One front.

    Args:
        sessions: All of them.
        memory: Shared with this front.

    Attributes:
        memory: As given.
        wire: The connection to it.
        generation: Of the models that it serves.
        seen: Tokens that ever came from it.
    """

    def __init__(self, sessions: Sessions, memory: Memory) -> None:
        self.memory = memory
        self.generation = 0
        self.seen = 0
        self._sessions = sessions
        self._held: dict[int, _Held] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        handlers: dict[type, Callable[[Any], None]] = {
            Applied: self._on_applied,
            Release: self._on_release,
            Run: self._on_run,
            Load: self._on_load,
            Unload: self._on_unload,
            Cancel: self._on_cancel,
        }
        self.wire = Wire(handlers, self._on_lost)

    def offer(self, generation: int, known: Mapping[Served, int]) -> None:
        """Describes the models that are new to this front, and says which are served.

        They are held for it until it releases them: its calls may still come.
        """
        for served, key in known.items():
            if key not in self._held:
                self._held[key] = _Held(served)
                self.wire.send(_offer(key, served))
        self.wire.send(Models(generation, list(known.values())))

    def _on_applied(self, message: Applied) -> None:
        self.generation = message.generation
        self._sessions.notify()

    def _on_release(self, message: Release) -> None:
        self._held.pop(message.key).release()

    def _on_run(self, message: Run) -> None:
        self.seen += sum(message.lengths)
        self._begin(message.number, self._run(message))
        # After the job's first step, which queues it.
        asyncio.get_running_loop().call_soon(self._sessions.publish)

    def _on_load(self, message: Load) -> None:
        self._begin(message.number, self._load(message))

    def _on_unload(self, message: Unload) -> None:
        self._begin(message.number, self._unload(message))

    def _on_cancel(self, message: Cancel) -> None:
        if message.number in self._tasks:  # else the answer is on its way
            _cancel(self._tasks[message.number])

    def _on_lost(self) -> None:
        for task in self._tasks.values():
            _cancel(task)
        for held in self._held.values():
            held.release()
        self._held.clear()
        self._sessions.leave(self)

    def _begin(self, number: int, work: Coroutine[Any, Any, Message]) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(number, work))
        self._tasks[number] = task

    async def _answer(self, number: int, work: Coroutine[Any, Any, Message]) -> None:
        """Sends what a piece of work gives, or how it failed; always one of them."""
        try:
            reply = await work
        except asyncio.CancelledError:
            reply = Fault(number, pack_error(Unavailable("cancelled")))
        except BaseException as error:  # a front waits for the answer, whatever happens
            reply = Fault(number, pack_error(error))
        del self._tasks[number]
        self._sessions.publish()
        self.wire.send(reply)

    async def _run(self, message: Run) -> Done:
        held = self._held[message.key]
        wanted = [held.columns[name] for name in message.outputs]
        layout = Layout(message.lengths, wanted)
        block = self.memory.bytes[message.at : message.at + layout.size]
        outputs: list[Output] = [column.output for column in wanted]
        ran = await self._sessions.computing.submit(
            held.model, layout.read_rows(block), outputs, message.deadline
        )
        layout.write_outputs(block, ran.outputs)
        return Done(message.number, ran.queue_ns, ran.compute_ns)

    async def _load(self, message: Load) -> Changed:
        loaded = await self._sessions.loader.load(message.bundle, message.replace)
        return await self._changed(message.number, [loaded])

    async def _unload(self, message: Unload) -> Changed:
        gone = await self._sessions.loader.unload(message.name, message.version)
        return await self._changed(message.number, gone)

    async def _changed(self, number: int, ids: list[ModelId]) -> Changed:
        await self._sessions.applied()
        return Changed(number, [(one.name, one.version) for one in ids])


class _Held:
    """A model held for a front, and the columns of its outputs."""

    def __init__(self, served: Served) -> None:
        self._holding = ExitStack()
        self.model = self._holding.enter_context(served.held())
        self.columns = columns(self.model.manifest.tasks)

    def release(self) -> None:
        self._holding.close()


def _cancel(task: asyncio.Task[None]) -> None:
    """Cancels a task after its first step: one that never began could not answer."""
    asyncio.get_running_loop().call_soon(task.cancel)


def _offer(key: int, served: Served) -> Offer:
    """Describes a model from memory: its folder may hold another one by now."""
    model = served.model
    return Offer(
        key,
        str(model.bundle.path),
        model.graph.file,
        plain(model.manifest),
        model.pipeline.encoder.to_json(),
    )


async def _receive_descriptors(connection: socket.socket) -> list[int]:
    """Returns the descriptors that come with the first byte; none if there is no such byte."""
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    loop.add_reader(connection, readable.set_result, None)
    try:
        await readable
    finally:
        loop.remove_reader(connection)
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
    return descriptors
