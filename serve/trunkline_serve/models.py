"""The models that a server serves, which may come and go while it does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trunkline import Model
from trunkline.errors import BundleError, InvalidInput, NotFound
from trunkline_serve.description import ModelId, identify


class Served:
    """A model that is served, and how many calls hold it.

    Args:
        model: The model.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.id = identify(model)
        self._calls = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @contextmanager
    def held(self) -> Iterator[Model]:
        """Holds the model for a call."""
        self._calls += 1
        self._unused.clear()
        try:
            yield self.model
        finally:
            self._calls -= 1
            if not self._calls:
                self._unused.set()

    async def unused(self) -> None:
        """Waits until no call holds the model."""
        await self._unused.wait()


class Registry:
    """Models by name and version. Belongs to one event loop."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, int], Served] = {}
        self._watchers: list[Callable[[], None]] = []

    def all(self) -> list[Served]:
        """Returns all models, by name, then version."""
        return [self._models[key] for key in sorted(self._models)]

    def on_change(self, watcher: Callable[[], None]) -> None:
        """Has `watcher` called after each change, and once now."""
        self._watchers.append(watcher)
        watcher()

    def find(self, name: str, version: int) -> Served:
        """Returns a model; an empty name means the only one, version 0 the newest.

        Raises:
            InvalidInput: The name is empty and there are several.
            NotFound: There is no such model or version.
        """
        names = {known for known, _ in self._models}
        if not name and len(names) > 1:
            known = ", ".join(sorted(names))
            raise InvalidInput("model", f"is empty; say which model is meant; known: {known}")
        name = name or next(iter(names), "")
        if name not in names:
            raise NotFound("model", name, names)
        versions = [known for model, known in self._models if model == name]
        if version and version not in versions:
            raise NotFound(f"version of model {name}", str(version), map(str, versions))
        return self._models[name, version or max(versions)]

    def check_new(self, model: Model) -> None:
        """Raises BundleError if a model of this name and version is served."""
        found = self._models.get((model.manifest.name, model.manifest.version))
        if found is not None:
            name, version = found.id.name, found.id.version
            reason = f"has the name and version of {found.model.bundle.path}: {name} {version}"
            mend = "serve one of them, or export it as another version"
            raise BundleError(model.bundle.path, reason, mend)

    def check_newest(self, model: Model) -> None:
        """Raises BundleError if a newer version of this model is served."""
        name, version = model.manifest.name, model.manifest.version
        newer = [known for served, known in self._models if served == name and known > version]
        if newer:
            reason = f"is version {version} of {name}, and version {max(newer)} is served"
            mend = "export it as a newer version, or ask for both by LoadModel"
            raise BundleError(model.bundle.path, reason, mend)

    def add(self, model: Model) -> Served:
        """Serves a model.

        Raises:
            BundleError: One of this name and version is served.
        """
        self.check_new(model)
        served = Served(model)
        self._models[served.id.name, served.id.version] = served
        self._tell()
        return served

    def remove(self, name: str, version: int = 0) -> list[Served]:
        """Takes out a version of a model, or with 0 all; returns them by version.

        Raises:
            InvalidInput: The name is empty.
            NotFound: There is no such model or version.
        """
        if not name:
            known = ", ".join(sorted({known for known, _ in self._models}))
            raise InvalidInput("model", f"is empty; name the model to unload; known: {known}")
        self.find(name, version)
        keys = sorted(key for key in self._models if key[0] == name and version in (0, key[1]))
        gone = [self._models.pop(key) for key in keys]
        self._tell()
        return gone

    def replace(self, model: Model) -> tuple[Served, list[Served]]:
        """Serves a model instead of all older versions; no call ever finds neither.

        Returns:
            It, and the older versions.

        Raises:
            BundleError: One of this name and version is served.
        """
        self.check_new(model)
        name, version = model.manifest.name, model.manifest.version
        older = sorted(key for key in self._models if key[0] == name and key[1] < version)
        gone = [self._models.pop(key) for key in older]
        return self.add(model), gone

    def ids(self) -> list[ModelId]:
        """Returns names and versions, sorted."""
        return [served.id for served in self.all()]

    def _tell(self) -> None:
        for watcher in self._watchers:
            watcher()
