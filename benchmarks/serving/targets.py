"""What calls go to: gRPC methods and HTTP paths, as bytes in and bytes out.

Requests are bytes before the clock runs and replies stay bytes: the generator shares the machine
with the server, and what it does not do cannot slow the server.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
import grpc
import grpc.aio

Call = Callable[[bytes, float], Awaitable[bytes]]
"""(request, seconds it may take) to reply; raises `Refused`, `Expired` or `Failed`."""

_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own for each turn
    ("grpc.enable_retries", 0),
]
_BUSY = frozenset({429, 503})  # what HTTP servers refuse with
_OK = 200
_SAID = 300  # bytes of an error's body that are kept


class Refused(Exception):
    """The server has no room."""


class Expired(Exception):
    """There was no answer in time."""


class Failed(Exception):
    """Anything else: a code to count by, and what the server said."""

    def __init__(self, code: str, said: str = "") -> None:
        super().__init__(f"{code} {said}".strip())
        self.code = code


class Target(Protocol):
    """A place to send requests to. Can be sent to another process."""

    def connect(self) -> AbstractAsyncContextManager[Call]:
        """Opens connections; the block has what calls."""
        ...


@dataclass(frozen=True)
class GrpcTarget:
    """A unary method of a gRPC server."""

    address: str  # the server's `host:port`
    method: str  # the method's path, e.g. `/grpc.health.v1.Health/Check`

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Call]:
        """Opens one connection, as a gRPC client does."""
        async with grpc.aio.insecure_channel(self.address, options=_OPTIONS) as channel:
            method: Any = channel.unary_unary(self.method)

            async def call(request: bytes, seconds: float) -> bytes:
                try:
                    reply: bytes = await method(request, timeout=seconds)
                except grpc.aio.AioRpcError as error:
                    raise _failure(error) from None
                return reply

            yield call


_GRPC: dict[grpc.StatusCode, type[Exception]] = {
    grpc.StatusCode.RESOURCE_EXHAUSTED: Refused,
    grpc.StatusCode.DEADLINE_EXCEEDED: Expired,
}


def _failure(error: grpc.aio.AioRpcError) -> Exception:
    kind = _GRPC.get(error.code())
    return Failed(error.code().name, error.details() or "") if kind is None else kind()


@dataclass(frozen=True)
class HttpTarget:
    """A path of an HTTP server that takes JSON."""

    url: str  # where to POST to

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Call]:
        """Opens a pool of connections that grows to the number of calls at a time."""
        headers = {"Content-Type": "application/json"}
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

            async def call(request: bytes, seconds: float) -> bytes:
                limit = aiohttp.ClientTimeout(total=seconds)
                try:
                    async with session.post(self.url, data=request, timeout=limit) as reply:
                        body = await reply.read()
                except TimeoutError:
                    raise Expired from None
                except aiohttp.ClientError as error:
                    raise Failed(type(error).__name__) from None
                if reply.status in _BUSY:
                    raise Refused
                if reply.status != _OK:
                    raise Failed(f"HTTP {reply.status}", body[:_SAID].decode(errors="replace"))
                return body

            yield call


@dataclass(frozen=True)
class FanOutTarget:
    """Several targets that one request asks at the same time; all must answer.

    Requests and replies are what `joined` makes of one body for each target that is asked. The
    first failure is the request's: what the others are asked is given up then.
    """

    targets: Mapping[str, Target]  # the targets by name

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Call]:
        """Opens connections to all."""
        async with AsyncExitStack() as stack:
            calls = {
                name: await stack.enter_async_context(target.connect())
                for name, target in self.targets.items()
            }

            async def call(request: bytes, seconds: float) -> bytes:
                async def ask(name: str, body: bytes) -> bytes:
                    return await calls[name](body, seconds)

                try:
                    async with asyncio.TaskGroup() as group:
                        running = {
                            name: group.create_task(ask(name, body))
                            for name, body in parted(request).items()
                        }
                except ExceptionGroup as failed:
                    raise failed.exceptions[0] from None
                return joined({name: task.result() for name, task in running.items()})

            yield call


def joined(parts: Mapping[str, bytes]) -> bytes:
    """Returns named bodies as one: a line of JSON with the length of each, then the bodies."""
    lengths = {name: len(body) for name, body in parts.items()}
    return b"".join([json.dumps(lengths).encode(), b"\n", *parts.values()])


def parted(body: bytes) -> dict[str, bytes]:
    """Returns the bodies that `joined` was given."""
    begin = body.index(b"\n") + 1
    parts: dict[str, bytes] = {}
    for name, length in json.loads(body[:begin]).items():
        parts[name] = body[begin : begin + length]
        begin += length
    return parts
