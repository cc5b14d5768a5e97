"""Texts at the edges of what can be said, and beyond."""

from __future__ import annotations

from typing import Any

import grpc

from tests.faults.serving.calls import ANALYZE, channel_to, good_call, raw_call
from tests.faults.serving.fault_fixture import FaultFixture
from tests.faults.serving.fault_report import FaultReport
from trunkline import Document
from trunkline.errors import InvalidInput
from trunkline.v1 import analysis_service_pb2 as pb
from trunkline_serve.rpc.requests import request_to_pb

_LARGE = 1_000_000
_TOKENS = 4_000_000  # that a server for such texts lets wait
_LIMIT = 262_144  # the server's default
_BRIEF = "text-classification"
_SECONDS = 300.0  # for a text of a megabyte

ODD = (
    "",
    " ",
    "\n\r\t\u3000",
    "\0",
    "Ada\0 in\0Rome",
    "😀",
    "👩‍👩‍👧‍👦 🇨🇭 👍🏽 in Bern",
    "שלום עולם, רומא",
    "مرحبا بالعالم في القاهرة",
    "Ada \u202eemoR ni\u202c lives",
    "e\u0301" * 40,
    "\ufeffAda in Rome",
    "\u200b\u200d\ufe0f",
    "\ufffd\ufffe\uffff\U0010ffff",
    "東京 " * 50,
    "[CLS] [SEP] [PAD] [MASK] <s> </s>",
    "x" * 5000,
    "." * 3000,
    "a " * 3000,
    "\uff21\uff44\uff41 ㏂ ﷺ",
)
"""Texts that all must be answered as the model answers them in process."""


def odd_texts(fixture: FaultFixture) -> FaultReport:
    """Sends every odd text; the answers are the model's own."""
    report = FaultReport("odd texts")
    with fixture.serving() as server, channel_to(server.address) as channel:
        for data in odd_requests():
            raw_call(channel, data, fixture.oracle, report)
        _refused_here(report)
        good_call(channel, fixture.oracle, report)
    return report


def odd_requests() -> list[bytes]:
    """Returns a request for each odd text, and some with texts that are no Unicode."""
    return [*map(_request, ODD), *_not_unicode()]


def large_text(fixture: FaultFixture) -> FaultReport:
    """Sends a megabyte of text: refused over the limit, and answered where the limit is higher."""
    report = FaultReport("1 MB of text")
    sentence = fixture.oracle.documents[0].text + " "
    large = (sentence * (_LARGE // len(sentence) + 1))[:_LARGE]
    data = _request(large, _brief_task(fixture))
    with fixture.serving() as server, channel_to(server.address) as channel:
        _refused(channel, data, report)
        good_call(channel, fixture.oracle, report)
    with (
        fixture.serving("--max-text-bytes", 2 * _LARGE, "--max-queue-tokens", _TOKENS) as server,
        channel_to(server.address) as channel,
    ):
        raw_call(channel, data, fixture.oracle, report, seconds=_SECONDS)
        good_call(channel, fixture.oracle, report)
    return report


def _brief_task(fixture: FaultFixture) -> tuple[str, ...]:
    """Returns the task with the shortest answers: a megabyte of tags is not what is tried here."""
    brief = [spec.name for spec in fixture.oracle.tasks if spec.kind == _BRIEF]
    return tuple(brief[:1])


def _request(text: str, tasks: tuple[str, ...] = ()) -> bytes:
    document = pb.Document(text=text, tasks=tasks)
    return pb.AnalyzeRequest(documents=[document]).SerializeToString()


def _not_unicode() -> list[bytes]:
    """Returns requests with bytes that no string has: lone surrogates, overlong forms, Latin-1."""
    broken = (b"\xed\xa0\x80", b"\xed\xb0\x80 Ada", b"\xc0\x80", b"Z\xfcrich", b"\xf5\x80\x80\x80")
    return [_bytes_field(3, _bytes_field(1, one)) for one in broken]


def _bytes_field(number: int, data: bytes) -> bytes:
    """Returns a field of a message, as it is written: for what the library refuses to write.

    The data must be shorter than 128 bytes.
    """
    return bytes([number << 3 | 2, len(data)]) + data


def _refused_here(report: FaultReport) -> None:
    """Asks the client's own side to send a lone surrogate, which it must refuse."""
    try:
        request_to_pb([Document("Ada \ud800 in Rome")], "", 0)
        report.fail("a lone surrogate was written into a request")
    except InvalidInput as error:
        report.check("" if error.field == "documents[0]" else f"names {error.field}")


def _refused(channel: grpc.Channel, data: bytes, report: FaultReport) -> None:
    method: Any = channel.unary_unary(ANALYZE)
    try:
        method(data, timeout=60)
        report.fail(f"a text over {_LIMIT} bytes was answered")
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)
        right = error.code() is grpc.StatusCode.INVALID_ARGUMENT and str(_LIMIT) in str(
            error.details()
        )
        report.check("" if right else f"{error.code().name}: {error.details()}")
