"""Keeps a front's models those of the engine, over as many engines as there are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from trunkline import Model
from trunkline_serve.fronts.layout import columns
from trunkline_serve.fronts.link import Known, Link, connect
from trunkline_serve.fronts.offered import open_offer
from trunkline_serve.fronts.remote import Remote
from trunkline_serve.fronts.wire import Applied, Models, Release
from trunkline_serve.models import Registry, Served

_log = logging.getLogger("trunkline_serve")
_TRY_EVERY = 0.05  # seconds


async def follow(
    path: Path, size: int, registry: Registry, remote: Remote, told: Callable[[bool], None]
) -> None:
    """Connects to the engine, again whenever it died, and serves what it serves.

    Args:
        path: The engine's Unix socket.
        size: Bytes of memory to share with it.
        registry: Of the front.
        remote: Gets the connection while there is one.
        told: Called with True when calls can be answered from now on, with False when not.
    """
    while True:
        link = await _connected(path, size)
        following = _Following(link, registry)
        try:
            while (models := await link.models.get()) is not None:
                await following.apply(models)
                if remote.link is None:
                    remote.link = link
                    told(True)
        finally:
            following.close()
        if remote.link is not None:
            remote.link = None
            told(False)
            _log.warning("the engine is gone")
        await asyncio.sleep(_TRY_EVERY)


async def _connected(path: Path, size: int) -> Link:
    while True:
        try:
            return await connect(path, size)
        except OSError:  # not yet there
            await asyncio.sleep(_TRY_EVERY)


class _Following:
    """Follows one engine.

    Args:
        link: The connection to it.
        registry: Gets its models instead of all others.
    """

    def __init__(self, link: Link, registry: Registry) -> None:
        self._link = link
        self._registry = registry
        self._served: dict[int, Served] = {}
        self._releasing: set[asyncio.Task[None]] = set()

    async def apply(self, models: Models) -> None:
        """Serves these models, and no others."""
        opened = {
            key: await asyncio.to_thread(open_offer, self._link.offers.pop(key))
            for key in models.keys
            if key not in self._served
        }
        self._switch(models, opened)
        self._link.wire.send(Applied(models.generation))

    def close(self) -> None:
        """Ends the connection."""
        self._link.wire.close()
        for task in self._releasing:
            task.cancel()

    def _switch(self, models: Models, opened: dict[int, Model]) -> None:
        """Changes the registry in one go: calls find it as it was, or as it shall be."""
        kept = {one for key, one in self._served.items() if key in models.keys}
        for one in self._registry.all():
            if one not in kept:
                self._registry.remove(one.id.name, one.id.version)
        for key in self._served.keys() - set(models.keys):
            self._release(key, self._served.pop(key))
        for key, model in opened.items():
            self._link.known[model] = Known(key, columns(model.manifest.tasks))
            self._served[key] = self._registry.add(model)

    def _release(self, key: int, served: Served) -> None:
        task = asyncio.get_running_loop().create_task(self._release_unused(key, served))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    async def _release_unused(self, key: int, served: Served) -> None:
        await served.unused()
        del self._link.known[served.model]
        self._link.wire.send(Release(key))
