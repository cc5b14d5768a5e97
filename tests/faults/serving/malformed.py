"""Requests that are not what the API says, by the thousand."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from tests.faults.serving.calls import (
    SECONDS,
    channel_to,
    code_of,
    good_call,
    is_ours,
    judge_error,
    raw_call,
    words_of,
)
from tests.faults.serving.fault_fixture import FaultFixture
from tests.faults.serving.fault_report import FaultReport
from tests.faults.serving.inference import INFER, Malformed, Requests
from trunkline_serve.oip.v1 import open_inference_pb2 as pb

_CALLERS = 4
_OPEN_INFERENCE = 10_000
_MUTATED = 2_000
_BETWEEN = 50  # faulty requests between two good ones
_METHODS = (
    "/inference.GRPCInferenceService/None",
    "/trunkline.v1.AnalysisService/None",
    "/trunkline.v1.None/Analyze",
    "/x",
    "/" + "x" * 4000,
)


def open_inference(fixture: FaultFixture) -> FaultReport:
    """Sends faulty Open Inference requests, and good ones in between that must be answered."""
    report = FaultReport("malformed Open Inference requests")
    with fixture.serving() as server, ThreadPoolExecutor(_CALLERS) as callers:

        def call(seed: int) -> None:
            with channel_to(server.address) as channel:
                many_malformed(channel, Requests(fixture.oracle, seed), report, count)

        count = fixture.times(_OPEN_INFERENCE // _CALLERS)
        for done in [callers.submit(call, seed) for seed in range(_CALLERS)]:
            done.result()
        with channel_to(server.address) as channel:
            _unknown_methods(channel, report)
            good_call(channel, fixture.oracle, report)
    return report


def many_malformed(
    channel: grpc.Channel, requests: Requests, report: FaultReport, count: int
) -> None:
    """Sends so many faulty requests."""
    read = pb.ModelInferResponse.FromString
    infer: Any = channel.unary_unary(INFER, response_deserializer=read)
    for at in range(count):
        _send(infer, requests.malformed(), report)
        if at % _BETWEEN == 0:
            _send_good(infer, requests, report)


def _send(infer: Any, request: Malformed, report: FaultReport) -> None:
    try:
        infer(request.data, timeout=SECONDS)
        report.fail(f"{request.fault}: answered")
    except grpc.RpcError as error:
        if code_of(error) in request.codes and is_ours(error):
            report.survive()
        elif is_ours(error):
            report.fail(f"{request.fault}: {words_of(error)}")
        else:
            judge_error(error, report)


def _send_good(infer: Any, requests: Requests, report: FaultReport) -> None:
    data, texts = requests.good()
    try:
        report.check(requests.complaint(infer(data, timeout=SECONDS), texts))
    except grpc.RpcError as error:
        judge_error(error, report)


def _unknown_methods(channel: grpc.Channel, report: FaultReport) -> None:
    for path in _METHODS:
        try:
            channel.unary_unary(path)(b"", timeout=SECONDS)
            report.fail(f"{path[:40]}: answered")
        except grpc.RpcError as error:
            unknown = code_of(error) is grpc.StatusCode.UNIMPLEMENTED
            report.check("" if unknown else f"{path[:40]}: {words_of(error)}")


def mutated(fixture: FaultFixture) -> FaultReport:
    """Sends requests with changed bytes; the model itself says what each must be answered."""
    report = FaultReport("mutated trunkline.v1 requests")
    originals = [one.SerializeToString() for one in fixture.oracle.requests]
    chance = random.Random(3)
    with fixture.serving() as server, channel_to(server.address) as channel:
        for at in range(fixture.times(_MUTATED)):
            raw_call(channel, mutation(originals, chance), fixture.oracle, report)
            if at % _BETWEEN == 0:
                good_call(channel, fixture.oracle, report, at)
    return report


def mutation(originals: Sequence[bytes], chance: random.Random) -> bytes:
    """Returns one of some byte strings with a few changes."""
    data = bytearray(chance.choice(originals))
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.randint(0, 6))
        data[at:end] = chance.choice(
            (b"", chance.randbytes(end - at), chance.randbytes(3), bytes(data[end:at:-1]))
        )
    return bytes(data)
