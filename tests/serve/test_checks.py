"""Checks of health, which need no token, and what callers without one can do with them."""

from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest

from tests.faults.serving.frames import wire_to
from tests.serve.hosting import PATIENCE, Loop, wait_for
from trunkline import Model
from trunkline.v1 import model_service_pb2 as pb
from trunkline.v1.model_service_pb2_grpc import ModelServiceStub

HEALTH = "/grpc.health.v1.Health"
CALLS = 64
FEW = {"max_calls": CALLS, "max_connection_calls": 2 * CALLS}


def listed(channel: grpc.Channel) -> bool:
    stub: Any = ModelServiceStub(channel)
    try:
        stub.ListModels(pb.ListModelsRequest(), timeout=PATIENCE)
    except grpc.RpcError:
        return False
    return True


@pytest.mark.parametrize("method", ["Check", "List", "Watch"])
def test_what_cannot_be_read_is_refused_and_leaves_no_trace_in_the_log(
    address: str, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
        list(channel.unary_stream(f"{HEALTH}/{method}")(b"\xff\xff", timeout=PATIENCE))
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith("request: cannot be parsed as grpc.health.v1.")
    assert not caplog.records


def test_a_check_without_a_request_is_refused(address: str) -> None:
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
        list(channel.stream_stream(f"{HEALTH}/Check")(iter([]), timeout=PATIENCE))
    error: Any = caught.value
    assert error.details() == "request: is missing"


def test_checks_whose_requests_never_come_make_room_for_all_others(
    host: Loop, model: Model
) -> None:
    with host.serving([model], **FEW) as hosted, wire_to(hosted.address) as wire:
        wire.greet()
        wire.open_many(f"{HEALTH}/Check", 2 * CALLS)
        with grpc.insecure_channel(hosted.address) as channel:
            wait_for(lambda: all(listed(channel) for _ in range(20)))
            check = health_pb2_grpc.HealthStub(channel).Check
            assert check(HealthCheckRequest(), timeout=PATIENCE).status == 1


def test_checks_whose_answers_are_not_read_leave_calls_to_those_with_a_token(
    host: Loop, model: Model
) -> None:
    with host.serving([model], **FEW) as hosted, wire_to(hosted.address, 0) as wire:
        wire.greet()
        wire.open_many(f"{HEALTH}/Check", 2 * CALLS, b"")
        with grpc.insecure_channel(hosted.address) as channel:
            wait_for(lambda: all(listed(channel) for _ in range(20)))
