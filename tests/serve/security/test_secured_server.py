"""The whole server with tokens and TLS."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from tests.serve.hosting import PATIENCE, Loop
from tests.serve.oip.calling import asking
from tests.serve.security.certificates import authority, signed
from trunkline import Model
from trunkline.errors import ConfigError
from trunkline.v1 import analysis_service_pb2 as pb
from trunkline.v1 import model_service_pb2 as model_pb
from trunkline.v1.analysis_service_pb2_grpc import AnalysisServiceStub
from trunkline.v1.model_service_pb2_grpc import ModelServiceStub
from trunkline_serve.oip.servicer import NAME
from trunkline_serve.oip.v1 import open_inference_pb2 as oip_pb
from trunkline_serve.security.tokens import digest_of

HELLO = pb.AnalyzeRequest(documents=[pb.Document(text="Ada in Rome")])
FILE = f"""
[[token]]
name = "ops"
sha256 = "{digest_of("root")}"
admin = true

[[token]]
name = "app"
sha256 = "{digest_of("user")}"

[[token]]
name = "slow"
sha256 = "{digest_of("slow")}"
calls_per_second = 0.001
burst = 1000
"""
ROOT = (("authorization", "Bearer root"),)
SLOW = (("authorization", "Bearer slow"),)
USER = (("authorization", "Bearer user"),)


@pytest.fixture(scope="module")
def address(host: Loop, model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    file = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    file.touch(0o600)
    file.write_text(FILE)
    with host.serving([model], tokens=str(file)) as hosted:
        yield hosted.address


@pytest.fixture
def channel(address: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address) as channel:
        yield channel


def code_of(call: grpc.UnaryUnaryMultiCallable, request: object, **options: object) -> str:
    try:
        call(request, timeout=PATIENCE, **options)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def test_texts_are_analysed_for_those_with_a_token(channel: grpc.Channel) -> None:
    analyze = AnalysisServiceStub(channel).Analyze
    assert code_of(analyze, HELLO) == "UNAUTHENTICATED"
    assert code_of(analyze, HELLO, metadata=USER) == "OK"
    assert code_of(analyze, HELLO, metadata=ROOT) == "OK"


def test_streams_are_for_those_with_a_token(channel: grpc.Channel) -> None:
    stream = AnalysisServiceStub(channel).AnalyzeStream
    requests = [pb.AnalyzeStreamRequest(id=str(at), request=HELLO) for at in range(3)]
    replies = list(stream(iter(requests), timeout=PATIENCE, metadata=USER))
    assert sorted(reply.id for reply in replies) == ["0", "1", "2"]
    with pytest.raises(grpc.RpcError) as caught:
        list(stream(iter(requests), timeout=PATIENCE))
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


class Streams:
    """Sends any number of requests on one stream; returns how many were let through."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def analyze(self, count: int) -> int:
        requests = [pb.AnalyzeStreamRequest(request=HELLO)] * count
        replies = self._all("/trunkline.v1.AnalysisService/AnalyzeStream", requests)
        return sum(map(pb.AnalyzeStreamResponse.HasField, replies, ["response"] * count))

    def infer(self, count: int) -> int:
        requests = [asking("Ada in Rome", tasks="ner")] * count
        replies = self._all(f"/{NAME}/ModelStreamInfer", requests)
        return sum(not reply.error_message for reply in replies)

    def reflect(self, count: int) -> int:
        method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        requests = [reflection_pb2.ServerReflectionRequest(list_services="")] * count
        return len(list(self._all(method, requests)))

    def _all(self, method: str, requests: Sequence[Message]) -> Iterator[Any]:
        call = self._channel.stream_stream(
            method,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=ANSWERS[method.rpartition("/")[2]].FromString,
        )
        try:
            yield from call(iter(requests), timeout=PATIENCE, metadata=SLOW)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


ANSWERS = {
    "AnalyzeStream": pb.AnalyzeStreamResponse,
    "ModelStreamInfer": oip_pb.ModelStreamInferResponse,
    "ServerReflectionInfo": reflection_pb2.ServerReflectionResponse,
}


@pytest.mark.parametrize("kind", [Streams.analyze, Streams.infer, Streams.reflect])
def test_every_request_of_a_stream_counts_as_a_call(
    host: Loop, model: Model, tmp_path: Path, kind: Callable[[Streams, int], int]
) -> None:
    file = tmp_path / "tokens.toml"
    file.touch(0o600)
    file.write_text(FILE.replace("burst = 1000", "burst = 3"))
    with (
        host.serving([model], tokens=str(file)) as hosted,
        grpc.insecure_channel(hosted.address) as channel,
    ):
        assert kind(Streams(channel), 20) == 3


def test_models_are_loaded_and_unloaded_by_administrators(channel: grpc.Channel) -> None:
    stub = ModelServiceStub(channel)
    cases = [
        (stub.LoadModel, model_pb.LoadModelRequest(bundle="x")),
        (stub.UnloadModel, model_pb.UnloadModelRequest(model="absent")),
    ]
    for call, request in cases:
        assert code_of(call, request) == "UNAUTHENTICATED"
        assert code_of(call, request, metadata=USER) == "PERMISSION_DENIED"
    assert code_of(*cases[1], metadata=ROOT) == "NOT_FOUND"


@pytest.mark.parametrize("name", ["RepositoryModelLoad", "RepositoryModelUnload"])
def test_the_open_protocol_has_the_same_administrators(channel: grpc.Channel, name: str) -> None:
    call = channel.unary_unary(f"/inference.GRPCInferenceService/{name}")
    assert code_of(call, b"") == "UNAUTHENTICATED"
    assert code_of(call, b"", metadata=USER) == "PERMISSION_DENIED"
    assert code_of(call, b"", metadata=ROOT) not in {"UNAUTHENTICATED", "PERMISSION_DENIED"}


def test_probes_need_no_token(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    status = health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE).status
    assert status == health_pb2.HealthCheckResponse.SERVING


def test_the_rest_wants_a_token(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        ProtoReflectionDescriptorDatabase(channel).get_services()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    for method in ("ServerLive", "ModelInfer", "ModelMetadata"):
        call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        assert code_of(call, b"") == "UNAUTHENTICATED"


def test_without_tokens_everybody_here_is_an_administrator(host: Loop, model: Model) -> None:
    request = model_pb.UnloadModelRequest(model="absent")
    with host.serving([model]) as hosted, grpc.insecure_channel(hosted.address) as channel:
        assert code_of(ModelServiceStub(channel).UnloadModel, request) == "NOT_FOUND"


def test_without_tokens_nobody_elsewhere_is_an_administrator(host: Loop, model: Model) -> None:
    request = model_pb.UnloadModelRequest(model="absent")
    with host.serving([model], host="0.0.0.0") as hosted:
        port = hosted.address.rpartition(":")[2]
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert code_of(ModelServiceStub(channel).UnloadModel, request) == "PERMISSION_DENIED"
            assert code_of(AnalysisServiceStub(channel).Analyze, HELLO) == "OK"


def test_texts_are_analysed_over_mutual_tls(host: Loop, model: Model, tmp_path: Path) -> None:
    ca = authority()
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    certificate, key = signed(ca, "server").write(tmp_path)
    tls = {"certificate": certificate, "key": key, "client_ca": str(tmp_path / "ca.pem")}
    client = signed(ca, "client")
    known = grpc.ssl_channel_credentials(ca.pem, client.key, client.pem)
    with host.serving([model], **tls) as hosted:
        with grpc.secure_channel(hosted.address, known) as channel:
            assert code_of(AnalysisServiceStub(channel).Analyze, HELLO) == "OK"
        with grpc.secure_channel(hosted.address, grpc.ssl_channel_credentials(ca.pem)) as channel:
            assert code_of(AnalysisServiceStub(channel).Analyze, HELLO) == "UNAVAILABLE"


@pytest.mark.parametrize(
    "values", [{"tokens": "/absent"}, {"certificate": "/absent", "key": "/absent"}]
)
def test_a_server_without_its_files_does_not_start(
    host: Loop, model: Model, values: dict[str, str]
) -> None:
    with pytest.raises(ConfigError, match="cannot read /absent"), host.serving([model], **values):
        pass
