"""One serving process: models, engine and gRPC server, from start to drained."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

from trunkline import Model
from trunkline_serve import notify
from trunkline_serve.engine import Engine
from trunkline_serve.events import Everyone
from trunkline_serve.fronts.supervisor import supervise
from trunkline_serve.loading import Loader, count_lanes, open_for_serving
from trunkline_serve.observe.observer import Observer
from trunkline_serve.precedence import give_way
from trunkline_serve.process import (
    end_process,
    quick_loop,
    say_serving,
    set_up_interpreter,
    stop_on_signal,
)
from trunkline_serve.rpc.server import Server
from trunkline_serve.scheduler import Scheduler
from trunkline_serve.settings import Settings

_log = logging.getLogger("trunkline_serve")


def run(bundles: Sequence[Path], settings: Settings) -> None:
    """Serves bundles until SIGTERM or SIGINT.

    Prints `serving NAME version N on HOST:PORT` per model to stdout when ready.

    Raises:
        BundleError: A bundle is broken, fails its self-test, or is given twice.
        ConfigError: A setting makes no sense, or the address cannot be listened on.
    """
    if settings.listen.fronts:
        supervise(bundles, settings)
        return
    set_up_interpreter()
    models = [open_for_serving(bundle, settings) for bundle in bundles]
    give_way()  # not before: models may have threads of their own
    with asyncio.Runner(loop_factory=quick_loop()) as runner:
        runner.run(_serve(models, settings))


class Host:
    """All of one serving process. Make and use it on a running event loop.

    Args:
        models: Served from the start.
        settings: Of the server.

    Attributes:
        engine, loader, observer, server: Its parts.
        metrics_address: `host:port` of its metrics; None if they are not served.

    Raises:
        BundleError: Two models have the same name and version.
    """

    def __init__(self, models: Sequence[Model], settings: Settings) -> None:
        self._settings = settings
        self._closing = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            events = Everyone()
            lanes = count_lanes(models, settings)
            scheduler = Scheduler(lanes, events, settings.compute.batch_tokens)
            stack.callback(scheduler.close)
            self.engine = Engine(scheduler, settings, events)
            stack.callback(self.engine.close)
            for model in models:
                self.engine.models.add(model)
            self.loader = Loader(
                self.engine.models, settings, lambda path: open_for_serving(path, settings)
            )
            stack.callback(self.loader.close)
            self.loader.skip(model.bundle.path for model in models)
            self.observer = Observer(self.engine)
            stack.callback(self.observer.close)
            self.metrics_address = self.observer.metrics_address
            self.server = Server(self.engine, self.loader, self.observer.calls)
            self._closing = stack.pop_all()

    async def start(self) -> str:
        """Starts serving and returns `host:port`.

        Raises:
            ConfigError: The address cannot be listened on.
        """
        address = await self.server.start()
        if self._settings.models.folder is not None and self._settings.models.watch_seconds:
            watch = asyncio.get_running_loop().create_task(self.loader.watch())
            self._closing.callback(watch.cancel)
        return address

    async def stop(self) -> None:
        """Answers what was accepted, within the time the settings give, and ends."""
        await self.server.stop()
        self.close()

    def close(self) -> None:
        """Ends all threads; calls that still wait fail with Unavailable."""
        self._closing.close()


async def _serve(models: Sequence[Model], settings: Settings) -> None:
    host = Host(models, settings)
    try:
        stopped = stop_on_signal()
        address = await host.start()
        say_serving(host.engine.models.ids(), address)
        notify.ready()
        await stopped.wait()
        notify.stopping()
        await host.server.drain()
        host.observer.close()
        end_process()
    finally:
        host.close()
