"""Texts are the callers': no log has them, at any level."""

import logging
import signal
from pathlib import Path

import grpc
import pytest

from tests.serve.hosting import PATIENCE, Loop, watched
from trunkline.v1 import analysis_service_pb2 as pb
from trunkline.v1.analysis_service_pb2_grpc import AnalysisServiceStub
from trunkline_serve.launch import serving

MARKER = "Zanzibarquokka"
LONG = MARKER + "x" * 300_000


def asking(text: str, **fields: object) -> pb.AnalyzeRequest:
    document = pb.Document(text=text, **fields)  # type: ignore[arg-type]
    return pb.AnalyzeRequest(documents=[document])


# Each with the status that it gets.
REQUESTS = {
    "answered": (asking(f"{MARKER} lives in Rome."), "OK"),
    "question answered": (
        asking(f"{MARKER} lives in Rome.", questions=[pb.Question(text=f"Who is {MARKER}?")]),
        "OK",
    ),
    "text too long": (asking(LONG), "INVALID_ARGUMENT"),
    "question too long": (
        asking("x", questions=[pb.Question(text=f"{MARKER} " * 200)]),
        "INVALID_ARGUMENT",
    ),
    "unknown task": (asking(MARKER, tasks=["nerr"]), "NOT_FOUND"),
    "unwanted pair": (asking(MARKER, text_pair=LONG), "INVALID_ARGUMENT"),
}


def send_all(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        stub = AnalysisServiceStub(channel)
        for request, expected in REQUESTS.values():
            status = grpc.StatusCode.OK
            try:
                stub.Analyze(request, timeout=PATIENCE)
            except grpc.RpcError as error:
                status = error.code()
            assert status.name == expected
        # Cut in the middle of the text, so that it cannot be parsed.
        data = asking(f"{MARKER} lives here").SerializeToString()[:-4]
        with pytest.raises(grpc.RpcError):
            channel.unary_unary("/trunkline.v1.AnalysisService/Analyze")(data, timeout=PATIENCE)


def whole(records: list[logging.LogRecord]) -> str:
    """Returns all that a log could show, traces and extra fields included."""
    formatter = logging.Formatter("%(message)s")
    return "\n".join(f"{formatter.format(one)} {vars(one)!r}" for one in records)


def test_no_record_of_any_logger_has_a_text(
    host: Loop, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, recorder = watched(bundle)
    with caplog.at_level(1), host.serving([model], level="debug", calls=True) as hosted:
        logging.getLogger("trunkline_serve").debug("debug records are kept")
        send_all(hosted.address)
        recorder.failure = ZeroDivisionError("a bug")
        with grpc.insecure_channel(hosted.address) as channel, pytest.raises(grpc.RpcError):
            request = asking(f"{MARKER} fails")
            AnalysisServiceStub(channel).Analyze(request, timeout=PATIENCE)
    text = whole(caplog.records)
    assert "debug records are kept" in text
    assert "ZeroDivisionError" in text
    assert MARKER not in text


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_line_of_the_command_has_a_text(bundle: Path, form: str) -> None:
    flags = ["--threads", 1, "--log-level", "debug", "--log-calls", "--log-format", form]
    with serving([bundle], *flags) as server:
        send_all(server.address)
        assert server.end(signal.SIGTERM) == 0
        printed = [file.read_text() for file in (server.out, server.log)]
    assert all("serving" in one for one in printed)
    assert not any(MARKER in one for one in printed)
