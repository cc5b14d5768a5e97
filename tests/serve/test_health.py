import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.serve.hosting import Loop
from trunkline import Model
from trunkline.errors import ConfigError
from trunkline_serve.health import health

NAME = "models.example"


def test_a_server_that_serves_is_0(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert health([address]) == 0
    assert capsys.readouterr().out == "SERVING\n"


@pytest.mark.parametrize("service", ["trunkline.v1.AnalysisService", "tiny", "tiny/1"])
def test_a_service_or_model_that_is_served_is_0(address: str, service: str) -> None:
    assert health([address, "--service", service]) == 0


def test_a_proxy_is_not_asked(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert health([address]) == 0


def test_an_unknown_service_is_1(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert health([address, "--service", "none"]) == 1
    assert capsys.readouterr().out.startswith("NOT_FOUND: ")


def test_a_server_that_is_gone_is_1(
    host: Loop, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    with host.serving([model]) as hosted:
        assert health([hosted.address]) == 0
    assert health([hosted.address]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("UNAVAILABLE: ")


def test_a_port_that_does_not_answer_is_1_in_time(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        assert health([f"127.0.0.1:{mute.getsockname()[1]}", "--timeout", "0.2"]) == 1
    assert capsys.readouterr().out.startswith("DEADLINE_EXCEEDED: ")


def test_what_a_server_says_does_not_steer_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Hostile(health_pb2_grpc.HealthServicer):
        def Check(self, request: object, context: grpc.ServicerContext) -> None:
            context.abort(grpc.StatusCode.INTERNAL, "\x1b[2Jowned\x07")

    server = grpc.server(ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(Hostile(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert health([f"127.0.0.1:{port}"]) == 1
    finally:
        server.stop(0).wait()
    assert capsys.readouterr().out == "INTERNAL: \\x1b[2Jowned\\x07\n"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate that is its own authority, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    command += ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


@pytest.fixture(scope="module")
def private(pair: tuple[Path, Path]) -> Iterator[str]:
    """The address of a server that wants to know its clients."""
    certificate, key = (path.read_bytes() for path in pair)
    server = grpc.server(ThreadPoolExecutor(1))
    servicer = grpc_health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    credentials = grpc.ssl_server_credentials([(key, certificate)], certificate, True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


def test_a_private_server_is_asked_by_tls(private: str, pair: tuple[Path, Path]) -> None:
    certificate, key = map(str, pair)
    own = ["--tls-certificate", certificate, "--tls-key", key]
    assert health([private, "--tls-ca", certificate, "--tls-name", NAME, *own]) == 0
    assert health([private, "--tls-ca", certificate, *own]) == 1  # not its name
    assert health([private, "--tls-ca", certificate, "--tls-name", NAME]) == 1  # who asks?
    assert health([private, "--tls-name", NAME, *own]) == 1  # nobody vouches for it
    assert health([private]) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--tls-ca", "none.pem"], "cannot read none.pem"),
        (["--tls-ca", "a.pem", "--tls-key", "k.pem"], "go together"),
    ],
)
def test_wrong_options_are_typed_errors(arguments: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        health(["127.0.0.1:1", *arguments])
