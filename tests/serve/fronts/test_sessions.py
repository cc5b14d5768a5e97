import asyncio
import gc
import weakref
from pathlib import Path
from time import monotonic

import pytest

from tests.serve.fronts.pair import Far, Near, Pair, run_pair
from tests.serve.hosting import Recorder, watched
from tests.tiny import build_tiny_bundle
from trunkline import Document, Model, Question
from trunkline.errors import (
    DeadlinePassed,
    InvalidInput,
    NotFound,
    Overloaded,
    RuntimeFault,
    Unavailable,
)
from trunkline_serve.description import ModelId, describe
from trunkline_serve.engine import Analysis
from trunkline_serve.loading import open_for_serving
from trunkline_serve.settings import Settings

DOCUMENT = Document("Ada lives in Rome.", (Question("Where is Ada?"),), text_pair="Who?")
LONG = Document("Ada lives in Zürich 😀 and works in 東京. " * 100)


async def occupy(near: Near, recorder: Recorder) -> "asyncio.Task[Analysis]":
    """Starts a call whose batch is held until the recorder's gate opens."""
    recorder.gate.clear()
    task = asyncio.create_task(near.engine.analyze([DOCUMENT]))
    await asyncio.to_thread(recorder.wait_until_busy)
    return task


def test_answers_and_descriptions_are_those_of_the_model(model: Model) -> None:
    async def test(pair: Pair, far: Far, near: Near) -> None:
        analysis = await near.engine.analyze([DOCUMENT, LONG])
        assert analysis.results == [model.analyze(DOCUMENT), model.analyze(LONG)]
        assert analysis.timing.compute_ns > 0
        (served,) = near.engine.models.all()
        assert describe(served.model, Settings()) == describe(model, Settings())

    run_pair([model], test)


def test_rows_give_the_same_outputs_bit_for_bit(model: Model) -> None:
    async def test(pair: Pair, far: Far, near: Near) -> None:
        prepared = model.pipeline.prepare(LONG)
        inference = await near.engine.infer(
            prepared.rows, [output.name for output in prepared.outputs]
        )
        wanted = model.runner.run(prepared.rows, prepared.outputs)
        for got, want in zip(inference.outputs, wanted, strict=True):
            assert {name: got[name].tobytes() for name in got} == {
                name: want[name].tobytes() for name in want
            }

    run_pair([model], test)


def test_a_front_runs_no_rows_itself(model: Model) -> None:
    async def test(pair: Pair, far: Far, near: Near) -> None:
        (served,) = near.engine.models.all()
        with pytest.raises(RuntimeFault, match="not run in a front"):
            served.model.analyze("Ada")

    run_pair([model], test)


def test_a_call_larger_than_the_memory_goes_in_parts(bundle: Path, model: Model) -> None:
    parted, recorder = watched(bundle)

    async def test(pair: Pair, far: Far, near: Near) -> None:
        found = await near.engine.analyze([LONG] * 3)
        assert found.results == [model.analyze(LONG)] * 3
        assert len(recorder.batches) >= 9  # 150 KiB, at most 16 at a time

    run_pair([parted], test, memory=1 << 16)


def test_no_room_in_memory_is_told_before_compute(bundle: Path) -> None:
    model, recorder = watched(bundle)

    async def test(pair: Pair, far: Far, near: Near) -> None:
        held = await occupy(near, recorder)
        calls = [asyncio.create_task(near.engine.analyze([LONG])) for _ in range(8)]
        done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        errors = [call.exception() for call in done]
        assert all(isinstance(error, Overloaded) for error in errors)
        assert all("no room in memory" in str(error) for error in errors)
        recorder.gate.set()
        await held
        answers = await asyncio.gather(*calls, return_exceptions=True)
        sound = [one for one in answers if not isinstance(one, Exception)]
        assert sound
        assert all(one.results == [model.analyze(LONG)] for one in sound)
        # All blocks came back: as many calls fit as before.
        await near.engine.analyze([LONG])

    run_pair([model], test, memory=1 << 18)


def test_memory_of_a_cancelled_call_is_free_once_the_engine_let_go(
    bundle: Path, model: Model
) -> None:
    held_model, recorder = watched(bundle)

    async def test(pair: Pair, far: Far, near: Near) -> None:
        held = await occupy(near, recorder)
        for _ in range(40):  # each would take an eighth of the memory or more
            call = asyncio.create_task(near.engine.analyze([LONG]))
            await near.until(lambda: near.engine.queued_tokens > 1000)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await near.until(lambda: near.engine.queued_tokens < 1000)
        recorder.gate.set()
        assert (await held).results == [model.analyze(DOCUMENT)]
        assert len(recorder.batches) == 1  # what was cancelled was not computed

    run_pair([held_model], test, memory=1 << 18)


def test_a_call_cancelled_at_once_is_forgotten(bundle: Path) -> None:
    model, recorder = watched(bundle)

    async def test(pair: Pair, far: Far, near: Near) -> None:
        held = await occupy(near, recorder)
        call = asyncio.create_task(near.engine.analyze([DOCUMENT]))
        await asyncio.sleep(0)  # sends it
        call.cancel()
        recorder.gate.set()
        await held
        await near.engine.analyze([DOCUMENT])
        assert call.cancelled()

    run_pair([model], test)


def test_the_queue_is_known_and_bounded(bundle: Path) -> None:
    model, recorder = watched(bundle)

    async def test(pair: Pair, far: Far, near: Near) -> None:
        held = await occupy(near, recorder)
        # All in one go: the engine cannot yet have told of any of them.
        calls = [asyncio.create_task(near.engine.analyze([DOCUMENT])) for _ in range(12)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        refused = [call for call in calls if call.done()]
        assert all("tokens are waiting" in str(call.exception()) for call in refused)
        assert len(refused) > 6
        assert 0 < near.engine.queued_tokens <= 100
        await near.until(lambda: far.scheduler.queued_tokens == near.engine.queued_tokens)
        recorder.gate.set()
        await held
        await asyncio.gather(*calls, return_exceptions=True)
        assert near.engine.queued_tokens == 0

    run_pair([model], test, max_queue_tokens=100)


def test_a_deadline_is_kept_in_the_engine_too(bundle: Path) -> None:
    model, recorder = watched(bundle)

    async def test(pair: Pair, far: Far, near: Near) -> None:
        held = await occupy(near, recorder)
        late = asyncio.create_task(near.engine.analyze([DOCUMENT], deadline=monotonic() + 0.05))
        await asyncio.sleep(0.1)
        recorder.gate.set()
        await held
        with pytest.raises(DeadlinePassed):
            await late
        assert len(recorder.batches) == 1

    run_pair([model], test)


def test_a_deadline_that_cannot_be_met_is_refused_in_the_front(bundle: Path) -> None:
    model, recorder = watched(bundle)

    async def test(pair: Pair, far: Far, near: Near) -> None:
        held = await occupy(near, recorder)
        await asyncio.sleep(0.2)
        recorder.gate.set()
        await held  # from now on the speed is known
        held = await occupy(near, recorder)
        await near.until(lambda: near.engine.expected_wait() > 0)
        with pytest.raises(Overloaded, match="the deadline leaves"):
            await near.engine.analyze([DOCUMENT], deadline=monotonic() + 0.01)
        recorder.gate.set()
        await held

    run_pair([model], test)


def test_a_failing_run_fails_its_own_call(bundle: Path) -> None:
    model, recorder = watched(bundle)

    async def test(pair: Pair, far: Far, near: Near) -> None:
        recorder.failure = ZeroDivisionError("no")
        with pytest.raises(RuntimeFault, match="ZeroDivisionError"):
            await near.engine.analyze([DOCUMENT])
        recorder.failure = None
        await near.engine.analyze([DOCUMENT])

    run_pair([model], test)


def test_an_engine_that_dies_fails_all_calls_at_once_and_the_next_one_serves(
    bundle: Path, model: Model
) -> None:
    held_model, recorder = watched(bundle)

    async def test(pair: Pair, far: Far, near: Near) -> None:
        held = await occupy(near, recorder)
        waiting = asyncio.create_task(near.engine.analyze([LONG]))
        await near.until(lambda: near.engine.queued_tokens)
        dying = asyncio.create_task(far.die())
        for call in (held, waiting):
            with pytest.raises(Unavailable, match="try again"):
                await call
        with pytest.raises(Unavailable):
            await near.engine.analyze([DOCUMENT])
        with pytest.raises(Unavailable):
            await near.remote.unload("tiny", 0)
        assert near.told == [True, False]
        recorder.gate.set()
        await dying
        again = pair.far([model])
        await near.until(lambda: near.told == [True, False, True])
        assert (await near.engine.analyze([LONG])).results == [model.analyze(LONG)]
        await again.die()

    run_pair([held_model], test)


def test_a_front_that_dies_takes_its_work_along(bundle: Path, model: Model) -> None:
    held_model, recorder = watched(bundle)

    async def test(pair: Pair, far: Far, near: Near) -> None:
        other = await pair.near()
        held = await occupy(other, recorder)
        waiting = asyncio.create_task(near.engine.analyze([LONG]))
        await near.until(lambda: far.scheduler.queued_tokens)
        await near.die()
        with pytest.raises(Unavailable):
            await waiting
        await other.until(lambda: not far.scheduler.queued_tokens)
        recorder.gate.set()
        assert (await held).results == [model.analyze(DOCUMENT)]
        assert len(recorder.batches) == 1
        await other.die()

    run_pair([held_model], test)


def test_models_come_and_go_in_all_fronts(tmp_path: Path, model: Model) -> None:
    build_tiny_bundle(tmp_path / "next", version=2)

    async def test(pair: Pair, far: Far, near: Near) -> None:
        other = await pair.near()
        assert await near.remote.load("next", False) == ModelId("tiny", 2)
        both = [ModelId("tiny", 1), ModelId("tiny", 2)]
        assert near.engine.models.ids() == other.engine.models.ids() == both
        assert (await other.engine.analyze([DOCUMENT])).model.manifest.version == 2
        assert await other.remote.unload("tiny", 1) == both[:1]
        assert near.engine.models.ids() == other.engine.models.ids() == both[1:]
        with pytest.raises(NotFound, match="unknown bundle 'nixt'"):
            await near.remote.load("nixt", False)
        with pytest.raises(InvalidInput, match="tiny 2"):
            await near.remote.load("next", False)
        with pytest.raises(NotFound):
            await near.remote.unload("tiny", 1)
        await other.die()

    run_pair([model], test, folder=str(tmp_path))


def test_no_call_fails_while_models_are_switched(tmp_path: Path, model: Model) -> None:
    for version in (2, 3, 4):
        build_tiny_bundle(tmp_path / str(version), version=version)

    async def test(pair: Pair, far: Far, near: Near) -> None:
        other = await pair.near()
        switched = False

        async def call(front: Near) -> set[int]:
            versions = set()
            while not switched:
                analysis = await front.engine.analyze([DOCUMENT])
                assert analysis.results == [model.analyze(DOCUMENT)]
                versions.add(analysis.model.manifest.version)
                await asyncio.sleep(0)  # short calls never leave the loop
            return versions

        callers = [asyncio.create_task(call(front)) for front in (near, other) for _ in range(4)]
        for version in (2, 3, 4):
            await near.remote.load(str(version), True)
        switched = True
        for versions in await asyncio.gather(*callers):
            assert max(versions) == 4
        await other.die()

    run_pair([model], test, folder=str(tmp_path))


def test_a_model_stays_until_all_fronts_let_go_of_it(tmp_path: Path, bundle: Path) -> None:
    model, recorder = watched(bundle)
    build_tiny_bundle(tmp_path / "next", version=2)

    async def test(pair: Pair, far: Far, near: Near) -> None:
        other = await pair.near()
        held = await occupy(near, recorder)
        loading = asyncio.create_task(other.remote.load("next", True))
        await near.until(lambda: near.engine.models.ids() == [ModelId("tiny", 2)])
        assert not loading.done()
        recorder.gate.set()
        assert (await held).results == [model.analyze(DOCUMENT)]
        await loading
        await other.die()

    run_pair([model], test, folder=str(tmp_path))


def test_models_that_are_gone_are_given_back(tmp_path: Path, model: Model) -> None:
    build_tiny_bundle(tmp_path / "next", version=2)
    leaving = [open_for_serving(build_tiny_bundle(tmp_path / "old"), Settings())]
    gone = weakref.ref(leaving[0])

    async def test(pair: Pair, far: Far, near: Near) -> None:
        leaving.clear()
        await near.engine.analyze([DOCUMENT])
        front_gone = weakref.ref(near.engine.models.all()[0].model)
        await near.remote.load("next", True)
        gc.collect()
        assert gone() is None
        assert front_gone() is None

    run_pair(leaving, test, folder=str(tmp_path))


def test_a_bundle_that_was_replaced_on_disk_does_not_change_what_is_served(
    tmp_path: Path,
) -> None:
    path = build_tiny_bundle(tmp_path / "one")
    model = open_for_serving(path, Settings())
    wanted = model.analyze(DOCUMENT)
    build_tiny_bundle(path, name="other", version=7)

    async def test(pair: Pair, far: Far, near: Near) -> None:
        late = await pair.near()
        assert late.engine.models.ids() == [ModelId("tiny", 1)]
        assert (await late.engine.analyze([DOCUMENT])).results == [wanted]
        await late.die()

    run_pair([model], test)
