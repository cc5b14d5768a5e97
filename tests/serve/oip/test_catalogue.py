"""Models by the protocol's names, while they come and go; and what reflection says of it all."""

from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pool import Default

import trunkline
from tests.serve.hosting import Loop, wait_for, watched
from tests.serve.oip.calling import Padded, Stub, asking, computing
from tests.tiny import build_tiny_bundle
from trunkline import Model
from trunkline.v1 import analysis_service_pb2
from trunkline_serve.oip.reflection import described
from trunkline_serve.oip.servicer import NAME
from trunkline_serve.oip.v1 import open_inference_pb2 as pb


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return trunkline.load(
        build_tiny_bundle(tmp_path_factory.mktemp("newer") / "tiny", "tiny", 2), 1
    )


def test_a_replaced_model_fails_no_request(
    host: Loop, bundle: Path, newer: Model, ragged: Padded
) -> None:
    old = trunkline.load(bundle, 1)
    with host.serving([old]) as hosted, grpc.insecure_channel(hosted.address) as channel:
        stub = Stub(channel)

        async def replace() -> None:
            hosted.engine.models.replace(newer)

        answering = [stub.ModelInfer(asking("Ada")).model_version]
        host.run(replace())
        answering += [
            stub.ModelInfer(request).model_version
            for request in (asking("Ada"), computing(ragged), asking("Bern"))
        ]
        assert answering == ["1", "2", "2", "2"]
        listed = stub.RepositoryIndex(pb.RepositoryIndexRequest()).models
        assert [(one.name, one.version) for one in listed] == [("tiny", "2"), ("tiny.tensors", "2")]


def test_the_first_request_does_not_read_the_vocabulary(
    host: Loop, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trunkline.load(bundle, 1)

    def read(*_: object) -> None:  # hundreds of thousands of words take a second, for everybody
        raise AssertionError("the vocabulary was read")

    with host.serving([model]) as hosted, grpc.insecure_channel(hosted.address) as channel:
        for name in ("to_json", "from_file", "__init__"):
            monkeypatch.setattr(f"trunkline.encode.TextEncoder.{name}", read)
        stub = Stub(channel)
        assert len(stub.RepositoryIndex(pb.RepositoryIndexRequest()).models) == 2
        assert stub.ModelInfer(asking("Ada")).model_version == "1"


def test_a_draining_server_is_alive_and_not_ready(host: Loop, model: Model) -> None:
    with host.serving([model]) as hosted, grpc.insecure_channel(hosted.address) as channel:
        stub = Stub(channel)
        assert stub.ServerReady(pb.ServerReadyRequest()).ready
        assert host.run(hosted.engine.drain(1.0))
        assert stub.ServerLive(pb.ServerLiveRequest()).live
        assert not stub.ServerReady(pb.ServerReadyRequest()).ready
        assert not stub.ModelReady(pb.ModelReadyRequest(name="tiny")).ready
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(asking("Ada"))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_unreadable_requests_are_refused(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(f"/{NAME}/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_caller_that_leaves_a_stream_ends_its_work(host: Loop, bundle: Path) -> None:
    held, recorder = watched(bundle)
    with host.serving([held]) as hosted, grpc.insecure_channel(hosted.address) as channel:
        recorder.gate.clear()
        call = Stub(channel).ModelStreamInfer(iter([asking("Ada")] * 3))
        recorder.wait_until_busy()
        assert hosted.engine.in_flight
        call.cancel()
        wait_for(lambda: hosted.engine.in_flight == 0)
        recorder.gate.set()


def test_reflection_knows_the_protocol_by_its_own_name() -> None:
    pool = described([analysis_service_pb2.DESCRIPTOR])
    service = pool.FindServiceByName(NAME)
    assert {method.name for method in service.methods} == {
        method.name for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    }
    assert service.methods_by_name["ModelInfer"].input_type.full_name == (
        "inference.ModelInferRequest"
    )
    tensor = pool.FindMessageTypeByName("inference.ModelInferRequest.InferInputTensor")
    assert tensor.fields_by_name["contents"].message_type.full_name == (
        "inference.InferTensorContents"
    )
    assert pool.FindServiceByName("trunkline.v1.AnalysisService")
    assert pb.DESCRIPTOR.package not in {"inference", ""}
    assert Default().FindFileByName(pb.DESCRIPTOR.name) is pb.DESCRIPTOR
