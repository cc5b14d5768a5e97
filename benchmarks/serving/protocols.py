"""The ways to call a Trunkline server: its own API, its stream, Open Inference by text or ids."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import numpy as np

from benchmarks.serving.targets import Call, Expired, Failed, GrpcTarget, Refused, Target
from trunkline.batching import pad
from trunkline.errors import ConfigError
from trunkline.pipeline import Prepared
from trunkline.v1 import analysis_service_pb2 as pb
from trunkline_serve.client import OPTIONS
from trunkline_serve.oip.tensor_model import IDS, MASK, TYPES
from trunkline_serve.oip.tensors import BYTES, INT64, Array, Datatype
from trunkline_serve.oip.text_model import QUESTION, TASKS, TEXT
from trunkline_serve.oip.v1 import open_inference_pb2 as oip
from trunkline_serve.rpc.requests import request_to_pb

_ANALYSIS, _INFERENCE = "/trunkline.v1.AnalysisService", "/inference.GRPCInferenceService"
_ERRORS: dict[int, type[Exception]] = {
    grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]: Refused,
    grpc.StatusCode.DEADLINE_EXCEEDED.value[0]: Expired,
}


@dataclass(frozen=True)
class CallProtocol:
    """A way to call a server."""

    target: Callable[[str], Target]  # where calls go, for an address
    # Documents of one call, and the name of the model, to the bytes of a request.
    request: Callable[[Sequence[Prepared], str], bytes]


def _unary(method: str) -> Callable[[str], Target]:
    return lambda address: GrpcTarget(address, method)


def _analyze(together: Sequence[Prepared], model: str) -> bytes:
    return request_to_pb([one.document for one in together], model, 0).SerializeToString()


def _streamed(together: Sequence[Prepared], model: str) -> bytes:
    request = request_to_pb([one.document for one in together], model, 0)
    return pb.AnalyzeStreamRequest(request=request).SerializeToString()


def _texts(together: Sequence[Prepared], model: str) -> bytes:
    """Returns one document as a batch of one, for its tasks."""
    (one,) = together
    document = one.document
    if len(document.questions) > 1:
        raise ConfigError("the text model of Open Inference takes one question a text")
    texts = [(TEXT, document.text), *((QUESTION, asked.text) for asked in document.questions)]
    request = oip.ModelInferRequest(model_name=model)
    request.parameters[TASKS].string_param = ",".join(document.tasks or ())
    for name, text in texts:
        _add(request, name, BYTES, np.array([[text.encode()]], object))
    return request.SerializeToString()


def _tensors(together: Sequence[Prepared], model: str) -> bytes:
    """Returns the rows of documents as one padded batch, for the outputs that they need."""
    rows = [row for one in together for row in one.rows]
    outputs = dict.fromkeys(output.name for one in together for output in one.outputs)
    request = oip.ModelInferRequest(model_name=f"{model}.tensors")
    feed = pad(rows, 0)
    for name in (IDS, MASK, TYPES):
        _add(request, name, INT64, feed[name])
    for name in outputs:
        request.outputs.add(name=name)
    return request.SerializeToString()


def _add(request: oip.ModelInferRequest, name: str, kind: Datatype, values: Array) -> None:
    request.inputs.add(name=name, datatype=kind.name, shape=values.shape)
    request.raw_input_contents.append(kind.write(values))


@dataclass(frozen=True)
class StreamTarget:
    """AnalyzeStream of a server: all calls share one stream."""

    address: str  # the server's `host:port`

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Call]:
        """Opens the stream; requests are `AnalyzeStreamRequest` without an id."""
        options = [*OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(self.address, options=options) as channel:
            method: Any = channel.stream_stream(f"{_ANALYSIS}/AnalyzeStream")
            stream = _Stream(method())
            try:
                yield stream.call
            finally:
                await stream.close()


class _Stream:
    """Writes requests one after the other, and gives each caller the reply with its id."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._numbers = itertools.count()
        self._waiting: dict[str, asyncio.Future[bytes]] = {}
        # A queue without end: to give up a write would end the stream.
        self._requests: asyncio.Queue[bytes] = asyncio.Queue()
        self._broken: Failed | None = None
        self._tasks = [asyncio.create_task(work()) for work in (self._write, self._read)]

    async def call(self, request: bytes, seconds: float) -> bytes:
        """Sends a request and waits for its reply."""
        if self._broken is not None:
            raise self._broken
        name = str(next(self._numbers))
        reply = self._waiting[name] = asyncio.get_running_loop().create_future()
        # Messages one behind the other are one message with the fields of both.
        self._requests.put_nowait(pb.AnalyzeStreamRequest(id=name).SerializeToString() + request)
        try:
            async with asyncio.timeout(seconds):
                answer: bytes = await reply
                return answer
        except TimeoutError:
            raise Expired from None
        finally:
            self._waiting.pop(name, None)

    async def close(self) -> None:
        """Ends the stream, whatever is still under way."""
        self._stream.cancel()
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _write(self) -> None:
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the reader tells it
            while True:
                await self._stream.write(await self._requests.get())

    async def _read(self) -> None:
        try:
            while (reply := await self._stream.read()) is not grpc.aio.EOF:
                self._give(pb.AnalyzeStreamResponse.FromString(reply), reply)
            self._break(Failed("ENDED", "the server closed the stream"))
        except grpc.aio.AioRpcError as error:
            self._break(Failed(error.code().name, error.details() or ""))

    def _give(self, message: pb.AnalyzeStreamResponse, reply: bytes) -> None:
        waiting = self._waiting.get(message.id)
        if waiting is None or waiting.done():
            return
        if message.WhichOneof("outcome") == "error":
            waiting.set_exception(_failure(message.error))
        else:
            waiting.set_result(reply)

    def _break(self, error: Failed) -> None:
        self._broken = error
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(error)


def _failure(error: pb.Error) -> Exception:
    kind = _ERRORS.get(error.code)
    if kind is not None:
        return kind()
    name = next(code.name for code in grpc.StatusCode if code.value[0] == error.code)
    return Failed(name, error.message)


PROTOCOLS = {
    "analyze": CallProtocol(_unary(f"{_ANALYSIS}/Analyze"), _analyze),
    "stream": CallProtocol(StreamTarget, _streamed),
    "open-inference": CallProtocol(_unary(f"{_INFERENCE}/ModelInfer"), _texts),
    "open-inference-tensors": CallProtocol(_unary(f"{_INFERENCE}/ModelInfer"), _tensors),
}
"""By name."""
