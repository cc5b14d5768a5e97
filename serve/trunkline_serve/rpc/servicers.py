"""The services. Each method converts, calls and converts; see `methods` for errors."""

from __future__ import annotations

from time import monotonic

from trunkline.v1 import analysis_service_pb2 as analysis_pb
from trunkline.v1 import model_service_pb2 as model_pb
from trunkline_serve.description import describe, identify
from trunkline_serve.engine import Engine
from trunkline_serve.rpc.converters import documents_from_pb, response_to_pb, unit_from_pb
from trunkline_serve.rpc.descriptions import description_to_pb, id_to_pb
from trunkline_serve.rpc.methods import Context


class AnalysisServicer:
    """Analyses texts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def Analyze(
        self, request: analysis_pb.AnalyzeRequest, context: Context
    ) -> analysis_pb.AnalyzeResponse:
        """Analyses the documents of a request."""
        unit = unit_from_pb(request.offset_unit)
        analysis = await self._engine.analyze(
            documents_from_pb(request),
            model=request.model,
            version=request.model_version,
            deadline=_deadline(context),
        )
        return response_to_pb(analysis, unit)


class ModelServicer:
    """Tells about the models."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def ListModels(
        self, request: model_pb.ListModelsRequest, context: Context
    ) -> model_pb.ListModelsResponse:
        """Lists names and versions."""
        models = [id_to_pb(identify(model)) for model in self._engine.models]
        return model_pb.ListModelsResponse(models=models)

    async def DescribeModel(
        self, request: model_pb.DescribeModelRequest, context: Context
    ) -> model_pb.DescribeModelResponse:
        """Describes one model."""
        model = self._engine.find(request.model, request.model_version)
        return description_to_pb(describe(model, self._engine.settings))


def _deadline(context: Context) -> float | None:
    """Returns the caller's deadline on the monotonic clock."""
    left = context.time_remaining()
    return None if left is None else monotonic() + left
