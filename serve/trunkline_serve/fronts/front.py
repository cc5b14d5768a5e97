"""A front process: gRPC, tokenising and decoding; rows are computed by the engine process."""

from __future__ import annotations

import asyncio
from contextlib import closing, suppress
from dataclasses import replace

from trunkline_serve.engine import Engine
from trunkline_serve.events import Everyone
from trunkline_serve.fronts.child import Folder, Line, Supervised
from trunkline_serve.fronts.following import follow
from trunkline_serve.fronts.remote import Remote
from trunkline_serve.observe.observer import Observer
from trunkline_serve.precedence import give_way
from trunkline_serve.process import end_process
from trunkline_serve.rpc.server import Server
from trunkline_serve.settings import Settings

_TOKEN_BYTES = 192  # of memory, for a token that may wait: ids and types, and 46 values
_LEAST_BYTES = 1 << 20


async def front(line: Line, folder: Folder, settings: Settings, *, again: bool) -> None:
    """Serves what the engine does until the supervisor says stop, then drains.

    Args:
        line: To the supervisor.
        folder: Holds the engine's socket.
        settings: Of this front.
        again: Without meaning for a front: it keeps nothing.

    Raises:
        ConfigError: The address cannot be listened on.
    """
    give_way()
    child = Supervised(line, folder)
    settings = _shared(settings)
    remote = Remote()
    with (
        closing(Engine(remote, settings, Everyone())) as engine,
        closing(Observer(engine)) as observer,
    ):
        server = Server(engine, remote, observer.calls, reuse_port=True)
        linked = asyncio.Event()

        def tell(up: bool) -> None:
            server.available(up)
            linked.set()

        following = asyncio.create_task(
            follow(folder.socket, _memory_bytes(settings), engine.models, remote, tell)
        )
        following.add_done_callback(lambda _: child.stop.set())
        await _either(linked, child.stop)
        if not child.stop.is_set():
            await server.start()
            line.say_ready(engine.models.ids())
            await child.stop.wait()
            await server.drain()
            observer.close()
            end_process()
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following


async def _either(one: asyncio.Event, other: asyncio.Event) -> None:
    """Waits until one of two events is set."""
    waiting = [asyncio.create_task(event.wait()) for event in (one, other)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


def _shared(settings: Settings) -> Settings:
    """Returns the settings of one front: its share of what is bounded, but at least one call's."""
    limits, fronts = settings.limits, settings.listen.fronts
    held = max(-(-limits.max_held_bytes // fronts), 4 * limits.max_message_bytes)
    shared = replace(
        limits,
        max_in_flight=max(-(-limits.max_in_flight // fronts), limits.max_documents),
        max_calls=-(-limits.max_calls // fronts),
        max_held_bytes=held,
    )
    return replace(settings, limits=shared)


def _memory_bytes(settings: Settings) -> int:
    tokens = settings.limits.max_queue_tokens // settings.listen.fronts
    return max(tokens * _TOKEN_BYTES, _LEAST_BYTES)
