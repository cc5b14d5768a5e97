"""A model by its own name: texts in, JSON out, over the wire."""

from typing import Any

import grpc
import pytest

from tests.serve.hosting import Loop
from tests.serve.oip.calling import Stub, asking, read_texts, strings, tensor
from tests.tiny import POISON
from trunkline import Document, Model
from trunkline_serve.oip.tensors import BYTES
from trunkline_serve.oip.v1 import open_inference_pb2 as pb

INVALID = grpc.StatusCode.INVALID_ARGUMENT
ALONE = ["ner", "pos", "topic", "mood"]
TEXTS = ("IBM opened an office in Bern.", "Ada lives in Zürich 😀.", "")


def refused(stub: Stub, request: pb.ModelInferRequest) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request)
    error: Any = caught.value
    return error.code(), error.details()


def printed(model: Model, text: str, **options: Any) -> dict[str, Any]:
    found: Any = model.analyze(text, **options).to_dict()
    return found


def test_each_task_gives_what_predict_prints(stub: Stub, model: Model) -> None:
    response = stub.ModelInfer(asking(*TEXTS))
    assert (response.model_name, response.model_version) == ("tiny", "1")
    assert [(one.name, one.datatype, list(one.shape)) for one in response.outputs] == [
        (task, "BYTES", [3]) for task in ALONE
    ]
    found = read_texts(response)
    for at, text in enumerate(TEXTS):
        assert {task: found[task][at] for task in ALONE} == printed(model, text)["tasks"]


def test_answers_have_the_shape_of_the_texts(stub: Stub) -> None:
    request = asking(*TEXTS, questions=["Where?"] * 3)
    flat = stub.ModelInfer(request)
    for one in request.inputs:
        one.shape.append(1)
    column = stub.ModelInfer(request)
    assert column.raw_output_contents == flat.raw_output_contents
    assert {tuple(one.shape) for one in flat.outputs} == {(3,)}
    assert {tuple(one.shape) for one in column.outputs} == {(3, 1)}


def test_the_id_comes_back(stub: Stub) -> None:
    request = asking("Ada")
    request.id = "seven"
    assert stub.ModelInfer(request).id == "seven"


def test_each_text_has_its_own_question(stub: Stub, model: Model) -> None:
    questions = ("Where is the office?", "Who lives in Zürich?")
    found = read_texts(stub.ModelInfer(asking(*TEXTS[:2], questions=questions)))
    assert list(found) == ["ner", "pos", "qa", "topic", "mood"]
    for at, question in enumerate(questions):
        (wanted,) = printed(model, TEXTS[at], questions=[question])["questions"]
        assert found["qa"][at] == wanted["answers"]


def test_tasks_can_be_named(stub: Stub) -> None:
    assert list(read_texts(stub.ModelInfer(asking("Ada", tasks="topic, ner")))) == ["topic", "ner"]


def test_outputs_can_be_named_in_any_order(stub: Stub) -> None:
    response = stub.ModelInfer(asking("Ada", tasks="ner,pos,topic", outputs=["topic", "ner"]))
    assert list(read_texts(response)) == ["topic", "ner"]


def test_tasks_narrow_the_outputs_down(stub: Stub) -> None:
    request = asking("Ada", tasks="pos,ner", outputs=["ner", "pos", "qa", "topic", "match"])
    assert list(read_texts(stub.ModelInfer(request))) == ["ner", "pos"]


def test_a_question_for_tasks_that_read_none_is_not_asked(stub: Stub) -> None:
    response = stub.ModelInfer(asking("Ada", questions=["Who?"], tasks="ner"))
    assert list(read_texts(response)) == ["ner"]


def test_tasks_that_read_a_pair_get_it(stub: Stub, model: Model) -> None:
    request = asking("Ada lives in Bern.", tasks="match")
    request.inputs.append(tensor("TEXT_PAIR", "BYTES", [1]))
    request.raw_input_contents.append(strings("Who lives in Bern?"))
    wanted = model.analyze(Document("Ada lives in Bern.", text_pair="Who lives in Bern?"))
    assert read_texts(stub.ModelInfer(request))["match"] == [
        [one.to_dict() for one in wanted.tasks["match"]]
    ]


def test_typed_requests_get_typed_answers(stub: Stub) -> None:
    raw = stub.ModelInfer(asking("Ada", tasks="ner"))
    request = asking(tasks="ner")
    del request.inputs[:], request.raw_input_contents[:]
    request.inputs.append(tensor("TEXT", "BYTES", [1], bytes_contents=[b"Ada"]))
    typed = stub.ModelInfer(request)
    assert not typed.raw_output_contents
    assert list(typed.outputs[0].contents.bytes_contents) == list(
        BYTES.read(raw.raw_output_contents[0], 1)
    )


def test_long_texts_are_answered(stub: Stub, model: Model) -> None:
    text = "Ada lives in Bern. " * 400
    found = read_texts(stub.ModelInfer(asking(text, tasks="pos")))
    assert found["pos"] == [printed(model, text, tasks=["pos"])["tasks"]["pos"]]


def bad_text() -> pb.ModelInferRequest:
    request = asking("Ada", "Bern")
    request.raw_input_contents[0] = strings("Ada", b"\xff")
    return request


def with_version(version: str) -> pb.ModelInferRequest:
    request = asking("Ada")
    request.model_version = version
    return request


def with_parameter(name: str, **value: Any) -> pb.ModelInferRequest:
    request = asking("Ada")
    request.parameters[name].MergeFrom(pb.InferParameter(**value))
    return request


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (bad_text(), "TEXT[1]: is not UTF-8"),
        (asking("Ada", "x" * 262_145), "TEXT[1]: has 262145 bytes"),
        (asking("Ada", questions=[" "]), "QUESTION[0]: is empty"),
        (asking("Ada", questions=["y " * 999]), "QUESTION[0]: has 999 tokens"),
        (asking("Ada", questions=["y" * 262_145]), "QUESTION[0]: has 262145 bytes"),
        (asking(*["Ada"] * 257), "inputs[0].shape: is [257]; a batch holds at most 256"),
        (asking("Ada", tasks="qa"), "inputs: QUESTION is missing; task 'qa' reads it"),
        (asking("Ada", outputs=["qa"]), "inputs: QUESTION is missing; task 'qa' reads it"),
        (asking("Ada", tasks="match"), "inputs: TEXT_PAIR is missing; task 'match' reads it"),
        (asking("Ada", outputs=["nil"]), "outputs[0].name: is 'nil'; known: ner"),
        (asking("Ada", outputs=["ner", "ner"]), "outputs[1].name: ner is given twice"),
        (asking("Ada", tasks="ner", outputs=["pos"]), "outputs: names none of the tasks"),
        (asking("Ada", tasks=","), "parameters[tasks]: names no task"),
        (with_parameter("tasks", int64_param=1), "parameters[tasks]: is no string"),
        (with_parameter("timeout", int64_param=-1), "parameters[timeout]: is no whole number"),
        (with_version("v1"), "model_version: is 'v1'; versions are numbers"),
        (with_version("\u0661"), "model_version: is '\u0661'; versions are numbers"),
        (with_version("9" * 40), "model_version: is '999"),
    ],
)
def test_what_is_wrong_is_named(stub: Stub, request_: pb.ModelInferRequest, said: str) -> None:
    code, details = refused(stub, request_)
    assert code is INVALID
    assert details.startswith(said)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (asking("Ada", tasks="nerr"), "unknown task 'nerr' (did you mean 'ner'?)"),
        (with_version("7"), "unknown version of model tiny '7'"),
        (pb.ModelInferRequest(model_name="other"), "unknown model 'other'"),
        (pb.ModelInferRequest(model_name="other.tensors"), "unknown model 'other'"),
    ],
)
def test_what_is_unknown_is_not_found(
    stub: Stub, request_: pb.ModelInferRequest, said: str
) -> None:
    code, details = refused(stub, request_)
    assert code is grpc.StatusCode.NOT_FOUND
    assert details.startswith(said)


def test_classification_of_outputs_is_refused(stub: Stub) -> None:
    request = asking("Ada", outputs=["topic"])
    request.outputs[0].parameters["classification"].int64_param = 3
    assert refused(stub, request)[1].startswith("outputs[0].parameters: 'classification'")


def test_what_triton_clients_add_does_no_harm(stub: Stub) -> None:
    request = with_parameter("triton_enable_empty_final_response", bool_param=True)
    request.parameters["priority"].uint64_param = 1
    assert len(stub.ModelInfer(request).outputs) == len(ALONE)


def test_a_timeout_of_its_own_is_a_deadline(stub: Stub) -> None:
    request = with_parameter("timeout", int64_param=0)
    assert refused(stub, request)[0] is grpc.StatusCode.DEADLINE_EXCEEDED


def test_nothing_but_nan_is_an_internal_error(stub: Stub) -> None:
    assert refused(stub, asking(POISON))[0] is grpc.StatusCode.INTERNAL


def test_smaller_limits_hold(host: Loop, model: Model) -> None:
    with (
        host.serving([model], max_documents=2, max_text_bytes=4) as hosted,
        grpc.insecure_channel(hosted.address) as channel,
    ):
        stub = Stub(channel)
        assert "at most 2" in refused(stub, asking("a", "b", "c"))[1]
        assert "at most 4" in refused(stub, asking("abcde"))[1]
