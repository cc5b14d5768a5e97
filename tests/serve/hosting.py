"""Real servers on free ports, and a runner that can be watched and held."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import trunkline
from trunkline import Model
from trunkline.encode import Row
from trunkline.kinds import Output
from trunkline.runner import RowOutputs, Runner
from trunkline_serve.engine import Engine
from trunkline_serve.rpc.server import Server
from trunkline_serve.settings import Settings

T = TypeVar("T")
PATIENCE = 20.0  # seconds, for what should take none


class Recorder:
    """Records the batches that run, and holds them while `gate` is clear."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.batches: list[Sequence[Row]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self.failure: Exception | None = None

    def run(self, rows: Sequence[Row], outputs: Sequence[Output]) -> list[RowOutputs]:
        self.batches.append(rows)
        self.entered.release()
        assert self.gate.wait(PATIENCE)
        if self.failure is not None:
            raise self.failure
        return self._runner.run(rows, outputs)

    def wait_until_busy(self) -> None:
        """Returns when one more batch has begun."""
        assert self.entered.acquire(timeout=PATIENCE)


def watched(bundle: Path) -> tuple[Model, Recorder]:
    """Loads a model whose batches are recorded."""
    model = trunkline.load(bundle, 1)
    recorder = Recorder(model.pipeline.runner)
    model.pipeline.runner = recorder
    return model, recorder


class Host:
    """Runs servers on one event loop in a thread: gRPC's asyncio wants one per process."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    @contextmanager
    def serving(self, models: Sequence[Model], **settings: Any) -> Iterator["Hosted"]:
        hosted = self.run(_start(models, Settings(**{"port": 0, **settings})))
        try:
            yield hosted
        finally:
            self.run(hosted.server.stop())
            hosted.engine.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


class Hosted:
    def __init__(self, engine: Engine, server: Server, address: str) -> None:
        self.engine = engine
        self.server = server
        self.address = address


async def _start(models: Sequence[Model], settings: Settings) -> Hosted:
    engine = Engine(models, settings)
    try:
        server = Server(engine)
        return Hosted(engine, server, await server.start())
    except BaseException:
        engine.close()
        raise


def wait_for(condition: Any) -> None:
    """Waits until `condition()` is true."""
    pause = threading.Event()
    for _ in range(int(PATIENCE * 200)):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("waited in vain")
