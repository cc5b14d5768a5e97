"""Loads and unloads models while others are served, on demand or by watching a folder.

A bundle is opened, tested on its golden texts and so warmed on a thread beside the event loop. Only
then is it served; if anything fails, nothing has changed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

from trunkline import Model, load
from trunkline.bundle import MANIFEST
from trunkline.cpu import available_cpus
from trunkline.device import CudaOptions, parse_devices
from trunkline.errors import (
    InvalidInput,
    NotFound,
    TrunklineError,
    shown,
)
from trunkline_serve.description import ModelId
from trunkline_serve.heap import give_back
from trunkline_serve.models import Registry, Served
from trunkline_serve.settings import Settings

_log = logging.getLogger("trunkline_serve")
_GONE_SECONDS = (
    30.0  # for the calls of a model that is served no longer; then nobody waits for them
)
_LONGEST = 255  # characters: no system has folders of longer names

T = TypeVar("T")
OpenModel = Callable[[Path], Model]
_Stamp = tuple[tuple[str, int, int], ...]
"""Path, time and size of every file of a bundle: another one when any of them has changed."""


class Loading(Protocol):
    """Whatever loads and unloads models: in this process, or in another."""

    async def load(self, bundle: str, replace: bool) -> ModelId:
        """Serves a bundle of the folder of models."""
        ...

    async def unload(self, name: str, version: int) -> list[ModelId]:
        """Serves a version of a model no longer, or with 0 none; returns what is gone."""
        ...


def open_for_serving(path: Path, settings: Settings) -> Model:
    """Loads a bundle with the graph that the settings want, and tests it.

    Raises:
        BundleError: It is broken, has no graph that may be run, or fails its self-test.
        DeviceError: The device cannot be used.
    """
    compute = settings.compute
    model = load(
        path,
        compute.threads,
        graph=compute.graph,
        allow_ungated=compute.allow_ungated,
        device=compute.device,
        cuda=CudaOptions(compute.cuda_graphs, _bytes(compute.gpu_memory_mb)),
    )
    _log.info("%s: runs %s on %s", path, model.graph.name, model.devices)
    if compute.self_test:
        _log.info("%s: %d golden texts as expected", path, model.self_test())
    return model


def count_lanes(models: Iterable[Model], settings: Settings) -> int:
    """Returns the threads that run batches: those of the CPU, and what GPUs of these models want.

    Where nothing is left to the CPU they are the GPUs' alone: a thread more would make the wait
    that is expected shorter than it is.
    """
    lanes = [model.runner.lanes for model in models if model.devices.kind != "cpu"]
    asked = parse_devices(settings.compute.device)
    if lanes and asked.kind != "auto":
        return max(lanes)
    return max([settings.compute.threads or available_cpus(), *lanes])


def _bytes(megabytes: int | None) -> int | None:
    return None if megabytes is None else megabytes * 1_000_000


class Loader:
    """Changes what a registry serves. Belongs to its event loop.

    Args:
        registry: What is served.
        settings: The folder of models, and how to load them.
        open_: Opens a bundle; slow, called on a thread.
    """

    def __init__(self, registry: Registry, settings: Settings, open_: OpenModel) -> None:
        self._registry = registry
        self._folder = None if settings.models.folder is None else Path(settings.models.folder)
        self._seconds = settings.models.watch_seconds
        self._open = open_
        # One at a time: loading takes all cores, and order decides which version is served.
        self._apart = ThreadPoolExecutor(1, thread_name_prefix="trunkline-load")
        self._turn = asyncio.Lock()
        self._seen: dict[Path, _Stamp] = {}
        self._moving: dict[Path, _Stamp] = {}
        self._told: dict[Path, tuple[_Stamp, str]] = {}
        self._forgetting: set[asyncio.Task[None]] = set()

    async def load(self, bundle: str, replace: bool) -> ModelId:
        """Serves a bundle of the folder of models.

        Args:
            bundle: Name of its folder.
            replace: Whether older versions are unloaded once it is served.

        Raises:
            InvalidInput: There is no folder of models; the name is none of a folder there; or the
                bundle fails its checks, or its name and version are served.
            NotFound: There is no such bundle.
        """
        path = await asyncio.to_thread(self._find, bundle)
        try:
            async with self._turn:
                loaded, gone = self._serve(await self._opened(path), replace)
        except TrunklineError as error:  # of the bundle, of its model, or of the device
            raise InvalidInput("bundle", str(error)) from None
        await self._gone(gone)
        return loaded

    async def unload(self, name: str, version: int) -> list[ModelId]:
        """Serves a version of a model no longer, or with 0 none; returns what is gone.

        Raises:
            InvalidInput: The name is empty.
            NotFound: There is no such model or version.
        """
        async with self._turn:
            gone = self._registry.remove(name, version)
        ids = [served.id for served in gone]
        await self._gone(gone)
        return ids

    async def watch(self) -> None:
        """Serves what newly appears in the folder of models, for ever.

        A bundle is looked at when it has changed and then stayed the same for a round: files that
        are still being copied are let alone. One that fails its checks, or is older than what is
        served, is told in the log, and looked at again when it changes.
        """
        while True:
            try:
                await self._look()
            except Exception:  # whatever a folder holds, the next round may find it mended
                _log.exception("cannot look for models in %s", self._folder)
            await asyncio.sleep(self._seconds)

    def skip(self, paths: Iterable[Path]) -> None:
        """Takes bundles as seen: they are served already."""
        self._seen |= {path.resolve(): _stamp(path.resolve()) for path in paths}

    def close(self) -> None:
        """Waits for a bundle that is being opened."""
        for task in self._forgetting:
            task.cancel()
        self._apart.shutdown()

    def _find(self, bundle: str) -> Path:
        if self._folder is None:
            raise InvalidInput("bundle", "this server has no folder of models (--models-folder)")
        if len(bundle) > _LONGEST:
            raise NotFound("bundle", bundle)
        if Path(bundle).name != bundle or bundle in {"", ".."}:
            reason = f"is {shown(bundle)}; give the name of a folder of models"
            raise InvalidInput("bundle", reason)
        known = {path.name: path for path in bundles_in(self._folder)}
        if bundle not in known:
            raise NotFound("bundle", bundle, known)
        if not _stays(known[bundle]):
            raise InvalidInput("bundle", f"is {bundle!r}, a link out of the folder of models")
        return known[bundle]

    def _settled(self) -> list[Path]:
        """Returns bundles that are new or have changed, but not since the last round."""
        assert self._folder is not None
        found = {path.resolve(): _stamp(path) for path in bundles_in(self._folder) if _stays(path)}
        changed = {path: stamp for path, stamp in found.items() if self._seen.get(path) != stamp}
        settled = {path: now for path, now in changed.items() if self._moving.get(path) == now}
        self._moving = changed
        self._seen |= settled
        return list(settled)

    async def _look(self) -> None:
        for path in await self._in_thread(self._settled):
            try:
                await self._take_in(path)
            except TrunklineError as error:
                self._refuse(path, error)
            except Exception:  # the others are to be served all the same
                _log.exception("not loaded: %s", path)

    def _refuse(self, path: Path, error: TrunklineError) -> None:
        """Tells why a bundle is not served, once."""
        told = self._seen[path], str(error)
        if self._told.get(path) != told:
            _log.error("not loaded: %s", error)
            self._told[path] = told
        if isinstance(error.__cause__, OSError):  # e.g. no descriptor is left; it may be good
            del self._seen[path]

    async def _take_in(self, path: Path) -> None:
        """Serves a bundle that was found, unless a newer version is served."""
        async with self._turn:
            model = await self._opened(path)
            self._registry.check_newest(model)
            _, gone = self._serve(model, replace=True)
        self._begin_forgetting(gone)

    async def _opened(self, path: Path) -> Model:
        return await self._in_thread(lambda: self._open(path))

    def _serve(self, model: Model, replace: bool) -> tuple[ModelId, list[Served]]:
        """Serves a model; returns what it is, and the older versions that are served no longer."""
        if replace:
            served, gone = self._registry.replace(model)
        else:
            served, gone = self._registry.add(model), []
        path = model.bundle.path
        _log.info("serving %s version %d from %s", served.id.name, served.id.version, path)
        return served.id, gone

    async def _gone(self, gone: list[Served]) -> None:
        """Waits until nobody uses models that are gone, unless that takes too long."""
        forgetting = self._begin_forgetting(gone)
        _, late = await asyncio.wait({forgetting}, timeout=_GONE_SECONDS)
        if late:
            _log.warning("a model that is served no longer still has calls")

    def _begin_forgetting(self, gone: list[Served]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._forget(gone))
        self._forgetting.add(task)
        task.add_done_callback(self._forgetting.discard)
        return task

    async def _forget(self, gone: list[Served]) -> None:
        """Waits until nobody uses models that are gone, then gives their memory back."""
        while gone:
            served = gone.pop()
            await served.unused()
            _log.info("%s version %d is gone", served.id.name, served.id.version)
            del served  # the last that holds the model
            await self._in_thread(give_back)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._apart, work)


def bundles_in(folder: Path) -> list[Path]:
    """Returns the bundles of a folder; hidden ones are still being written."""
    found = sorted(manifest.parent for manifest in folder.glob(f"*/{MANIFEST}"))
    return [path for path in found if not path.name.startswith(".")]


def _stays(path: Path) -> bool:
    """Tells if a bundle really lies in its folder, wherever links lead."""
    return path.resolve().is_relative_to(path.parent.resolve())


def _stamp(bundle: Path) -> _Stamp:
    found = []
    for file in sorted(bundle.rglob("*")):
        with suppress(OSError):  # gone since it was listed
            seen = file.stat()
            found.append((file.relative_to(bundle).as_posix(), seen.st_mtime_ns, seen.st_size))
    return tuple(found)
