"""Long lists, administration and descriptions, by both clients."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.serve.client.scripted import Script, serving
from tests.serve.hosting import Loop
from tests.tiny import build_tiny_bundle
from trunkline import Document, Model, Question
from trunkline.errors import InvalidInput, NotFound, Unavailable
from trunkline_serve.description import ModelId

Connect = Callable[..., Any]
TEXTS = [f"Ada lives in Rome 😀 {at}" for at in range(50)]


def test_results_are_the_models_own(address: str, connect: Connect, model: Model) -> None:
    with connect(address) as client:
        assert client.analyze(TEXTS[0], ["Who?"]) == model.analyze(TEXTS[0], ["Who?"])
        assert client.analyze(TEXTS, ["Who?"], ["ner"]) == model.analyze(TEXTS, ["Who?"], ["ner"])
        pairs = [str(at) for at in range(50)]
        wanted = model.analyze(TEXTS, tasks=["match"], text_pair=pairs)
        assert client.analyze(TEXTS, tasks=["match"], text_pair=pairs) == wanted
        assert client.analyze([]) == []
        assert len(client.analyze(["Ada"])) == 1


def test_a_long_list_keeps_its_order(host: Loop, connect: Connect, model: Model) -> None:
    limits = {"max_documents": 3, "max_in_flight": 64}
    with host.serving([model], **limits) as hosted, connect(hosted.address) as client:
        assert client.analyze(TEXTS) == model.analyze(TEXTS)


def test_a_long_list_is_cut_and_sent_a_few_calls_at_a_time(host: Loop, connect: Connect) -> None:
    script = Script()
    with serving(host, script) as address, connect(address, concurrency=3) as client:
        client.analyze(["Ada"] * 50)
    assert sorted(script.sizes) == [2] + [4] * 12
    assert 1 < script.most <= 3


@pytest.mark.parametrize(
    ("documents", "sizes"),
    [
        (["x" * 600, "y" * 300, "z" * 200], [1, 2]),
        (["x" * 5000, "y", "z"], [1, 2]),
        (["é" * 400, "é" * 400], [1, 1]),
        ([Document("x" * 300, (Question("Who?"),)), "y" * 500], [1, 1]),
        ([Document("x" * 300, text_pair="x" * 250), "y"], [1, 1]),
        (["x" * 200] * 3, [3]),
    ],
)
def test_a_large_list_is_cut_by_its_bytes(
    host: Loop, connect: Connect, documents: list[Any], sizes: list[int]
) -> None:
    script = Script()
    with serving(host, script) as address, connect(address) as client:
        client.analyze(documents)
    assert sorted(script.sizes) == sizes


def test_texts_beyond_one_message_are_analysed(
    address: str, connect: Connect, model: Model
) -> None:
    texts = ["x" * 200_000] * 25
    with connect(address) as client:
        results = client.analyze(texts, tasks=["topic"])
    assert results == [model.analyze(texts[0], tasks=["topic"])] * 25


def test_an_error_names_the_document_of_the_list(
    host: Loop, connect: Connect, model: Model
) -> None:
    documents = [Document("Ada")] * 10
    documents[8] = Document("Ada", (Question(" "),))
    limits = {"max_documents": 3}
    with (
        host.serving([model], **limits) as hosted,
        connect(hosted.address) as client,
        pytest.raises(InvalidInput) as caught,
    ):
        client.analyze(documents)
    assert caught.value.field == "documents[8].questions[0].text"


def test_an_error_ends_the_list(host: Loop, connect: Connect) -> None:
    script = Script(Unavailable("gone"))
    with (
        serving(host, script) as address,
        connect(address, retries=0, concurrency=1) as client,
        pytest.raises(Unavailable, match="gone"),
    ):
        client.analyze(["Ada"] * 400)
    assert len(script.calls) < 10


@pytest.mark.parametrize("name", ["\ud800", "mod\udfff"])
def test_a_name_that_cannot_be_sent_is_refused(address: str, connect: Connect, name: str) -> None:
    with connect(address) as client, pytest.raises(InvalidInput) as caught:
        client.analyze("Ada", model=name)
    assert caught.value.field == "model"


def test_a_description_is_complete(address: str, connect: Connect, model: Model) -> None:
    with connect(address) as client:
        description = client.describe()
        assert client.models() == [ModelId("tiny", 1)]
    assert description.id == ModelId("tiny", 1)
    assert description.limits.max_stream_requests == 64
    assert description.limits.max_documents == 256
    gates = model.manifest.gates
    assert [(g.low, g.high, g.agreement, g.examples) for g in description.gates] == [
        (g.low, g.high, g.agreement, g.n) for g in gates
    ]


def test_models_are_loaded_and_unloaded(
    host: Loop, connect: Connect, model: Model, bundle: Path, tmp_path: Path
) -> None:
    build_tiny_bundle(tmp_path / "next", version=2)
    shutil.copytree(bundle, tmp_path / "same")
    with (
        host.serving([model], folder=str(tmp_path)) as hosted,
        connect(hosted.address) as client,
    ):
        assert client.load("next") == ModelId("tiny", 2)
        assert client.models() == [ModelId("tiny", 1), ModelId("tiny", 2)]
        assert client.analyze("Ada", version=2) == client.analyze("Ada", version=1)
        assert client.unload("tiny", 1) == [ModelId("tiny", 1)]
        assert client.load("same", replace=False) == ModelId("tiny", 1)
        with pytest.raises(NotFound):
            client.load("nothing")
        with pytest.raises(NotFound):
            client.unload("tiny", 9)
