"""The services. Each method converts, calls and converts; see `methods` for errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from time import monotonic

from trunkline.v1 import analysis_service_pb2 as analysis_pb
from trunkline.v1 import model_service_pb2 as model_pb
from trunkline_serve.description import describe
from trunkline_serve.engine import Engine
from trunkline_serve.loading import Loading
from trunkline_serve.rpc.descriptions import description_to_pb, id_to_pb
from trunkline_serve.rpc.methods import Context
from trunkline_serve.rpc.stream import analyze, analyze_stream


class AnalysisServicer:
    """Analyses texts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def Analyze(
        self, request: analysis_pb.AnalyzeRequest, context: Context
    ) -> analysis_pb.AnalyzeResponse:
        """Analyses the documents of a request."""
        return await analyze(request, self._engine, deadline_of(context))

    def AnalyzeStream(
        self, requests: AsyncIterator[analysis_pb.AnalyzeStreamRequest], context: Context
    ) -> AsyncIterator[analysis_pb.AnalyzeStreamResponse]:
        """Analyses requests as they come, a few at a time."""
        return analyze_stream(requests, self._engine, deadline_of(context))


class ModelServicer:
    """Tells about the models, loads and unloads them."""

    def __init__(self, engine: Engine, loader: Loading) -> None:
        self._engine = engine
        self._loader = loader

    async def ListModels(
        self, request: model_pb.ListModelsRequest, context: Context
    ) -> model_pb.ListModelsResponse:
        """Lists names and versions."""
        return model_pb.ListModelsResponse(models=map(id_to_pb, self._engine.models.ids()))

    async def DescribeModel(
        self, request: model_pb.DescribeModelRequest, context: Context
    ) -> model_pb.DescribeModelResponse:
        """Describes one model."""
        served = self._engine.models.find(request.model, request.model_version)
        return description_to_pb(describe(served.model, self._engine.settings))

    async def LoadModel(
        self, request: model_pb.LoadModelRequest, context: Context
    ) -> model_pb.LoadModelResponse:
        """Loads a bundle from the folder of models."""
        loaded = await self._loader.load(request.bundle, request.replace)
        return model_pb.LoadModelResponse(id=id_to_pb(loaded))

    async def UnloadModel(
        self, request: model_pb.UnloadModelRequest, context: Context
    ) -> model_pb.UnloadModelResponse:
        """Unloads a model."""
        gone = await self._loader.unload(request.model, request.model_version)
        return model_pb.UnloadModelResponse(models=map(id_to_pb, gone))


def deadline_of(context: Context) -> float | None:
    """Returns the caller's deadline on the monotonic clock."""
    left = context.time_remaining()
    return None if left is None else monotonic() + left
