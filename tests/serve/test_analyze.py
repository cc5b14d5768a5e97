import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from tests.serve.hosting import PATIENCE, Loop, wait_for, watched
from tests.unfit import UNFIT
from trunkline import Document, Model, Question
from trunkline.errors import InvalidInput
from trunkline.kinds import KINDS
from trunkline.v1 import analysis_service_pb2 as pb
from trunkline.v1.analysis_service_pb2_grpc import AnalysisServiceStub
from trunkline_serve.client import Client
from trunkline_serve.rpc.converters import ANNOTATIONS

TEXTS = [
    "IBM opened an office in Bern.",
    "Ada lives in Zürich 😀 and works in 東京.",
    "שלום Ada, مرحبا! who lives in Rome?",
    "cafe\u0301 in Paris, nai\u0308ve 🎉🎉 engine",
    "👩\u200d👩\u200d👧 of Bern \U0001f1e8\U0001f1ed",
    "a\x00b Ada\x00 Rome",
    "\ufeffAda \u202eRome\u202c \U0010ffff city",
    "привет мир",
    "",
    " \n\t ",
    "Ada built the engine of the office in London. " * 30,
]
QUESTIONS = ["Where is Ada?", "Who built the engine? 🎉", "что?"]
UNITS = {
    pb.OFFSET_UNIT_UNSPECIFIED: lambda text, start, end: text[start:end],
    pb.OFFSET_UNIT_CODE_POINT: lambda text, start, end: text[start:end],
    pb.OFFSET_UNIT_UTF8_BYTE: lambda text, start, end: text.encode()[start:end].decode(),
    pb.OFFSET_UNIT_UTF16_UNIT: lambda text, start, end: text.encode("utf-16-le")[
        2 * start : 2 * end
    ].decode("utf-16-le"),
}


def documents(count: int) -> list[Document]:
    """Returns a fixed mix of texts, tasks and questions."""
    random_ = random.Random(3)
    found = []
    for at in range(count):
        asked = tuple(Question(one) for one in random_.sample(QUESTIONS, random_.randint(0, 2)))
        answered = [("qa",)] if asked else []
        tasks = random_.choice([None, ("ner",), ("pos", "topic"), ("mood",), *answered])
        pair = random_.choice([None, "Rome", TEXTS[1]])
        found.append(Document(f"{random_.choice(TEXTS)} {at}", asked, tasks, pair))
    return found


@pytest.fixture(scope="module")
def stub(address: str) -> Iterator[AnalysisServiceStub]:
    with grpc.insecure_channel(address) as channel:
        yield AnalysisServiceStub(channel)


@pytest.mark.parametrize("text", TEXTS)
def test_one_text_gives_what_the_model_gives(client: Client, model: Model, text: str) -> None:
    for pair in (None, "", "Who lives in Zürich? 🎉"):
        result = client.analyze(text, QUESTIONS, text_pair=pair)
        assert result == model.analyze(text, QUESTIONS, text_pair=pair)
        assert ("match" in result.tasks) == (pair is not None)


def test_a_list_gives_what_the_model_gives(client: Client, model: Model) -> None:
    assert client.analyze(TEXTS, QUESTIONS[:1], ["ner"]) == model.analyze(
        TEXTS, QUESTIONS[:1], ["ner"]
    )
    pairs = [str(at) for at in range(len(TEXTS))]
    wanted = model.analyze(TEXTS, tasks=["match", "mood"], text_pair=pairs)
    assert client.analyze(TEXTS, tasks=["match", "mood"], text_pair=pairs) == wanted
    assert client.analyze([]) == []


@pytest.mark.parametrize(("text", "options", "message"), UNFIT)
def test_what_is_not_understood_is_refused_as_the_model_does(
    client: Client, text: object, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        client.analyze(text, **options)  # type: ignore[call-overload]
    assert str(caught.value).startswith(message)


def test_order_of_tasks_is_kept(client: Client) -> None:
    assert list(client.analyze("Ada", tasks=["pos", "ner"]).tasks) == ["pos", "ner"]
    assert list(client.analyze("Ada").tasks) == ["ner", "pos", "topic", "mood"]


def test_questions_alone(client: Client) -> None:
    result = client.analyze(Document("Ada", (Question("Who?", "qa"),), ("qa",)))
    assert (dict(result.tasks), len(result.questions)) == ({}, 1)


def test_concurrent_mixed_calls_get_their_own_answers(client: Client, model: Model) -> None:
    calls = [[document] for document in documents(240)] + [documents(20)] * 16
    random.Random(1).shuffle(calls)
    with ThreadPoolExecutor(64) as callers:
        answers = list(callers.map(client.analyze, calls))
    assert answers == [model.analyze(call) for call in calls]


def test_concurrent_calls_share_a_batch_across_tasks(host: Loop, bundle: Path) -> None:
    model, recorder = watched(bundle)
    with host.serving([model]) as hosted, Client(hosted.address) as client:
        recorder.gate.clear()
        with ThreadPoolExecutor(9) as callers:
            first = callers.submit(client.analyze, "first")
            recorder.wait_until_busy()
            mixed = [callers.submit(client.analyze, "Ada", (), ["ner"]) for _ in range(4)]
            mixed += [callers.submit(client.analyze, "Ada", QUESTIONS, ["qa"]) for _ in range(4)]
            wait_for(lambda: hosted.engine.in_flight == 9)
            recorder.gate.set()
            results = [call.result(PATIENCE) for call in (first, *mixed)]
    assert [len(batch) for batch in recorder.batches] == [1, 4 + 4 * len(QUESTIONS)]
    assert [len(result.questions) for result in results] == [0] + [0] * 4 + [3] * 4


@pytest.mark.parametrize("unit", list(UNITS))
@pytest.mark.parametrize("text", TEXTS)
def test_offsets_in_every_unit(stub: AnalysisServiceStub, unit: pb.OffsetUnit, text: str) -> None:
    question = pb.Question(text="Where is Ada?")
    request = pb.AnalyzeRequest(
        documents=[pb.Document(text=text, questions=[question])], offset_unit=unit
    )
    response = stub.Analyze(request, timeout=PATIENCE)
    assert response.offset_unit == (unit or pb.OFFSET_UNIT_CODE_POINT)
    (result,) = response.results
    found = [span for task in result.tasks for span in task.spans.spans]
    found += result.questions[0].answers
    assert bool(found) == bool(text.strip())
    for one in found:
        assert UNITS[unit](text, one.start, one.end) == one.text


def test_response_names_model_and_timing(stub: AnalysisServiceStub) -> None:
    response = stub.Analyze(
        pb.AnalyzeRequest(documents=[pb.Document(text="Ada in Rome")]), timeout=PATIENCE
    )
    assert (response.model, response.model_version) == ("tiny", 1)
    timing = response.timing
    assert timing.tokens == 5
    assert 0 < timing.compute_ns < timing.total_ns


def test_every_kind_of_text_task_has_a_message() -> None:
    text_kinds = {kind.name for kind in KINDS.values() if not kind.asks}
    assert set(ANNOTATIONS) == text_kinds
    fields = {field.name for field in pb.TaskResult.DESCRIPTOR.oneofs_by_name["annotations"].fields}
    assert {one.field for one in ANNOTATIONS.values()} == fields


class Panic(BaseException):
    """As what native code panics with: no Exception."""


@pytest.mark.parametrize("words", [1, 2000])  # done on the event loop, and on a thread
def test_a_panic_ends_its_own_call_alone(host: Loop, bundle: Path, words: int) -> None:
    model, _ = watched(bundle)
    request = pb.AnalyzeRequest(documents=[pb.Document(text="Rome " * words, tasks=["topic"])])
    prepare = model.pipeline.prepare

    def panic(*given: object) -> object:
        raise Panic("tokenizer")

    with host.serving([model]) as hosted, grpc.insecure_channel(hosted.address) as channel:
        stub = AnalysisServiceStub(channel)
        model.pipeline.prepare = panic  # type: ignore[method-assign]
        streamed = stub.AnalyzeStream(iter([pb.AnalyzeStreamRequest(request=request)]))
        with pytest.raises(grpc.RpcError) as unary:
            stub.Analyze(request, timeout=PATIENCE)
        assert unary.value.code() is grpc.StatusCode.INTERNAL
        assert next(streamed).error.code == grpc.StatusCode.INTERNAL.value[0]
        model.pipeline.prepare = prepare  # type: ignore[method-assign]
        assert stub.Analyze(request, timeout=PATIENCE).results
        assert hosted.engine.in_flight == 0
