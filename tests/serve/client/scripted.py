"""Real gRPC servers that answer as told, and both clients behind one face."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import grpc
import grpc.aio

from tests.serve.hosting import Loop
from trunkline import Document
from trunkline.v1 import analysis_service_pb2 as pb
from trunkline.v1 import model_service_pb2 as models_pb
from trunkline_serve.client import AsyncClient, Client, Outcome
from trunkline_serve.observe.calls import Calls
from trunkline_serve.rpc.holdings import Holdings
from trunkline_serve.rpc.methods import Context, service_handler

ANALYSIS = pb.DESCRIPTOR.services_by_name["AnalysisService"]
MODELS = models_pb.DESCRIPTOR.services_by_name["ModelService"]
LIMITS = models_pb.Limits(max_documents=4, max_text_bytes=1000, max_message_bytes=4 << 20)

Each = Callable[[Document, Outcome], object]


def ignore(document: Document, outcome: Outcome) -> None:
    """Does nothing."""


class Script:
    """A server that raises what is put into `errors`, one for each call, and then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls: list[tuple[str, float]] = []
        self.sizes: list[int] = []
        self.metadata: dict[str, Any] = {}
        self.most = self.now = 0

    async def Analyze(self, request: pb.AnalyzeRequest, context: Context) -> pb.AnalyzeResponse:
        self._count("Analyze", context)
        self.sizes.append(len(request.documents))
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.01)
        self.now -= 1
        return pb.AnalyzeResponse(results=[pb.DocumentResult() for _ in request.documents])

    async def AnalyzeStream(
        self, requests: AsyncIterator[pb.AnalyzeStreamRequest], context: Context
    ) -> AsyncIterator[pb.AnalyzeStreamResponse]:
        async for request in requests:
            self._count("AnalyzeStream", context)
            response = pb.AnalyzeResponse(results=[pb.DocumentResult()])
            yield pb.AnalyzeStreamResponse(id=request.id, response=response)

    async def ListModels(
        self, request: models_pb.ListModelsRequest, context: Context
    ) -> models_pb.ListModelsResponse:
        self._count("ListModels", context)
        return models_pb.ListModelsResponse()

    async def DescribeModel(
        self, request: models_pb.DescribeModelRequest, context: Context
    ) -> models_pb.DescribeModelResponse:
        return models_pb.DescribeModelResponse(limits=LIMITS)

    async def LoadModel(
        self, request: models_pb.LoadModelRequest, context: Context
    ) -> models_pb.LoadModelResponse:
        self._count("LoadModel", context)
        return models_pb.LoadModelResponse()

    async def UnloadModel(
        self, request: models_pb.UnloadModelRequest, context: Context
    ) -> models_pb.UnloadModelResponse:
        self._count("UnloadModel", context)
        return models_pb.UnloadModelResponse()

    def _count(self, name: str, context: Context) -> None:
        self.metadata = dict(context.invocation_metadata() or ())
        self.calls.append((name, monotonic()))
        if self.errors:
            raise self.errors.pop(0)


@contextmanager
def serving(
    host: Loop,
    script: Script,
    credentials: grpc.ServerCredentials | None = None,
    address: str = "127.0.0.1:0",
) -> Iterator[str]:
    """Serves a script; gives the address."""

    async def start() -> tuple[grpc.aio.Server, str]:
        server = grpc.aio.server()
        room = Holdings(1 << 30, 1 << 30)
        kinds = (ANALYSIS, MODELS)
        handlers = [service_handler(one, script, Calls(), holdings=room) for one in kinds]
        server.add_generic_rpc_handlers(handlers)
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
        await server.start()
        return server, f"127.0.0.1:{port}"

    server, bound = host.run(start())
    try:
        yield bound
    finally:
        host.run(server.stop(0))


class Face(Protocol):
    """A client, of either kind, whose methods block."""

    def __getattr__(self, name: str) -> Callable[..., Any]: ...

    def analyze_stream(
        self, documents: Any, **options: Any
    ) -> Sequence[tuple[Document, Outcome]]: ...


class Blocking:
    def __init__(self, host: Loop, address: str, options: dict[str, Any]) -> None:
        self._client = Client(address, **options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(self._client, name)
        return method

    def analyze_stream(
        self, documents: Iterable[Any], each: Each = ignore, **options: Any
    ) -> list[tuple[Document, Outcome]]:
        found = []
        for one in self._client.analyze_stream(documents, **options):
            each(*one)
            found.append(one)
        return found


class Asyncio:
    def __init__(self, host: Loop, address: str, options: dict[str, Any]) -> None:
        async def make() -> AsyncClient:
            return AsyncClient(address, **options)

        self._host = host
        self._client = host.run(make())

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        return lambda *arguments, **options: self._host.run(method(*arguments, **options))

    def analyze_stream(
        self, documents: Iterable[Any], each: Each = ignore, **options: Any
    ) -> list[tuple[Document, Outcome]]:
        async def collect() -> list[tuple[Document, Outcome]]:
            found = []
            async for one in self._client.analyze_stream(documents, **options):
                each(*one)
                found.append(one)
            return found

        return self._host.run(collect())


CLIENTS: dict[str, Callable[[Loop, str, dict[str, Any]], Any]] = {
    "blocking": Blocking,
    "asyncio": Asyncio,
}


class Certificates:
    """PEM files of an authority, and of a server and a client it vouches for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        return self.folder / name

    def read(self, name: str) -> bytes:
        return self.path(name).read_bytes()
