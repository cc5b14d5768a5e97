"""Real servers on free ports, and a runner that can be watched and held."""

import asyncio
import dataclasses
import threading
import typing
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import trunkline
from trunkline import Model
from trunkline.encode import Row
from trunkline.kinds import Output
from trunkline.runner import RowOutputs, ServingRunner
from trunkline_serve.host import Host
from trunkline_serve.settings import Settings

T = TypeVar("T")
PATIENCE = 20.0  # seconds, for what should take none


class Recorder:
    """Records the batches that run, and holds them while `gate` is clear."""

    def __init__(self, runner: ServingRunner) -> None:
        self._runner = runner
        self.lanes = 1
        self.budget = runner.budget
        self.batches: list[Sequence[Row]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self.failure: BaseException | None = None

    def group(self, length: int) -> int:
        return self._runner.group(length)

    def computed(self, lengths: Sequence[int]) -> int:
        return self._runner.computed(lengths)

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
    recorder = Recorder(model.runner)
    return Model(model.bundle, model.graph, recorder), recorder


def settings(**values: Any) -> Settings:
    """Returns settings with some values, each put into the section that has one of its name."""
    hints = typing.get_type_hints(Settings)
    sections: dict[str, Any] = {}
    for name, kind in hints.items():
        if not dataclasses.is_dataclass(kind):
            continue
        names = {field.name for field in dataclasses.fields(kind)}
        sections[name] = kind(**{key: values.pop(key) for key in names & values.keys()})
    return Settings(**sections, **values)


class Loop:
    """Runs servers on one event loop in a thread: gRPC's asyncio wants one per process."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    @contextmanager
    def serving(self, models: Sequence[Model], **values: Any) -> Iterator["Hosted"]:
        hosted = self.run(_start(models, settings(**{"port": 0, "threads": 1, **values})))
        try:
            yield hosted
        finally:
            self.run(hosted.host.stop())

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


class Hosted:
    def __init__(self, host: Host, address: str) -> None:
        self.host = host
        self.engine = host.engine
        self.server = host.server
        self.address = address


async def _start(models: Sequence[Model], chosen: Settings) -> Hosted:
    host = Host(models, chosen)
    try:
        return Hosted(host, await host.start())
    except BaseException:
        host.close()
        raise


def wait_for(condition: Any) -> None:
    """Waits until `condition()` is true."""
    pause = threading.Event()
    for _ in range(int(PATIENCE * 200)):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("waited in vain")
