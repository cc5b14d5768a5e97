"""Requests of any kind that the messages allow, and bytes of any kind that they do not."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

import trunkline
from tests.faults.serving.calls import channel_to, raw_call
from tests.faults.serving.fault_fixture import FaultFixture
from tests.faults.serving.fault_report import FaultReport, table
from tests.serve.hosting import Loop
from tests.tiny import POISON, TASKS
from trunkline.v1 import analysis_service_pb2 as pb

TEXTS = some.text(max_size=60).filter(lambda text: POISON not in text.lower())
NAMES = some.one_of(some.sampled_from([spec.name for spec in TASKS]), some.text(max_size=8))

questions = some.builds(pb.Question, text=TEXTS, task=some.sampled_from(["", "qa"]) | NAMES)
documents = some.builds(
    pb.Document,
    text=TEXTS,
    tasks=some.lists(NAMES, max_size=3),
    questions=some.lists(questions, max_size=2),
    text_pair=some.none() | TEXTS,
)
requests = some.builds(
    pb.AnalyzeRequest,
    model=some.sampled_from(["", "tiny"]) | some.text(max_size=8),
    model_version=some.sampled_from([0, 1]) | some.integers(-(2**63), 2**63 - 1),
    documents=some.lists(documents, max_size=4),
    offset_unit=some.sampled_from([0, 1, 2, 3]) | some.integers(-(2**31), 2**31 - 1),
)
often = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def channel(host: Loop, bundle: Path) -> Iterator[grpc.Channel]:
    with (
        host.serving([trunkline.load(bundle, 1)]) as hosted,
        channel_to(hosted.address) as channel,
    ):
        yield channel


@often
@given(request=requests)
def test_any_request_gets_the_answer_or_the_status_that_the_model_gives(
    faults: FaultFixture, channel: grpc.Channel, request: pb.AnalyzeRequest
) -> None:
    report = FaultReport("requests")
    raw_call(channel, request.SerializeToString(), faults.oracle, report)
    assert report.clean, table([report])


@often
@given(data=some.binary(max_size=200))
def test_any_bytes_get_the_answer_or_the_status_that_the_model_gives(
    faults: FaultFixture, channel: grpc.Channel, data: bytes
) -> None:
    report = FaultReport("bytes")
    raw_call(channel, data, faults.oracle, report)
    assert report.clean, table([report])
