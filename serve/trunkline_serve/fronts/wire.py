"""What a front and the engine say to each other: named tuples, as msgpack on a Unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import msgpack

_LARGEST = 1 << 30  # bytes of a message; only a tokenizer is ever large
_ERRORS = "surrogatepass"  # a path need not be UTF-8


class Offer(NamedTuple):
    """Engine: describes a model that it may name by `key` from now on."""

    key: int
    path: str
    graph: str
    manifest: Mapping[str, Any]
    tokenizer: str


class Models(NamedTuple):
    """Engine: these models are served now, and no others."""

    generation: int
    keys: list[int]


class Applied(NamedTuple):
    """Front: serves the models of this generation."""

    generation: int


class Release(NamedTuple):
    """Front: has no more calls for a model that is served no longer."""

    key: int


class Run(NamedTuple):
    """Front: compute rows that stand in the memory at `at`, and write their outputs behind them.

    The deadline is on CLOCK_MONOTONIC, which all processes of a machine share.
    """

    number: int
    key: int
    outputs: list[str]
    deadline: float | None
    at: int
    lengths: list[int]


class Load(NamedTuple):
    """Front: somebody asks to load a bundle of the folder of models."""

    number: int
    bundle: str
    replace: bool


class Unload(NamedTuple):
    """Front: somebody asks to unload a version of a model, or with 0 all."""

    number: int
    name: str
    version: int


class Cancel(NamedTuple):
    """Front: nobody waits any longer. It is still answered: until then its memory is in use."""

    number: int


class Done(NamedTuple):
    """Engine: a run's outputs are in the memory."""

    number: int
    queue_ns: int
    compute_ns: int


class Changed(NamedTuple):
    """Engine: these names and versions were loaded or unloaded, and all fronts know."""

    number: int
    ids: list[tuple[str, int]]


class Fault(NamedTuple):
    """Engine: a run, load or unload failed; see `failure`."""

    number: int
    error: Mapping[str, Any]


Message = Offer | Models | Applied | Release | Run | Load | Unload | Cancel | Done | Changed | Fault
_KINDS: tuple[type[Any], ...] = (
    Offer,
    Models,
    Applied,
    Release,
    Run,
    Load,
    Unload,
    Cancel,
    Done,
    Changed,
    Fault,
)
_CODES = {kind: code for code, kind in enumerate(_KINDS)}


class Wire(asyncio.Protocol):
    """One end of a connection.

    Args:
        handlers: Called with each message, by its type, in the order they were sent.
        lost: Called once when the other end is gone.
    """

    def __init__(
        self, handlers: Mapping[type[Any], Callable[[Any], None]], lost: Callable[[], None]
    ) -> None:
        self._handlers = handlers
        self._lost = lost
        self._unpacker = msgpack.Unpacker(max_buffer_size=_LARGEST, unicode_errors=_ERRORS)
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins."""
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's has no such base

    def data_received(self, data: bytes) -> None:
        """Hands over the messages that are complete."""
        self._unpacker.feed(data)
        for code, *fields in self._unpacker:
            kind = _KINDS[code]
            self._handlers[kind](kind(*fields))

    def connection_lost(self, error: Exception | None) -> None:
        """Tells the owner, once."""
        self._transport = None
        self._lost()

    def send(self, message: Message) -> None:
        """Sends a message; does nothing once the other end is gone."""
        if self._transport is not None:
            packed = msgpack.packb((_CODES[type(message)], *message), unicode_errors=_ERRORS)
            self._transport.write(packed)

    def close(self) -> None:
        """Ends the connection, after what was sent."""
        if self._transport is not None:
            self._transport.close()
