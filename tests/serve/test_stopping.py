"""Servers in processes of their own that are told to end."""

import asyncio
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.faults.serving.calls import ANALYZE
from tests.faults.serving.clients import STREAM, WATCH, WINDOWS
from tests.faults.serving.frames import wire_to
from tests.serve.hosting import PATIENCE
from trunkline.v1 import analysis_service_pb2 as pb
from trunkline.v1.analysis_service_pb2_grpc import AnalysisServiceStub
from trunkline_serve.launch import Launched, serving

REQUEST = pb.AnalyzeRequest(documents=[pb.Document(text="Ada in Rome")])
STREAMED = pb.AnalyzeStreamRequest(id="1", request=REQUEST)
OWN = [("grpc.use_local_subchannel_pool", 1)]
CALLERS, CONNECTIONS = 64, 4
OK, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE


async def call_until_gone(channel: grpc.aio.Channel, ended: Counter[grpc.StatusCode]) -> None:
    stub: Any = AnalysisServiceStub(channel)
    gone = False
    while not gone:
        try:
            await stub.Analyze(REQUEST, timeout=PATIENCE)
            ended[OK] += 1
        except grpc.aio.AioRpcError as error:
            ended[error.code()] += 1
            gone = "failed to connect" in (error.details() or "")


async def end_under_load(server: Launched, ended: Counter[grpc.StatusCode]) -> int:
    """Ends a server that has many callers, and counts how their calls end."""
    channels = [grpc.aio.insecure_channel(server.address, options=OWN) for _ in range(CONNECTIONS)]
    calls = [
        asyncio.create_task(call_until_gone(channels[at % CONNECTIONS], ended))
        for at in range(CALLERS)
    ]
    while ended[OK] < 2 * CALLERS:
        await asyncio.sleep(0.01)
    status = await asyncio.to_thread(server.end, signal.SIGTERM)
    await asyncio.gather(*calls)
    for channel in channels:
        await channel.close()
    return status


@pytest.mark.parametrize("fronts", [0, 2])
def test_under_load_every_call_is_answered_or_unavailable(bundle: Path, fronts: int) -> None:
    ended: Counter[grpc.StatusCode] = Counter()
    with serving([bundle], "--threads", 1, "--log-calls", "--fronts", fronts) as server:
        assert asyncio.run(end_under_load(server, ended)) == 0
        answered = server.log.read_text().count(" status=OK ")
    assert set(ended) == {OK, UNAVAILABLE}
    assert ended[OK] == answered


def test_calls_that_are_not_read_do_not_hold_up_the_end(bundle: Path) -> None:
    calls = {
        WATCH: b"",
        ANALYZE: REQUEST.SerializeToString(),
        STREAM: STREAMED.SerializeToString(),
    }
    with serving([bundle], "--threads", 1) as server, ExitStack() as wires:
        for window, (method, message) in product(WINDOWS, calls.items()):
            wire = wires.enter_context(wire_to(server.address, window))
            wire.greet()
            wire.open(method)
            wire.send(message, last=method != STREAM)
        with grpc.insecure_channel(server.address) as channel:  # so that they have come in
            AnalysisServiceStub(channel).Analyze(REQUEST, timeout=PATIENCE)
        begin = time.monotonic()
        assert server.end(signal.SIGTERM) == 0
        assert time.monotonic() - begin < PATIENCE / 2  # of the 30 s that a drain may take


def test_a_second_signal_does_not_wait_for_the_drain(bundle: Path) -> None:
    more = threading.Event()

    def requests() -> Iterator[pb.AnalyzeStreamRequest]:
        yield STREAMED
        more.wait(PATIENCE)

    with (
        serving([bundle], "--threads", 1) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        # The server waits a second for this call, which does not end by itself.
        stream = AnalysisServiceStub(channel).AnalyzeStream(requests(), timeout=PATIENCE)
        assert next(stream).id == "1"
        server.process.terminate()
        server.await_log("draining")
        assert server.end(signal.SIGTERM) == -signal.SIGTERM
        more.set()
