"""grpc.health.v1 of a server: of all of it, of its services, and of each model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2

from trunkline.errors import TrunklineError
from trunkline_serve.models import Registry
from trunkline_serve.rpc.checks import Checks, request_of
from trunkline_serve.rpc.methods import Context, reader
from trunkline_serve.rpc.status import to_status

_messages: Any = health_pb2  # its type stubs lack what came later
_Response = health_pb2.HealthCheckResponse
_LONGEST = 256  # characters of a name

_Read = Callable[[Context], Awaitable[bytes]]
_Answers = Callable[[Any, Context], AsyncIterator[Message]]


class Health:
    """Answers what is asked about health. Belongs to one event loop.

    A model is asked for as `NAME` or `NAME/VERSION`. Whoever watches gets the newest status as
    soon as it has taken the last: nobody waits for one that does not read, as the standard's own
    servicer would.

    Args:
        services: Names that serve only if there is a model; so does the server as a whole, which is
            the empty one.
        always: Names that serve without one.
        models: Names that come and go.
        most_checks: Most checks that are open at a time: they need no token.
    """

    def __init__(
        self, services: Iterable[str], always: Iterable[str], models: Registry, most_checks: int
    ) -> None:
        self._services = ("", *services)
        self._always = tuple(always)
        self._models = models
        self._status: Any = _Response.SERVING
        self._stopped = False
        self._checks = Checks(most_checks)
        self._changed = asyncio.Event()
        models.on_change(self._tell)

    def handler(self) -> grpc.GenericRpcHandler:
        """Returns the handler of the service; what cannot be read is refused, not raised."""
        asked = health_pb2.HealthCheckRequest
        methods = {
            "Check": _handler(self.check, asked, self._checks.read),
            "List": _handler(self.list, _messages.HealthListRequest),
            "Watch": _handler(self.watch, asked),
        }
        return grpc.method_handlers_generic_handler(health.SERVICE_NAME, methods)

    def available(self, on: bool) -> None:
        """Says SERVING or NOT_SERVING for everything."""
        if not self._stopped:
            self._status = _Response.SERVING if on else _Response.NOT_SERVING
            self._tell()

    def stop(self) -> None:
        """Says NOT_SERVING for everything, for good."""
        self.available(False)
        self._stopped = True

    async def check(self, request: Any, context: Context) -> AsyncIterator[Message]:
        """Yields the status of what is served; all else is not found."""
        status = self._status_of(request.service)
        if status == _Response.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        yield _Response(status=status)

    async def list(self, request: Any, context: Context) -> AsyncIterator[Message]:
        """Yields the status of everything that has one."""
        response = _messages.HealthListResponse()
        for name in (*self._services, *self._always, *self._served()):
            response.statuses[name].status = self._status_of(name)
        yield response

    async def watch(self, request: Any, context: Context) -> AsyncIterator[Message]:
        """Yields the status now, and each time that it has changed."""
        if len(request.service) > _LONGEST:  # it is kept as long as somebody watches
            reason = (
                f"service: has {len(request.service)} characters, at most {_LONGEST} are accepted"
            )
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, reason)
        told = None
        while True:
            changed, status = self._changed, self._status_of(request.service)
            if status != told:
                yield _Response(status=status)
                told = status
            await changed.wait()

    def _status_of(self, name: str) -> Any:
        served = self._served()
        if name in self._services and not served:
            return _Response.NOT_SERVING
        known = name in self._services or name in self._always or name in served
        return self._status if known else _Response.SERVICE_UNKNOWN

    def _served(self) -> set[str]:
        ids = self._models.ids()
        return {one.name for one in ids} | {f"{one.name}/{one.version}" for one in ids}

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _handler(
    method: _Answers, kind: type[Message], take: _Read | None = None
) -> grpc.RpcMethodHandler[Any, Any]:
    """Returns the handler of a method with one request, which `take` reads.

    It handles a stream: of other calls gRPC reads the request before anybody hears of them.
    """
    parsed, take = reader(kind), take or request_of

    async def answer(_: object, context: Context) -> AsyncIterator[Message]:
        try:
            request = await parsed(await take(context))
        except TrunklineError as error:
            await context.abort_with_status(to_status(error))
        async for reply in method(request, context):
            yield reply

    handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
        answer, response_serializer=lambda reply: reply.SerializeToString()
    )
    return handler
