"""Streams of documents, by both clients."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.client.scripted import Script, serving
from tests.serve.hosting import PATIENCE, Loop, wait_for, watched
from trunkline import Document, Model, Question
from trunkline.errors import (
    ConfigError,
    DeadlinePassed,
    InvalidInput,
    NotFound,
    Overloaded,
    Unavailable,
)
from trunkline.v1 import analysis_service_pb2 as pb
from trunkline_serve.client import AsyncClient, Client
from trunkline_serve.rpc import server
from trunkline_serve.rpc.methods import Context

Connect = Callable[..., Any]
TEXTS = [f"Ada lives in Rome 😀 {at}" for at in range(300)]


class Source:
    """Documents that count how many were taken."""

    def __init__(self, count: int) -> None:
        self.taken = 0
        self._count = count

    def __iter__(self) -> Iterator[str]:
        for at in range(self._count):
            self.taken += 1
            yield f"Ada {at}"


def test_every_document_comes_back_with_its_result(
    address: str, connect: Connect, model: Model
) -> None:
    with connect(address) as client:
        found = client.analyze_stream(TEXTS, window=16)
    assert sorted(document.text for document, _ in found) == sorted(TEXTS)
    assert {doc.text: result for doc, result in found} == {
        result.text: result for result in model.analyze(TEXTS)
    }


def test_documents_may_come_from_an_asynchronous_source(
    host: Loop, address: str, model: Model
) -> None:
    async def source() -> Any:
        for text in TEXTS[:5]:
            yield text

    async def collect() -> list[Any]:
        async with AsyncClient(address) as client:
            return [result async for _, result in client.analyze_stream(source(), window=1)]

    assert host.run(collect()) == model.analyze(TEXTS[:5])


def test_an_empty_stream_ends(address: str, connect: Connect) -> None:
    with connect(address) as client:
        assert client.analyze_stream([]) == []


def test_a_bad_document_has_an_error_of_its_own(address: str, connect: Connect) -> None:
    bad = [Document("b", tasks=("nerr",)), Document("c", (Question(" "),)), Document("\ud800")]
    with connect(address) as client:
        found = dict(client.analyze_stream(["a", *bad, "d"], window=1))
    outcomes = [found[document] for document in bad]
    assert [type(one) for one in outcomes] == [NotFound, InvalidInput, InvalidInput]
    assert [getattr(one, "field", "") for one in outcomes] == [
        "",
        "documents[0].questions[0].text",
        "documents[0]",
    ]
    assert len(found) == 5


def test_no_more_than_the_window_is_taken(host: Loop, bundle: Path) -> None:
    model, recorder = watched(bundle)
    source = Source(100)
    with host.serving([model]) as hosted, Client(hosted.address) as client:
        recorder.gate.clear()
        found = client.analyze_stream(source, window=5)
        taker = threading.Thread(target=next, args=(found,))
        taker.start()
        wait_for(lambda: hosted.engine.in_flight == 5)
        recorder.gate.set()
        taker.join(PATIENCE)
        for seen, _ in enumerate(found, 2):
            # One answer may have been read that was not handed out yet.
            assert source.taken <= seen + 5
    assert (seen, source.taken) == (100, 100)


def test_an_asynchronous_stream_takes_no_more_than_its_window(host: Loop, address: str) -> None:
    source = Source(100)

    async def collect() -> int:
        async with AsyncClient(address) as client:
            seen = 0
            async for _ in client.analyze_stream(source, window=5):
                seen += 1
                assert source.taken <= seen + 5
            return seen

    assert host.run(collect()) == 100


def test_what_the_documents_raise_comes_after_those_before_it(
    address: str, connect: Connect
) -> None:
    def source() -> Iterator[str]:
        yield "Ada"
        yield "Rome"
        raise ZeroDivisionError("of the caller")

    seen: list[str] = []
    with connect(address) as client, pytest.raises(ZeroDivisionError, match="of the caller"):
        client.analyze_stream(source(), each=lambda document, _: seen.append(document.text))
    assert sorted(seen) == ["Ada", "Rome"]


def test_a_document_without_room_is_sent_again(host: Loop, bundle: Path, connect: Connect) -> None:
    model, recorder = watched(bundle)
    limits = {"max_in_flight": 2, "max_documents": 2, "max_stream_requests": 8}
    with host.serving([model], **limits) as hosted:
        with connect(hosted.address, retries=20) as client:
            found = client.analyze_stream(TEXTS[:40], window=8)
        with connect(hosted.address, retries=0) as client:
            recorder.gate.clear()
            opener = threading.Timer(0.3, recorder.gate.set)
            opener.start()
            refused = client.analyze_stream(TEXTS[:8], window=8)
            opener.join()
    assert {doc.text: out for doc, out in found} == {
        out.text: out for out in model.analyze(TEXTS[:40])
    }
    assert sum(isinstance(out, Overloaded) for _, out in refused) == 6


def test_a_broken_stream_hands_out_what_had_no_answer(host: Loop, connect: Connect) -> None:
    script = Script(Unavailable("gone"))
    seen: list[Any] = []
    with (
        serving(host, script) as address,
        connect(address, retries=0) as client,
        pytest.raises(Unavailable, match="gone"),
    ):
        client.analyze_stream(["Ada"], each=lambda *one: seen.append(one))
    ((document, error),) = seen
    assert document == Document("Ada")
    assert isinstance(error, Unavailable)


class Brittle(Script):
    """Ends each stream with an error after some answers, and drops the request it has then."""

    def __init__(self, answers: int) -> None:
        super().__init__()
        self.streams = 0
        self._answers = answers

    async def AnalyzeStream(
        self, requests: AsyncIterator[pb.AnalyzeStreamRequest], context: Context
    ) -> AsyncIterator[pb.AnalyzeStreamResponse]:
        self.streams += 1
        left = self._answers
        async for request in requests:
            if not left:
                raise Unavailable("max connection age")
            left -= 1
            response = pb.AnalyzeResponse(results=[pb.DocumentResult()])
            yield pb.AnalyzeStreamResponse(id=request.id, response=response)


@pytest.mark.parametrize("window", [1, 4, 64])
def test_a_stream_that_ends_is_taken_up_by_another(
    host: Loop, connect: Connect, window: int
) -> None:
    script, source = Brittle(10), Source(45)
    with serving(host, script) as address, connect(address) as client:
        found = client.analyze_stream(source, window=window)
    assert sorted(document.text for document, _ in found) == sorted(f"Ada {n}" for n in range(45))
    assert not any(isinstance(outcome, Exception) for _, outcome in found)
    assert source.taken == 45
    assert script.streams == 5


def test_a_stream_that_never_answers_is_given_up(host: Loop, connect: Connect) -> None:
    script = Brittle(0)
    with (
        serving(host, script) as address,
        connect(address, retries=2) as client,
        pytest.raises(Unavailable),
    ):
        client.analyze_stream(TEXTS[:3])
    assert script.streams == 3


def test_documents_may_take_longer_than_a_connection_lives(
    host: Loop, model: Model, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_CONNECTION_MS", 100)
    pause = threading.Event()

    def slow() -> Iterator[str]:
        for text in TEXTS[:5]:
            pause.wait(0.2)
            yield text

    with host.serving([model]) as hosted, connect(hosted.address) as client:
        found = client.analyze_stream(Elsewhere(slow()))
    assert [result for _, result in found] == model.analyze(TEXTS[:5])


class Elsewhere:
    """Gives documents to whoever asks, waiting for them on threads if asked asynchronously."""

    def __init__(self, documents: Iterator[str]) -> None:
        self._documents = documents

    def __iter__(self) -> Iterator[str]:
        return self._documents

    async def __aiter__(self) -> AsyncIterator[str]:
        while (text := await asyncio.to_thread(next, self._documents, "")) != "":
            yield text


def test_no_server_breaks_the_stream(connect: Connect) -> None:
    # Port 9 is "discard": nothing listens there.
    with connect("127.0.0.1:9") as client, pytest.raises(Unavailable):
        client.analyze_stream(TEXTS)


def test_the_timeout_ends_the_stream(host: Loop, bundle: Path, connect: Connect) -> None:
    model, recorder = watched(bundle)
    with host.serving([model]) as hosted, connect(hosted.address) as client:
        recorder.gate.clear()
        with pytest.raises(DeadlinePassed):
            client.analyze_stream(["Ada"], timeout=0.2)
        recorder.gate.set()


def test_leaving_early_ends_the_work(host: Loop, bundle: Path) -> None:
    model, _ = watched(bundle)
    source = Source(10_000)
    with host.serving([model]) as hosted, Client(hosted.address) as client:
        found = client.analyze_stream(source, window=4)
        next(found)
        found.close()  # type: ignore[attr-defined]
        wait_for(lambda: hosted.engine.in_flight == 0)
        assert source.taken <= 7
        assert client.analyze("Ada")


def test_a_closed_window_is_refused(address: str, connect: Connect) -> None:
    with connect(address) as client, pytest.raises(ConfigError, match="window"):
        client.analyze_stream(["Ada"], window=0)


def test_no_thread_is_left_behind(address: str) -> None:
    before = threading.active_count()
    with Client(address) as client:
        for _ in range(3):
            list(client.analyze_stream(TEXTS[:20], window=4))
    wait_for(lambda: threading.active_count() <= before)


@pytest.mark.parametrize("documents", ["Ada", b"Ada", {"text": "Ada"}, None, 3, Document("Ada")])
def test_what_gives_no_documents_is_refused(connect: Connect, documents: Any) -> None:
    with (
        connect("127.0.0.1:1") as client,
        pytest.raises(InvalidInput, match=r"^documents: is of type \w+; give texts or Documents"),
    ):
        client.analyze_stream(documents)


@pytest.mark.parametrize("documents", [["Ada", None], [Document("Ada", tasks="ner")]])  # type: ignore[arg-type]
def test_what_is_no_document_ends_the_stream(
    address: str, connect: Connect, documents: Any
) -> None:
    with connect(address) as client, pytest.raises(InvalidInput, match="is of type"):
        client.analyze_stream(documents)


@pytest.mark.parametrize(
    "options", [{"window": 1.5}, {"window": "2"}, {"timeout": 0}, {"timeout": "1"}]
)
def test_options_of_a_stream_are_checked(connect: Connect, options: dict[str, Any]) -> None:
    with connect("127.0.0.1:1") as client, pytest.raises(ConfigError):
        client.analyze_stream(["Ada"], **options)
