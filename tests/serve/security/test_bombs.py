"""Messages made to exhaust the server are refused, and it goes on with as much memory as before."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest

from tests.serve.hosting import PATIENCE, Loop
from tests.serve.security.echo import ECHO, echoing
from trunkline.v1 import analysis_service_pb2 as pb
from trunkline_serve.launch import Launched, serving
from trunkline_serve.security.compression import compression_options

MIB = 1024 * 1024
ANALYZE = "/trunkline.v1.AnalysisService/Analyze"
HELLO = pb.AnalyzeRequest(documents=[pb.Document(text="Ada in Rome")]).SerializeToString()
GZIP, DEFLATE = grpc.Compression.Gzip, grpc.Compression.Deflate


class Server:
    """A server in a process of its own, whose memory and time can be seen."""

    def __init__(self, launched: Launched) -> None:
        self.address = launched.address
        self._folder = Path(f"/proc/{launched.process.pid}")
        self._process = psutil.Process(launched.process.pid)

    def seconds(self) -> float:
        """Returns the CPU time it has taken."""
        spent = self._process.cpu_times()
        return spent.user + spent.system

    def memory(self, what: str) -> int:
        """Returns `VmRSS` now, or its peak `VmHWM` since `forget_peak`, in MiB."""
        lines = (self._folder / "status").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith(what))
        return int(line.split()[1]) // 1024

    def forget_peak(self) -> None:
        (self._folder / "clear_refs").write_text("5")


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Server]:
    with serving([bundle], "--threads", 1) as launched:
        yield Server(launched)


def send(
    address: str, message: bytes, compression: grpc.Compression | None = None, method: str = ANALYZE
) -> grpc.StatusCode:
    """Sends bytes as they are; returns the status."""
    options = (("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
    with grpc.insecure_channel(address, options) as channel:
        call = channel.unary_unary(method)
        try:
            call(message, timeout=PATIENCE, compression=compression)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def document(**fields: object) -> bytes:
    """Returns a request of one document."""
    one = pb.Document(text="x", **fields)  # type: ignore[arg-type]
    return pb.AnalyzeRequest(documents=[one]).SerializeToString()


def nested(depth: int) -> bytes:
    """Returns groups of an unknown field inside each other."""
    return b"\x7b" * depth + b"\x7c" * depth


# What is sent, how, the status, and the MiB that the server may grow by.
BOMBS = {
    "above the limit": (bytes(5 * MIB), None, "RESOURCE_EXHAUSTED", 16),
    "far above the limit": (bytes(100 * MIB), None, "RESOURCE_EXHAUSTED", 16),
    "inflates to 5 MiB": (bytes(5 * MIB), GZIP, "RESOURCE_EXHAUSTED", 16),
    "inflates to 64 MiB": (bytes(64 * MIB), GZIP, "RESOURCE_EXHAUSTED", 16),
    "deflated, 64 MiB": (bytes(64 * MIB), DEFLATE, "RESOURCE_EXHAUSTED", 16),
    "nested 100 deep": (nested(100), None, "INVALID_ARGUMENT", 16),
    "nested a million deep": (nested(1_000_000), None, "INVALID_ARGUMENT", 16),
    "nested, inflated": (nested(1_000_000), GZIP, "INVALID_ARGUMENT", 16),
    "never closed": (b"\x7b" * 1_000_000, None, "INVALID_ARGUMENT", 16),
    "length beyond the end": (b"\x1a\xff\xff\xff\xff\x0f", None, "INVALID_ARGUMENT", 16),
    # The messages themselves fit the limit: parsed, they would be some hundred bytes each.
    "two million documents": (b"\x1a\x00" * 2_000_000, None, "INVALID_ARGUMENT", 24),
    "two million, inflated": (b"\x1a\x00" * 2_000_000, GZIP, "INVALID_ARGUMENT", 24),
    "two million questions": (
        document(questions=[pb.Question()] * 1_900_000),
        GZIP,
        "INVALID_ARGUMENT",
        24,
    ),
    "two million tasks": (document(tasks=[""] * 1_900_000), GZIP, "INVALID_ARGUMENT", 24),
}
SECONDS = 0.5  # of CPU time; for a part of it nothing else is answered


@pytest.mark.parametrize("case", BOMBS)
def test_a_bomb_is_refused_at_once_and_leaves_no_trace(server: Server, case: str) -> None:
    message, compression, status, growth = BOMBS[case]
    before = server.memory("VmRSS")
    server.forget_peak()
    begun = server.seconds()
    assert send(server.address, message, compression).name == status
    assert server.seconds() - begun < SECONDS
    assert server.memory("VmHWM") - before < growth
    assert send(server.address, HELLO) is grpc.StatusCode.OK


def test_many_bombs_do_not_add_up(bundle: Path) -> None:
    bombs = [(bytes(20 * MIB), GZIP), (nested(100_000), GZIP), (bytes(5 * MIB), None)]
    with serving([bundle], "--threads", 1) as launched:
        server = Server(launched)
        for message, compression in bombs * 2:
            send(server.address, message, compression)
        settled = server.memory("VmRSS")
        for message, compression in bombs * 10:
            assert send(server.address, message, compression) is not grpc.StatusCode.OK
        assert server.memory("VmRSS") - settled < 16
        assert send(server.address, HELLO, GZIP) is grpc.StatusCode.OK


def test_a_version_of_grpc_that_inflates_all_takes_nothing_compressed(host: Loop) -> None:
    options = compression_options("1.71.2")
    with echoing(host, options=options) as port:
        address = f"127.0.0.1:{port}"
        assert send(address, b"x", GZIP, ECHO) is grpc.StatusCode.UNIMPLEMENTED
        assert send(address, b"x", DEFLATE, ECHO) is grpc.StatusCode.UNIMPLEMENTED
        assert send(address, b"x", None, ECHO) is grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("version", "plain"),
    [("1.71.2", True), ("1.83.0", True), ("1.84.0", False), ("1.90.1rc2", False), ("2.0", False)],
)
def test_versions_of_grpc_are_told_apart(version: str, plain: bool) -> None:
    assert bool(compression_options(version)) is plain
