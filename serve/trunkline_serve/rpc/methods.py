"""Methods of a servicer as gRPC handlers, whose every failure is a status of our own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from trunkline.errors import InvalidInput
from trunkline_serve.rpc.status import to_status

Context = grpc.aio.ServicerContext[Any, Any]
Method = Callable[[Any, Context], Awaitable[Message]]


def service_handler(service: ServiceDescriptor, servicer: object) -> grpc.GenericRpcHandler:
    """Returns the handler of a service whose methods are all unary.

    The generated registration is not used because with it unreadable bytes are answered with
    UNKNOWN, the name of a Python exception, and a trace in the log for every such call.
    """
    handlers = {
        method.name: grpc.unary_unary_rpc_method_handler(
            _answering(getattr(servicer, method.name)),
            request_deserializer=_reader(GetMessageClass(method.input_type)),
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
        for method in service.methods
    }
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def _reader(kind: type[Message]) -> Callable[[bytes], Message | InvalidInput]:
    def read(data: bytes) -> Message | InvalidInput:
        try:
            return kind.FromString(data)
        except DecodeError:
            return InvalidInput("request", f"cannot be parsed as {kind.DESCRIPTOR.full_name}")

    return read


def _answering(method: Method) -> Method:
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
