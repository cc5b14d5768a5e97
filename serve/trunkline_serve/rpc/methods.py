"""Methods of a servicer as gRPC handlers, whose every failure is a status of our own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from trunkline.errors import InvalidInput
from trunkline_serve.faults import ENDING
from trunkline_serve.observe.calls import Call, Calls
from trunkline_serve.rpc.counting import holds_more
from trunkline_serve.rpc.holdings import HELD, Held, Holdings
from trunkline_serve.rpc.status import to_status

Context = grpc.aio.ServicerContext[Any, Any]
Unary = Callable[[Any, Context], Awaitable[Message]]
Stream = Callable[[AsyncIterator[Any], Context], AsyncIterator[Message]]
Read = Callable[[bytes], Awaitable[Message]]
Write = Callable[[Any], bytes]
Handled = Callable[[bytes, Context], Awaitable[bytes]]

_PLAIN = 65_536  # bytes of a message that holds few fields whatever it holds
_MOST_FIELDS = 65_536


def service_handler(
    service: ServiceDescriptor,
    servicer: object,
    calls: Calls,
    name: str = "",
    *,
    holdings: Holdings,
) -> grpc.GenericRpcHandler:
    """Returns the handler of a service whose methods are unary, or streams on both sides.

    The generated registration is not used because with it unreadable bytes are answered with
    UNKNOWN, the name of a Python exception, and a trace in the log for every such call.

    Args:
        service: Its descriptor.
        servicer: Has a method for each: a coroutine function (request, context), or for a stream
            an asynchronous generator function (requests, context).
        calls: Follows every call.
        name: What callers call the service; its own full name by default.
        holdings: Bound what calls hold.
    """
    name = name or service.full_name
    handlers = {
        method.name: _handler(method, servicer, _Follow(calls, holdings, f"{name}/{method.name}"))
        for method in service.methods
    }
    return grpc.method_handlers_generic_handler(name, handlers)


class _Follow:
    """Follows the calls of one method, and what they hold until they have ended."""

    def __init__(self, calls: Calls, holdings: Holdings, name: str) -> None:
        self._calls = calls
        self._holdings = holdings
        self._name = name

    def __call__(self, context: Context) -> AbstractContextManager[Call]:
        held = Held(self._holdings, context.peer())
        end: Any = lambda _: held.end()  # noqa: E731  # its type stubs want a class of their own
        context.add_done_callback(end)
        HELD.set(held)
        return self._calls.call(self._name, context)


def _handler(
    method: MethodDescriptor, servicer: object, follow: _Follow
) -> grpc.RpcMethodHandler[Any, Any]:
    work = getattr(servicer, method.name)
    read = reader(GetMessageClass(method.input_type))
    write = GetMessageClass(method.output_type).SerializeToString
    if method.client_streaming:
        streamed = _streaming(work, read, follow)
        return grpc.stream_stream_rpc_method_handler(streamed, response_serializer=write)
    return grpc.unary_unary_rpc_method_handler(_answering(work, read, write, follow))


def reader(kind: type[Message]) -> Read:
    """Returns what parses messages. What could hold very many fields is counted first.

    It raises InvalidInput for what holds too many, or cannot be parsed.
    """
    described: Any = kind.DESCRIPTOR

    def parse(data: bytes) -> Message:
        if len(data) > _PLAIN and holds_more(data, described, _MOST_FIELDS):
            raise InvalidInput("request", f"holds more than {_MOST_FIELDS} fields")
        try:
            return kind.FromString(data)
        except DecodeError:
            reason = f"cannot be parsed as {described.full_name}"
            raise InvalidInput("request", reason) from None

    async def read(data: bytes) -> Message:
        return parse(data) if len(data) <= _PLAIN else await asyncio.to_thread(parse, data)

    return read


def _answering(method: Unary, read: Read, write: Write, follow: _Follow) -> Handled:
    """Makes a method answer its exceptions with a status. Cancellation is none of them."""

    async def answer(data: bytes, context: Context) -> bytes:
        with follow(context) as call:
            try:
                held = HELD.get()
                held.take(len(data))  # to the end of the call: gRPC keeps it as long
                reply = write(await method(await read(data), context))
                held.take(len(reply))
                return reply
            except ENDING:
                raise
            except BaseException as error:  # native code may panic, and gRPC would let it hang
                status = _status(error, call)
            await context.abort_with_status(status)
            raise AssertionError("abort returned")

    return answer


def _streaming(method: Stream, read: Read, follow: _Follow) -> Stream:
    """Does the same for a stream: an exception ends it."""

    async def answer(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Message]:
        with follow(context) as call:
            try:
                async for reply in method(_readable(requests, read), context):
                    yield reply
                return
            except ENDING:
                raise
            except BaseException as error:  # native code may panic, and gRPC would let it hang
                status = _status(error, call)
            await context.abort_with_status(status)

    return answer


def _status(error: BaseException, call: Call) -> grpc.Status:
    """Returns the status that ends a call."""
    status: Any = to_status(error)
    call.status = status.code.name
    trailing = (*status.trailing_metadata, *call.trailing)
    found: grpc.Status = status._replace(trailing_metadata=trailing)
    return found


async def _readable(requests: AsyncIterator[bytes], read: Read) -> AsyncIterator[Message]:
    async for data in requests:
        yield await read(data)
