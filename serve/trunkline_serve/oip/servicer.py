"""The protocol's methods. Each converts, calls and converts; errors: rpc.methods."""

from __future__ import annotations

from collections.abc import AsyncIterator
from time import monotonic, perf_counter_ns

import grpc

import trunkline
from trunkline.errors import InvalidInput
from trunkline_serve.aside import aside
from trunkline_serve.engine import Engine
from trunkline_serve.limits import LONGEST_ID, check_id
from trunkline_serve.observe.calls import Calls
from trunkline_serve.oip.answers import Answering
from trunkline_serve.oip.catalogue import Catalogue, version_of
from trunkline_serve.oip.descriptions import config_to_pb, metadata_to_pb
from trunkline_serve.oip.statistics import Statistics
from trunkline_serve.oip.tensors import write_outputs
from trunkline_serve.oip.v1 import open_inference_pb2 as pb
from trunkline_serve.rpc.holdings import Holdings
from trunkline_serve.rpc.methods import Context, service_handler
from trunkline_serve.rpc.replies import replies
from trunkline_serve.rpc.servicers import deadline_of
from trunkline_serve.rpc.status import status_of

NAME = "inference.GRPCInferenceService"
"""What callers call the service."""

TIMEOUT = "timeout"

_SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
_EXTENSIONS = ("statistics", "model_configuration")
_FINAL = "triton_final_response"
_MICROSECONDS = 1e6


def handler(engine: Engine, calls: Calls, holdings: Holdings) -> grpc.GenericRpcHandler:
    """Returns the handler of the protocol for a server; it follows the engine's events."""
    statistics = Statistics()
    engine.events.add(statistics)
    servicer = InferenceServicer(engine, statistics)
    return service_handler(_SERVICE, servicer, calls, NAME, holdings=holdings)


class InferenceServicer:
    """Answers all methods of the service.

    Args:
        engine: Its models are served.
        statistics: Told of what the engine does.
    """

    def __init__(self, engine: Engine, statistics: Statistics) -> None:
        self._engine = engine
        self._statistics = statistics
        self._models = Catalogue(engine)

    async def ServerLive(
        self, request: pb.ServerLiveRequest, context: Context
    ) -> pb.ServerLiveResponse:
        """Says so."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: pb.ServerReadyRequest, context: Context
    ) -> pb.ServerReadyResponse:
        """Tells if there is a model, and the server does not drain."""
        ready = bool(self._engine.models.ids()) and not self._engine.draining
        return pb.ServerReadyResponse(ready=ready)

    async def ModelReady(
        self, request: pb.ModelReadyRequest, context: Context
    ) -> pb.ModelReadyResponse:
        """Tells if a model would answer."""
        version = version_of(request.version, "version")
        return pb.ModelReadyResponse(ready=self._models.ready(request.name, version))

    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        """Names the server."""
        version = trunkline.__version__
        return pb.ServerMetadataResponse(name="trunkline", version=version, extensions=_EXTENSIONS)

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        """Describes what a model takes and gives."""
        model = self._models.find(request.name, version_of(request.version, "version"))
        return metadata_to_pb(model, self._models.versions(model.name, 0))

    async def ModelConfig(
        self, request: pb.ModelConfigRequest, context: Context
    ) -> pb.ModelConfigResponse:
        """Describes a model as Triton would have it configured."""
        model = self._models.find(request.name, version_of(request.version, "version"))
        versions = self._models.versions(model.name, 0)
        most = self._engine.settings.limits.max_documents
        return pb.ModelConfigResponse(config=config_to_pb(model, versions, most))

    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, context: Context
    ) -> pb.ModelStatisticsResponse:
        """Tells how often models were asked."""
        version = version_of(request.version, "version")
        if request.name:
            models = self._models.versions(request.name, version)
        else:
            models = [one for one in self._models.all() if version in (0, one.version)]
        counted = [self._statistics.of(one.name, one.version) for one in models]
        return pb.ModelStatisticsResponse(model_stats=counted)

    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, context: Context
    ) -> pb.RepositoryIndexResponse:
        """Lists the models."""
        response = pb.RepositoryIndexResponse()
        for one in self._models.all():
            response.models.add(name=one.name, version=str(one.version), state="READY")
        return response

    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: Context
    ) -> pb.ModelInferResponse:
        """Answers a request."""
        return await self._infer(request, deadline_of(context))

    def ModelStreamInfer(
        self, requests: AsyncIterator[pb.ModelInferRequest], context: Context
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """Answers requests in their order; one at fault ends nothing."""
        deadline = deadline_of(context)

        async def answer(request: pb.ModelInferRequest) -> pb.ModelStreamInferResponse:
            check_id(request.id)
            response = await self._infer(request, deadline)
            response.parameters[_FINAL].bool_param = True
            return pb.ModelStreamInferResponse(infer_response=response)

        most = self._engine.settings.limits.max_stream_requests
        return replies(requests, answer, _failed, most, in_order=True)

    async def _infer(
        self, request: pb.ModelInferRequest, deadline: float | None
    ) -> pb.ModelInferResponse:
        begin = perf_counter_ns()
        version = version_of(request.model_version, "model_version")
        model = self._models.find(request.model_name, version)
        try:
            return await _answered(model, request, _earlier(deadline, request))
        except Exception:
            self._statistics.refused(model.name, model.version, perf_counter_ns() - begin)
            raise


def _failed(request: pb.ModelInferRequest, error: Exception) -> pb.ModelStreamInferResponse:
    response = pb.ModelInferResponse(id=request.id[:LONGEST_ID])
    message = status_of(error).message
    return pb.ModelStreamInferResponse(error_message=message, infer_response=response)


async def _answered(
    model: Answering, request: pb.ModelInferRequest, deadline: float | None
) -> pb.ModelInferResponse:
    outputs = await model.infer(request, deadline)
    response = pb.ModelInferResponse(
        model_name=model.name, model_version=str(model.version), id=request.id
    )
    raw, size = bool(request.raw_input_contents), sum(values.size for _, values in outputs)
    await aside(size, lambda: write_outputs(response, outputs, raw=raw))
    return response


def _earlier(deadline: float | None, request: pb.ModelInferRequest) -> float | None:
    """Returns the call's deadline, or that of the request's own timeout if it comes first."""
    if TIMEOUT not in request.parameters:
        return deadline
    parameter = request.parameters[TIMEOUT]
    if parameter.WhichOneof("parameter_choice") != "int64_param" or parameter.int64_param < 0:
        raise InvalidInput(f"parameters[{TIMEOUT}]", "is no whole number of microseconds")
    own = monotonic() + parameter.int64_param / _MICROSECONDS
    return own if deadline is None else min(own, deadline)
