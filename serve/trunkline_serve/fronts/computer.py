"""The engine process: models, lanes and a socket for fronts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from trunkline import Model
from trunkline.errors import TrunklineError
from trunkline_serve.events import Everyone
from trunkline_serve.fronts.child import Folder, Line, Supervised
from trunkline_serve.fronts.sessions import Sessions
from trunkline_serve.loading import Loader, count_lanes, open_for_serving
from trunkline_serve.models import Registry
from trunkline_serve.precedence import give_way
from trunkline_serve.process import end_process
from trunkline_serve.scheduler import Scheduler
from trunkline_serve.settings import Metrics as MetricsSettings
from trunkline_serve.settings import Settings

if TYPE_CHECKING:
    from trunkline_serve.observe.http import MetricsServer

_log = logging.getLogger("trunkline_serve")


async def compute(line: Line, folder: Folder, settings: Settings, *, again: bool) -> None:
    """Computes for fronts until the supervisor says stop.

    Args:
        line: To the supervisor.
        folder: Holds the list of bundles.
        settings: Of this process.
        again: An engine served these bundles before: one that is broken by now is left out.

    Raises:
        BundleError: A bundle is broken, fails its self-test, or is given twice.
        ConfigError: The metrics' address cannot be listened on.
    """
    child = Supervised(line, folder)
    models = _open_all(folder.read_bundles(), settings, again)
    give_way()  # not before: models may have threads of their own
    events = Everyone()
    with ExitStack() as stack:
        lanes = count_lanes(models, settings)
        scheduler = Scheduler(lanes, events, settings.compute.batch_tokens)
        stack.callback(scheduler.close)
        registry = Registry()
        for model in models:
            registry.add(model)
        loader = Loader(registry, settings, lambda path: _open(path, settings))
        stack.callback(loader.close)
        loader.skip(model.bundle.path for model in models)
        registry.on_change(lambda: _keep(folder, registry))
        if settings.metrics.port is not None:
            stack.callback(_show_metrics(registry, scheduler, events, settings.metrics).close)
        sessions = Sessions(scheduler, registry, loader)
        line.say_ready(registry.ids())
        await _work_until(child.stop, sessions, loader, settings, folder.socket)
        end_process()  # the fronts are gone: nobody waits for a batch or a model that is loading


async def _work_until(
    stop: asyncio.Event, sessions: Sessions, loader: Loader, settings: Settings, socket: Path
) -> None:
    async with asyncio.TaskGroup() as group:
        work = [group.create_task(sessions.listen(socket))]
        if settings.models.folder is not None and settings.models.watch_seconds:
            work.append(group.create_task(loader.watch()))
        await stop.wait()
        for task in work:
            task.cancel()


def _show_metrics(
    registry: Registry, scheduler: Scheduler, events: Everyone, chosen: MetricsSettings
) -> MetricsServer:
    """Serves the metrics of batches; those of calls are the fronts'."""
    from trunkline_serve.observe.http import MetricsServer
    from trunkline_serve.observe.metrics import Gauge, Metrics

    gauges = [
        Gauge("queued_tokens", "Tokens that wait to be computed.", lambda: scheduler.queued_tokens),
        Gauge("expected_wait_seconds", "Wait of a request made now.", scheduler.expected_wait),
    ]
    metrics = Metrics(registry, gauges)
    events.add(metrics)
    server = MetricsServer(metrics.registry, chosen.host, chosen.port or 0)
    _log.info("metrics of batches on http://%s/metrics", server.address)
    return server


def _open_all(bundles: Sequence[Path], settings: Settings, again: bool) -> list[Model]:
    models = []
    for bundle in bundles:
        try:
            models.append(_open(bundle, settings))
        except TrunklineError as error:
            if not again:
                raise
            _log.error("served no longer: %s", error)
    return models


def _open(bundle: Path, settings: Settings) -> Model:
    """Loads a bundle, and what fronts are sent of its tokenizer, which takes long to write."""
    model = open_for_serving(bundle, settings)
    model.pipeline.encoder.to_json()
    return model


def _keep(folder: Folder, registry: Registry) -> None:
    """Has the next engine serve what this one does."""
    try:
        folder.write_bundles([served.model.bundle.path for served in registry.all()])
    except OSError as error:  # e.g. a full disk; what is served is served all the same
        _log.error("an engine that is started again will serve what was before: %s", error)
