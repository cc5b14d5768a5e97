"""Triton's own Python client, unmodified, against the real server."""

import asyncio
import json
import queue
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

import trunkline
from tests.serve.hosting import PATIENCE, Loop
from tests.serve.oip.calling import Padded, in_process
from tests.tiny import build_tiny_bundle
from trunkline import Model

TEXTS = ["IBM opened an office in Bern.", "Ada lives in Zürich 😀.", ""]


def text(name: str, *values: str) -> triton.InferInput:
    given = triton.InferInput(name, [len(values)], "BYTES")
    given.set_data_from_numpy(np.array([value.encode() for value in values], object))
    return given


def arrays(padded: Padded) -> list[triton.InferInput]:
    inputs = []
    for name, value in padded.items():
        inputs.append(triton.InferInput(name, list(value.shape), "INT64"))
        inputs[-1].set_data_from_numpy(value)
    return inputs


def found(result: Any, task: str) -> list[Any]:
    return [json.loads(one) for one in result.as_numpy(task)]


def wanted(model: Model, task: str) -> list[Any]:
    results: Any = [result.to_dict() for result in model.analyze(TEXTS)]
    return [result["tasks"][task] for result in results]


def test_the_server_is_alive_and_ready(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny.tensors", "1")
    assert not client.is_model_ready("tiny", "2")
    assert not client.is_model_ready("other")


def test_the_server_names_itself(client: triton.InferenceServerClient) -> None:
    found = client.get_server_metadata(as_json=True)
    assert found == {
        "name": "trunkline",
        "version": trunkline.__version__,
        "extensions": ["statistics", "model_configuration"],
    }


def test_models_are_described(client: triton.InferenceServerClient) -> None:
    texts = client.get_model_metadata("tiny", as_json=True)
    assert texts["versions"] == ["1"]
    assert [(one["name"], one["datatype"], one["shape"]) for one in texts["inputs"]] == [
        (name, "BYTES", ["-1", "1"]) for name in ("TEXT", "QUESTION", "TEXT_PAIR")
    ]
    assert [one["name"] for one in texts["outputs"]] == [
        *("ner", "pos", "qa", "topic", "mood", "match")
    ]
    tensors = client.get_model_metadata("tiny.tensors", as_json=True)
    assert [one["name"] for one in tensors["inputs"]] == [
        *("input_ids", "attention_mask", "token_type_ids")
    ]
    shapes = {one["name"]: one["shape"] for one in tensors["outputs"]}
    assert shapes["ner.logits"] == ["-1", "-1", "5"]
    assert shapes["qa.start_logits"] == ["-1", "-1"]
    assert shapes["topic.logits"] == ["-1", "3"]


@pytest.mark.parametrize("name", ["tiny", "tiny.tensors"])
def test_configurations_fit_the_descriptions(
    client: triton.InferenceServerClient, name: str
) -> None:
    described = client.get_model_metadata(name)
    config = client.get_model_config(name).config
    assert config.name == name
    assert config.max_batch_size == 256
    assert config.WhichOneof("scheduling_choice") == "dynamic_batching"
    assert list(config.version_policy.specific.versions) == [1]
    types = {"BYTES": "TYPE_STRING", "INT64": "TYPE_INT64", "FP32": "TYPE_FP32"}
    for one, other in zip(
        [*described.inputs, *described.outputs], [*config.input, *config.output], strict=True
    ):
        assert one.name == other.name
        assert list(one.shape) == [-1, *other.dims]
        kind = type(other).DESCRIPTOR.fields_by_name["data_type"].enum_type
        assert types[one.datatype] == kind.values_by_number[other.data_type].name
    required = {one.name for one in config.input if not one.optional}
    assert required == {"tiny": {"TEXT"}, "tiny.tensors": {"input_ids", "attention_mask"}}[name]


def test_models_are_listed(client: triton.InferenceServerClient) -> None:
    listed = client.get_model_repository_index().models
    assert [(one.name, one.version, one.state) for one in listed] == [
        ("tiny", "1", "READY"),
        ("tiny.tensors", "1", "READY"),
    ]


def test_texts_are_answered(client: triton.InferenceServerClient, model: Model) -> None:
    result = client.infer("tiny", [text("TEXT", *TEXTS)], request_id="x")
    assert result.get_response().id == "x"
    for task in ("ner", "pos", "topic", "mood"):
        assert found(result, task) == wanted(model, task)


def test_questions_are_answered(client: triton.InferenceServerClient, model: Model) -> None:
    question = "Where is the office?"
    result = client.infer(
        "tiny",
        [text("TEXT", TEXTS[0]), text("QUESTION", question)],
        parameters={"tasks": "qa"},
        timeout=int(PATIENCE * 1e6),
    )
    (asked,) = model.analyze(TEXTS[0], [question]).questions
    assert found(result, "qa") == [[one.to_dict() for one in asked.answers]]
    assert result.as_numpy("ner") is None


def test_tensors_are_computed(
    client: triton.InferenceServerClient, model: Model, ragged: Padded
) -> None:
    outputs = [
        triton.InferRequestedOutput("ner.logits"),
        triton.InferRequestedOutput("mood.logits"),
    ]
    result = client.infer("tiny.tensors", arrays(ragged), "1", outputs)
    expected = in_process(model, ragged)
    for name in ("ner.logits", "mood.logits"):
        assert np.array_equal(result.as_numpy(name), expected[name])


def test_errors_have_their_status(client: triton.InferenceServerClient, ragged: Padded) -> None:
    left = {name: np.ascontiguousarray(value[:, ::-1]) for name, value in ragged.items()}
    with pytest.raises(InferenceServerException) as caught:
        client.infer("tiny.tensors", arrays(left))
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert caught.value.message().startswith("attention_mask: row 0")
    with pytest.raises(InferenceServerException) as caught:
        client.infer("other", [text("TEXT", "Ada")])
    assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_streams_answer_in_order_and_go_on_after_an_error(
    client: triton.InferenceServerClient, model: Model
) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    asked = [
        *(("tiny", value) for value in ("Ada " * 300, "Rome", "Ada")),
        ("other", "Bern"),
        *(("tiny", value) for value in ("IBM " * 90, "Ada")),
    ]
    for at, (name, value) in enumerate(asked):
        client.async_stream_infer(name, [text("TEXT", value)], request_id=str(at))
    got = [answers.get(timeout=PATIENCE) for _ in asked]
    client.stop_stream()
    for at, ((name, value), (result, error)) in enumerate(zip(asked, got, strict=True)):
        if name == "other":
            assert error.message().startswith("unknown model 'other'")
            continue
        assert error is None
        response = result.get_response()
        assert response.id == str(at)
        assert response.parameters["triton_final_response"].bool_param
        expected: Any = model.analyze(value).to_dict()
        assert found(result, "pos") == [expected["tasks"]["pos"]]


def test_asyncio_clients_are_answered_at_once_and_in_streams(address: str, model: Model) -> None:
    names = [("Ada " * count).strip() for count in range(1, 9)]

    async def requests() -> AsyncIterator[dict[str, Any]]:
        for name in names:
            yield {"model_name": "tiny", "inputs": [text("TEXT", name)]}

    async def ask() -> tuple[list[Any], list[Any]]:
        async with triton_aio.InferenceServerClient(address) as client:
            assert await client.is_model_ready("tiny")
            unary = [client.infer("tiny", [text("TEXT", name)]) for name in names]
            answered = await asyncio.gather(*unary)
            streamed = [reply async for reply in client.stream_infer(requests())]
        return answered, streamed

    answered, streamed = asyncio.run(asyncio.wait_for(ask(), PATIENCE))
    assert [error for _, error in streamed] == [None] * len(names)
    for name, one, (other, _) in zip(names, answered, streamed, strict=True):
        expected: Any = model.analyze(name).to_dict()
        assert found(one, "ner") == found(other, "ner") == [expected["tasks"]["ner"]]


def test_statistics_count_what_was_done(host: Loop, model: Model, ragged: Padded) -> None:
    with (
        host.serving([model]) as hosted,
        triton.InferenceServerClient(hosted.address) as client,
    ):
        for _ in range(3):
            client.infer("tiny", [text("TEXT", *TEXTS)])
        client.infer("tiny.tensors", arrays(ragged))
        with pytest.raises(InferenceServerException):
            client.infer("tiny", [text("NAME", "Ada")])
        both = client.get_inference_statistics().model_stats
        (texts,) = client.get_inference_statistics("tiny", "1").model_stats
        with pytest.raises(InferenceServerException):
            client.get_inference_statistics("other")
    assert [(one.name, one.version) for one in both] == [("tiny", "1"), ("tiny.tensors", "1")]
    assert texts == both[0]
    assert [one.inference_count for one in both] == [9, 3]
    assert [one.inference_stats.success.count for one in both] == [3, 1]
    assert [one.inference_stats.fail.count for one in both] == [1, 0]
    assert texts.execution_count == 4
    assert texts.last_inference > 1_700_000_000_000
    for one in both:
        spent = one.inference_stats
        stages = (spent.queue, spent.compute_input, spent.compute_infer, spent.compute_output)
        assert {stage.count for stage in stages} == {spent.success.count}
        assert 0 < sum(stage.ns for stage in stages) <= spent.success.ns


def test_versions_are_told_apart(
    host: Loop, model: Model, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("versions") / "tiny"
    second = trunkline.load(build_tiny_bundle(folder, version=2), 1)
    with (
        host.serving([model, second]) as hosted,
        triton.InferenceServerClient(hosted.address) as client,
    ):
        assert list(client.get_model_metadata("tiny").versions) == ["1", "2"]
        assert list(client.get_model_metadata("tiny.tensors", "1").versions) == ["1", "2"]
        for version, answering in (("", "2"), ("1", "1"), ("2", "2")):
            result = client.infer("tiny", [text("TEXT", "Ada")], version)
            assert result.get_response().model_version == answering
        counted = client.get_inference_statistics("tiny").model_stats
    assert [(one.version, one.inference_count) for one in counted] == [("1", 1), ("2", 2)]


@pytest.mark.parametrize(
    "order",
    [
        ("tritonclient.grpc", "trunkline_serve.oip.reflection"),
        ("trunkline_serve.oip.reflection", "tritonclient.grpc"),
    ],
)
def test_client_and_server_load_in_one_process(order: tuple[str, str], tmp_path: Path) -> None:
    code = (
        f"import {order[0]}, {order[1]}\n"
        "from trunkline_serve.oip.reflection import described\n"
        "described([]).FindServiceByName('inference.GRPCInferenceService')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
