"""gRPC reflection, whose requests count like those of any other stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection, reflection_pb2

from trunkline_serve.observe.calls import Calls
from trunkline_serve.rpc.holdings import Holdings
from trunkline_serve.rpc.methods import Context, service_handler
from trunkline_serve.security.guard import Meter

_SERVICE: Any = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]


def reflection_handler(
    names: Sequence[str], pool: DescriptorPool, calls: Calls, holdings: Holdings
) -> grpc.GenericRpcHandler:
    """Returns the handler of reflection.

    Args:
        names: Of the services that there are.
        pool: Describes them.
        calls: Follows every call.
        holdings: Bound what calls hold.
    """
    return service_handler(_SERVICE, _Servicer(names, pool), calls, holdings=holdings)


class _Servicer:
    """The standard's, for streams whose requests are counted."""

    def __init__(self, names: Sequence[str], pool: DescriptorPool) -> None:
        self._standard: Any = reflection.aio.ReflectionServicer(names, pool)

    def ServerReflectionInfo(
        self, requests: AsyncIterator[reflection_pb2.ServerReflectionRequest], context: Context
    ) -> AsyncIterator[reflection_pb2.ServerReflectionResponse]:
        """Answers requests in their order; one too many ends the stream."""
        answers: AsyncIterator[reflection_pb2.ServerReflectionResponse]
        answers = self._standard.ServerReflectionInfo(_counted(requests), context)
        return answers


async def _counted(
    requests: AsyncIterator[reflection_pb2.ServerReflectionRequest],
) -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
    meter = Meter()
    async for request in requests:
        meter.charge()
        yield request
