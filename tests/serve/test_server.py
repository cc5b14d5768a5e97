import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from tests.serve.hosting import PATIENCE, Loop, wait_for, watched
from trunkline import Model
from trunkline.errors import BundleError, ConfigError, Unavailable
from trunkline_serve.client import Client
from trunkline_serve.commands import serve
from trunkline_serve.launch import serving
from trunkline_serve.rpc.server import SERVICES

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def health(channel: grpc.Channel, service: str = "") -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    status: int = stub.Check(
        health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE
    ).status
    return status


@pytest.mark.parametrize("service", ["", *SERVICES])
def test_health_serves(address: str, service: str) -> None:
    with grpc.insecure_channel(address) as channel:
        assert health(channel, service) == SERVING


def test_a_server_without_a_model_does_not_serve(host: Loop, model: Model) -> None:
    with host.serving([]) as hosted, grpc.insecure_channel(hosted.address) as channel:
        found = [health(channel, service) for service in ("", *SERVICES)]
        assert found == [NOT_SERVING, NOT_SERVING, SERVING]

        async def add() -> None:
            hosted.engine.models.add(model)

        host.run(add())
        assert [health(channel, service) for service in ("", *SERVICES)] == [SERVING] * 3


def test_a_watch_keeps_no_name_of_any_length(address: str) -> None:
    request = health_pb2.HealthCheckRequest(service="x" * 257)
    with grpc.insecure_channel(address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=PATIENCE)
        with pytest.raises(grpc.RpcError) as caught:
            next(watch)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_reflection_lists_the_services(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        listed = set(database.get_services())
        file = database.FindFileContainingSymbol("trunkline.v1.AnalysisService")
    assert listed >= {*SERVICES, "grpc.health.v1.Health"}
    assert file.name == "trunkline/v1/analysis_service.proto"


def test_models_are_listed_and_described(client: Client, model: Model) -> None:
    (listed,) = client.models()
    assert (listed.name, listed.version) == ("tiny", 1)
    found = client.describe("tiny", 1)
    assert found == client.describe()
    assert found.id == listed
    assert [(task.name, task.kind) for task in found.tasks] == [
        ("ner", "token-classification"),
        ("pos", "token-classification"),
        ("qa", "question-answering"),
        ("topic", "text-classification"),
        ("mood", "text-classification"),
        ("match", "text-classification"),
    ]
    assert [task.name for task in found.tasks if task.pair] == ["match"]
    assert found.tasks[0].labels == model.manifest.tasks[0].labels
    assert found.limits.max_question_tokens == model.pipeline.encoder.max_question_tokens
    assert found.limits.max_message_bytes == 4 * 1024 * 1024
    (graph,) = found.graphs
    assert graph.serving
    assert graph.sha256 == model.graph.sha256


def test_draining_answers_what_is_in_flight_and_nothing_else(host: Loop, bundle: Path) -> None:
    model, recorder = watched(bundle)
    with (
        host.serving([model]) as hosted,
        ThreadPoolExecutor(2) as callers,
        grpc.insecure_channel(hosted.address) as channel,
        Client(hosted.address) as client,
    ):
        recorder.gate.clear()
        first = callers.submit(client.analyze, "Ada")
        recorder.wait_until_busy()
        stopping = callers.submit(host.run, hosted.server.stop())
        wait_for(lambda: health(channel) == NOT_SERVING)
        assert all(health(channel, service) == NOT_SERVING for service in SERVICES)
        with pytest.raises(Unavailable):
            client.analyze("Rome")
        assert not first.done()
        recorder.gate.set()
        assert first.result(PATIENCE) == model.analyze("Ada")
        stopping.result(PATIENCE)
        with pytest.raises(Unavailable):
            client.analyze("Rome")


def test_draining_gives_up_in_time(host: Loop, bundle: Path) -> None:
    model, recorder = watched(bundle)
    with (
        host.serving([model], drain_seconds=0.1) as hosted,
        ThreadPoolExecutor(1) as callers,
        Client(hosted.address) as client,
    ):
        recorder.gate.clear()
        first = callers.submit(client.analyze, "Ada")
        recorder.wait_until_busy()
        host.run(hosted.server.stop())
        with pytest.raises(Unavailable):
            first.result(PATIENCE)
        recorder.gate.set()


def test_an_open_health_watch_does_not_hold_up_the_end(host: Loop, model: Model) -> None:
    with host.serving([model]) as hosted, grpc.insecure_channel(hosted.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == SERVING
        host.run(hosted.server.stop())
        assert next(watch).status == NOT_SERVING


def test_a_taken_port_is_told(host: Loop, model: Model, address: str) -> None:
    port = int(address.rpartition(":")[2])
    with pytest.raises(ConfigError, match="cannot listen on"), host.serving([model], port=port):
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_and_ends_on_a_signal(
    bundle: Path, model: Model, number: signal.Signals
) -> None:
    with serving([bundle], "--threads", 1) as server:
        assert server.out.read_text() == f"serving tiny version 1 on {server.address}\n"
        with Client(server.address) as client:
            assert client.analyze("Ada in Rome") == model.analyze("Ada in Rome")
        assert server.end(number) == 0
        log = server.log.read_text()
    assert f"{bundle}: runs padded-fp32" in log
    assert "2 golden texts as expected" in log
    assert len(log.splitlines()) == 5
    assert log.splitlines()[-1].endswith("stopped")


def test_the_command_heeds_a_file_and_variables(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text("[compute]\nthreads = 1\n[limits]\nmax_documents = 3\n")
    variables = {"TRUNKLINE_LIMITS_MAX_QUESTIONS": "2"}
    with (
        serving([bundle], "--config", file, environment=variables) as server,
        Client(server.address) as client,
    ):
        limits = client.describe().limits
    assert (limits.max_documents, limits.max_questions) == (3, 2)


def test_the_service_manager_hears_of_start_and_end(bundle: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        variables = {"NOTIFY_SOCKET": manager.getsockname()}
        with serving([bundle], environment=variables) as server:
            assert manager.recv(64) == b"READY=1"
            assert server.end(signal.SIGTERM) == 0
            assert manager.recv(64) == b"STOPPING=1"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], ConfigError),
        (["{bundle}", "{bundle}"], BundleError),
        (["{bundle}", "--max-documents", "0"], ConfigError),
        (["{bundle}/graphs"], BundleError),
    ],
)
def test_bad_arguments_are_typed_errors(
    bundle: Path, arguments: list[str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        serve([part.format(bundle=bundle) for part in arguments] + ["--port", "0"])
