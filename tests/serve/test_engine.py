import asyncio
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

import trunkline
from tests.serve.hosting import PATIENCE, Recorder, settings, watched
from tests.tiny import build_tiny_bundle
from trunkline import Document, Model, Question
from trunkline.errors import (
    BundleError,
    ConfigError,
    DeadlinePassed,
    InvalidInput,
    NotFound,
    Overloaded,
    RuntimeFault,
    Unavailable,
)
from trunkline.pipeline import Pipeline, Prepared
from trunkline_serve import engine as engine_module
from trunkline_serve.apart import INLINE_BYTES
from trunkline_serve.engine import Engine
from trunkline_serve.events import Everyone
from trunkline_serve.models import Registry
from trunkline_serve.scheduler import Scheduler

DOCUMENT = Document("Ada lives in Rome.", (Question("Where is Ada?"),))


def run(models: list[Model], test: Callable[[Engine], Awaitable[None]], **values: Any) -> None:
    async def main() -> None:
        events = Everyone()
        chosen = settings(**values)
        with (
            closing(Scheduler(2, events, chosen.compute.batch_tokens)) as scheduler,
            closing(Engine(scheduler, chosen, events)) as engine,
        ):
            for model in models:
                engine.models.add(model)
            async with asyncio.timeout(PATIENCE):
                await test(engine)

    asyncio.run(main())


async def occupy(engine: Engine, recorder: Recorder) -> "asyncio.Task[Any]":
    """Starts a call whose batch is held until the recorder's gate opens."""
    recorder.gate.clear()
    task = asyncio.create_task(engine.analyze([DOCUMENT]))
    await asyncio.to_thread(recorder.wait_until_busy)
    return task


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (Document("x" * 41), "documents[1].text"),
        (Document("é" * 21), "documents[1].text"),
        (Document("x", (Question("y" * 41),)), "documents[1].questions[0].text"),
        (Document("x", text_pair="y" * 41), "documents[1].text_pair"),
        (Document("x", tasks=("match",)), "documents[1].text_pair"),
        (Document("x", (Question("y"),) * 4), "documents[1].questions"),
        (Document("x", (Question(" \n"),)), "documents[1].questions[0].text"),
    ],
)
def test_limits_name_the_field_and_cost_no_compute(
    bundle: Path, document: Document, field: str
) -> None:
    model, recorder = watched(bundle)

    async def test(engine: Engine) -> None:
        with pytest.raises(InvalidInput) as caught:
            await engine.analyze([DOCUMENT, document])
        assert caught.value.field == field
        assert not recorder.batches
        await engine.analyze([DOCUMENT])  # its places are free again

    run([model], test, max_text_bytes=40, max_questions=3, max_in_flight=2, max_documents=2)


def test_limits_are_inclusive(model: Model) -> None:
    async def test(engine: Engine) -> None:
        full = Document("é" * 20, (Question("y" * 40),) * 3, text_pair="é" * 20)
        await engine.analyze([full] * 2)

    run([model], test, max_text_bytes=40, max_questions=3, max_in_flight=2, max_documents=2)


@pytest.mark.parametrize("count", [0, 3])
def test_number_of_documents_is_bounded(model: Model, count: int) -> None:
    async def test(engine: Engine) -> None:
        with pytest.raises(InvalidInput) as caught:
            await engine.analyze([DOCUMENT] * count)
        assert caught.value.field == "documents"

    run([model], test, max_documents=2)


def test_no_room_is_told_at_once(bundle: Path) -> None:
    model, recorder = watched(bundle)

    async def test(engine: Engine) -> None:
        first = await occupy(engine, recorder)
        with pytest.raises(Overloaded) as caught:
            await engine.analyze([DOCUMENT] * 2)
        assert caught.value.retry_after > 0
        recorder.gate.set()
        await first
        await engine.analyze([DOCUMENT] * 2)

    run([model], test, max_in_flight=2, max_documents=2)


def test_a_deadline_that_cannot_be_met_is_refused_before_compute(bundle: Path) -> None:
    model, recorder = watched(bundle)

    async def test(engine: Engine) -> None:
        await engine.analyze([DOCUMENT])  # from now on the speed is known
        held = await occupy(engine, recorder)
        await asyncio.sleep(0.2)
        recorder.gate.set()
        await held
        held = await occupy(engine, recorder)
        with pytest.raises(Overloaded, match="the deadline leaves"):
            await engine.analyze([DOCUMENT], deadline=monotonic() + 0.01)
        with pytest.raises(DeadlinePassed):
            await engine.analyze([DOCUMENT], deadline=monotonic() - 1)
        recorder.gate.set()
        await held
        assert len(recorder.batches) == 3

    run([model], test)


def held_texts(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Has the thread for long texts wait; returns what says that it does, and what ends that."""
    begun, go = threading.Event(), threading.Event()
    prepare = engine_module._prepare

    def held(pipeline: Pipeline, documents: Sequence[Document], at: int) -> Prepared:
        if len(documents[at].text) > INLINE_BYTES:
            begun.set()
            assert go.wait(PATIENCE)
        return prepare(pipeline, documents, at)

    monkeypatch.setattr(engine_module, "_prepare", held)
    return begun, go


def test_a_deadline_counts_the_texts_that_wait_to_be_tokenised(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = held_texts(monkeypatch)
    book, page = Document("Ada lives in Rome. " * 10_000), Document("Ada lives in Rome. " * 300)

    async def test(engine: Engine) -> None:
        calls = [asyncio.create_task(engine.analyze([book])) for _ in range(3)]
        await asyncio.to_thread(begun.wait, PATIENCE)
        with pytest.raises(Overloaded, match="the deadline leaves") as caught:
            await engine.analyze([page], deadline=monotonic() + 0.1)
        assert caught.value.retry_after > 0
        short = asyncio.create_task(engine.analyze([page], deadline=monotonic() + PATIENCE))
        await engine.analyze([DOCUMENT], deadline=monotonic() + 0.1)  # no text of it waits
        go.set()
        await short
        assert not any(call.done() for call in calls[1:]), "a page does not wait for books"
        await asyncio.gather(*calls)

    run([model], test)


def test_texts_that_wait_to_be_tokenised_fill_the_queue(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = held_texts(monkeypatch)
    text = Document("Ada lives in Rome. " * 400)

    async def test(engine: Engine) -> None:
        first = asyncio.create_task(engine.analyze([text]))
        await asyncio.to_thread(begun.wait, PATIENCE)
        with pytest.raises(Overloaded, match="of 2500 tokens are waiting"):
            await engine.analyze([text])
        go.set()
        await first
        await engine.analyze([text])

    run([model], test, max_queue_tokens=2500)


def test_long_texts_give_the_same(model: Model) -> None:
    text = "Ada lives in Zürich 😀 and works in 東京. " * 100

    async def test(engine: Engine) -> None:
        document = Document(text, (Question("Where is Ada?"),), text_pair="Ada built the engine.")
        assert (await engine.analyze([document])).results == [model.analyze(document)]

    run([model], test, batch_tokens=256)


def test_timing_adds_up(model: Model) -> None:
    async def test(engine: Engine) -> None:
        timing = (await engine.analyze([DOCUMENT])).timing
        parts = (timing.encode_ns, timing.queue_ns, timing.compute_ns, timing.decode_ns)
        assert min(parts) > 0
        assert sum(parts) <= timing.total_ns
        rows = model.pipeline.prepare(DOCUMENT).rows
        assert timing.tokens == sum(len(row) for row in rows)
        # [CLS] rome [SEP] ada lives [SEP]
        pair = Document("Ada lives", tasks=("match",), text_pair="Rome")
        assert (await engine.analyze([pair])).timing.tokens == 6

    run([model], test)


def test_nan_fails_only_the_call_that_caused_it(bundle: Path) -> None:
    model, recorder = watched(bundle)

    async def test(engine: Engine) -> None:
        first = await occupy(engine, recorder)
        calls = [engine.analyze([Document(text)]) for text in ("poison", "Rome")]
        answers = asyncio.gather(*calls, return_exceptions=True)
        await asyncio.sleep(0)
        recorder.gate.set()
        poisoned, sound = await answers
        await first
        assert isinstance(poisoned, RuntimeFault)
        assert not isinstance(sound, BaseException)
        assert len(recorder.batches) == 2

    run([model], test)


def test_draining_finishes_what_is_in_flight(bundle: Path) -> None:
    model, recorder = watched(bundle)

    async def test(engine: Engine) -> None:
        first = await occupy(engine, recorder)
        assert not await engine.drain(0.01)
        with pytest.raises(Unavailable):
            await engine.analyze([DOCUMENT])
        recorder.gate.set()
        assert await engine.drain(PATIENCE)
        await first

    run([model], test)


def test_models_are_found_by_name_and_version(tmp_path: Path) -> None:
    built = {
        (name, version): trunkline.load(
            build_tiny_bundle(tmp_path / f"{name}-{version}", name, version), 1
        )
        for name, version in (("b", 1), ("a", 10), ("a", 2))
    }

    async def test(engine: Engine) -> None:
        found = [served.model for served in engine.models.all()]
        assert found == [built["a", 2], built["a", 10], built["b", 1]]
        assert engine.models.find("a", 0).model is built["a", 10]
        assert engine.models.find("a", 2).model is built["a", 2]
        analysis = await engine.analyze([DOCUMENT], model="b")
        assert analysis.model is built["b", 1]
        with pytest.raises(InvalidInput, match="known: a, b"):
            engine.models.find("", 0)
        with pytest.raises(NotFound, match="unknown model 'c'"):
            engine.models.find("c", 0)
        with pytest.raises(NotFound, match="unknown version of model a '-1'; known: 10, 2"):
            engine.models.find("a", -1)

    run(list(built.values()), test)


def test_an_empty_name_means_the_only_model(model: Model) -> None:
    async def test(engine: Engine) -> None:
        assert engine.models.find("", 0).model is model

    run([model], test)


def test_the_same_model_twice_is_refused(model: Model, bundle: Path) -> None:
    async def main() -> None:
        registry = Registry()
        registry.add(model)
        with pytest.raises(BundleError, match="tiny 1"):
            registry.add(trunkline.load(bundle, 1))
        assert [served.model for served in registry.all()] == [model]

    asyncio.run(main())


@pytest.mark.parametrize(
    "wrong", [{"max_documents": 0}, {"port": -1}, {"max_in_flight": 10}, {"threads": 0}]
)
def test_senseless_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        settings(**wrong)


def test_the_engine_needs_no_grpc() -> None:
    code = "import sys, trunkline_serve.engine; print('grpc' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
