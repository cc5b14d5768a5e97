"""The engine process: models, lanes and a socket for fronts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from trunkline import Model
from trunkline.cpu import available_cpus
from trunkline.errors import TrunklineError
from trunkline_serve.events import Everyone
from trunkline_serve.fronts.child import Folder, Supervised
from trunkline_serve.fronts.sessions import Sessions
from trunkline_serve.loading import Loader, open_for_serving
from trunkline_serve.models import Registry
from trunkline_serve.scheduler import Scheduler
from trunkline_serve.settings import Settings

_log = logging.getLogger("trunkline_serve")


async def compute(folder: Folder, *, again: bool) -> None:
    """Computes for fronts until the supervisor says stop.

    Args:
        folder: Holds the settings and the list of bundles.
        again: An engine served these bundles before: one that is broken by now is left out.

    Raises:
        BundleError: A bundle is broken, fails its self-test, or is given twice.
    """
    child = Supervised(folder)
    settings = folder.read_settings()
    models = _open_all(folder.read_bundles(), settings, again)
    events = Everyone()
    with ExitStack() as stack:
        lanes = settings.compute.threads or available_cpus()
        scheduler = Scheduler(lanes, events, settings.compute.batch_tokens)
        stack.callback(scheduler.close)
        registry = Registry()
        for model in models:
            registry.add(model)
        loader = Loader(registry, settings, lambda path: open_for_serving(path, settings))
        stack.callback(loader.close)
        loader.skip(model.bundle.path for model in models)
        registry.on_change(lambda: folder.write_bundles(_paths(registry)))
        sessions = Sessions(scheduler, registry, loader)
        child.ready(registry.ids())
        await _work_until(child.stop, sessions, loader, settings, folder.socket)


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


def _open_all(bundles: Sequence[Path], settings: Settings, again: bool) -> list[Model]:
    models = []
    for bundle in bundles:
        try:
            models.append(open_for_serving(bundle, settings))
        except TrunklineError as error:
            if not again:
                raise
            _log.error("served no longer: %s", error)
    return models


def _paths(registry: Registry) -> list[Path]:
    return [served.model.bundle.path for served in registry.all()]
