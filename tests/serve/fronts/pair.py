"""An engine and a front on one event loop, joined by a real socket and real shared memory."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.serve.hosting import PATIENCE, settings
from trunkline import Model
from trunkline_serve.engine import Engine
from trunkline_serve.events import Everyone
from trunkline_serve.fronts.following import follow
from trunkline_serve.fronts.remote import Remote
from trunkline_serve.fronts.sessions import Sessions
from trunkline_serve.loading import Loader, open_for_serving
from trunkline_serve.models import Registry
from trunkline_serve.scheduler import Scheduler
from trunkline_serve.settings import Settings


class Far:
    """The engine's side."""

    def __init__(self, models: Sequence[Model], chosen: Settings, socket: Path) -> None:
        self.scheduler = Scheduler(1, Everyone())
        self.registry = Registry()
        for model in models:
            self.registry.add(model)
        self.loader = Loader(self.registry, chosen, lambda path: open_for_serving(path, chosen))
        sessions = Sessions(self.scheduler, self.registry, self.loader)
        self._listening = asyncio.create_task(sessions.listen(socket))
        self.sessions = sessions

    async def die(self) -> None:
        """Hangs up on all fronts and listens no longer."""
        self._listening.cancel()
        with suppress(asyncio.CancelledError):
            await self._listening
        for session in list(self.sessions.sessions):
            session.wire.close()
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        self.scheduler.close()
        self.loader.close()


class Near:
    """A front's side.

    Attributes:
        told: Whether calls could be answered, each time that changed.
    """

    def __init__(self, chosen: Settings, socket: Path, memory: int) -> None:
        self.remote = Remote()
        self.engine = Engine(self.remote, chosen, Everyone())
        self.told: list[bool] = []
        models = self.engine.models
        self._following = asyncio.create_task(
            follow(socket, memory, models, self.remote, self.told.append)
        )

    async def until(self, condition: Callable[[], object]) -> None:
        """Waits until `condition()` is true."""
        while not condition():
            assert not self._following.done()
            await asyncio.sleep(0.005)

    async def die(self) -> None:
        """Hangs up."""
        self._following.cancel()
        with suppress(asyncio.CancelledError):
            await self._following
        self.engine.close()


class Pair:
    """Both sides, and a way to make more of each."""

    def __init__(self, chosen: Settings, socket: Path, memory: int) -> None:
        self._chosen = chosen
        self._socket = socket
        self._memory = memory

    def far(self, models: Sequence[Model]) -> Far:
        return Far(models, self._chosen, self._socket)

    async def near(self) -> Near:
        near = Near(self._chosen, self._socket, self._memory)
        await near.until(lambda: near.told)
        return near


def run_pair(
    models: Sequence[Model],
    test: Callable[[Pair, Far, Near], Awaitable[None]],
    memory: int = 1 << 20,
    **values: Any,
) -> None:
    """Runs a test of an engine with these models, and a front."""

    async def main() -> None:
        with TemporaryDirectory() as folder:
            pair = Pair(settings(threads=1, **values), Path(folder) / "engine.sock", memory)
            async with asyncio.timeout(PATIENCE):
                far = pair.far(models)
                with closing(far):
                    near = await pair.near()
                    await test(pair, far, near)
                    await near.die()
                    await far.die()

    asyncio.run(main())
