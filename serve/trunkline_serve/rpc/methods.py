"""Methods of a servicer as gRPC handlers, whose every failure is a status of our own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from trunkline.errors import InvalidInput
from trunkline_serve.rpc.status import to_status

Context = grpc.aio.ServicerContext[Any, Any]
Unary = Callable[[Any, Context], Awaitable[Message]]
Stream = Callable[[AsyncIterator[Any], Context], AsyncIterator[Message]]


def service_handler(
    service: ServiceDescriptor, servicer: object, name: str = ""
) -> grpc.GenericRpcHandler:
    """Returns the handler of a service whose methods are unary, or streams on both sides.

    The generated registration is not used because with it unreadable bytes are answered with
    UNKNOWN, the name of a Python exception, and a trace in the log for every such call.

    Args:
        service: Its descriptor.
        servicer: Has a method for each: a coroutine function (request, context), or for a stream
            an asynchronous generator function (requests, context).
        name: What callers call the service; its own full name by default.
    """
    handlers = {method.name: _handler(method, servicer) for method in service.methods}
    return grpc.method_handlers_generic_handler(name or service.full_name, handlers)


def _handler(method: MethodDescriptor, servicer: object) -> grpc.RpcMethodHandler[Any, Any]:
    work = getattr(servicer, method.name)
    read = _reader(GetMessageClass(method.input_type))
    write = GetMessageClass(method.output_type).SerializeToString
    if method.client_streaming:
        return grpc.stream_stream_rpc_method_handler(_streaming(work), read, write)
    return grpc.unary_unary_rpc_method_handler(_answering(work), read, write)


def _reader(kind: type[Message]) -> Callable[[bytes], Message | InvalidInput]:
    def read(data: bytes) -> Message | InvalidInput:
        try:
            return kind.FromString(data)
        except DecodeError:
            return InvalidInput("request", f"cannot be parsed as {kind.DESCRIPTOR.full_name}")

    return read


def _answering(method: Unary) -> Unary:
    """Makes a method answer its exceptions with a status. Cancellation is none of them."""

    async def answer(request: Any, context: Context) -> Message:
        try:
            if isinstance(request, InvalidInput):
                raise request
            return await method(request, context)
        except Exception as error:
            status = to_status(error)
        await context.abort_with_status(status)
        raise AssertionError("abort returned")

    return answer


def _streaming(method: Stream) -> Stream:
    """Does the same for a stream: an exception ends it."""

    async def answer(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Message]:
        try:
            async for reply in method(_readable(requests), context):
                yield reply
            return
        except Exception as error:
            status = to_status(error)
        await context.abort_with_status(status)

    return answer


async def _readable(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if isinstance(request, InvalidInput):
            raise request
        yield request
