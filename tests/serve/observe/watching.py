"""Servers that are watched, and ways to call and to read them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc

from tests.serve.hosting import PATIENCE, Hosted, Loop
from trunkline import Model
from trunkline.v1 import analysis_service_pb2 as pb
from trunkline.v1.analysis_service_pb2_grpc import AnalysisServiceStub
from trunkline_serve.host import Host
from trunkline_serve.observe.scrape import Scrape, fetch
from trunkline_serve.settings import Compute, Limits, Listen, Log, Metrics, Settings, Tracing

ANALYZE = "trunkline.v1.AnalysisService/Analyze"


@contextmanager
def observed(
    loop: Loop,
    models: Sequence[Model],
    *,
    limits: Limits | None = None,
    tracing: Tracing | None = None,
    log: Log | None = None,
) -> Iterator[Hosted]:
    """Serves models with metrics on, and whatever else is asked for."""
    settings = Settings(
        listen=Listen(port=0),
        compute=Compute(threads=1),
        limits=limits or Limits(),
        metrics=Metrics(port=0),
        tracing=tracing or Tracing(),
        log=log or Log(),
    )
    hosted = loop.run(_start(models, settings))
    try:
        yield hosted
    finally:
        loop.run(hosted.host.stop())


async def _start(models: Sequence[Model], settings: Settings) -> Hosted:
    host = Host(models, settings)
    try:
        return Hosted(host, await host.start())
    except BaseException:
        host.close()
        raise


def scraped(hosted: Hosted) -> Scrape:
    """Reads a server's metrics."""
    address = hosted.host.metrics_address
    assert address is not None
    return fetch(address)


class Caller:
    """Calls a server as any gRPC client would."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._stub = AnalysisServiceStub(self._channel)

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *error: object) -> None:
        self._channel.close()

    def start(
        self, *texts: str | pb.Document, metadata: Any = (), timeout: float = PATIENCE, **more: Any
    ) -> Any:
        """Starts a call; returns its future."""
        documents = [pb.Document(text=one) if isinstance(one, str) else one for one in texts]
        request = pb.AnalyzeRequest(documents=documents, **more)
        return self._stub.Analyze.future(request, metadata=metadata, timeout=timeout)

    def ask(self, *texts: str | pb.Document, **more: Any) -> Any:
        """Calls; returns the call when it has ended well."""
        call = self.start(*texts, **more)
        call.result(PATIENCE)
        return call

    def fail(self, *texts: str | pb.Document, **more: Any) -> Any:
        """Calls; returns the call when it has ended badly."""
        call = self.start(*texts, **more)
        assert call.exception(PATIENCE) is not None
        return call

    def send(self, data: bytes) -> Any:
        """Sends any bytes as a request of Analyze; returns the call when it has ended badly."""
        call = self._channel.unary_unary(f"/{ANALYZE}").future(data, timeout=PATIENCE)
        assert call.exception(PATIENCE) is not None
        return call

    def stream(self, texts: Sequence[str], metadata: Any = ()) -> list[pb.AnalyzeStreamResponse]:
        """Streams a request for each text; returns the replies."""
        requests = [
            pb.AnalyzeStreamRequest(
                id=str(at), request=pb.AnalyzeRequest(documents=[pb.Document(text=text)])
            )
            for at, text in enumerate(texts)
        ]
        return list(self._stub.AnalyzeStream(iter(requests), metadata=metadata, timeout=PATIENCE))


def request_id(call: Any) -> str:
    """Returns the request id that came back with a call."""
    return str(dict(call.trailing_metadata())["x-request-id"])
