"""The models of a server by the names the protocol knows them by."""

from __future__ import annotations

import re
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from trunkline.errors import InvalidInput, NotFound, shown
from trunkline.naming import TENSORS
from trunkline_serve.engine import Engine
from trunkline_serve.models import Served
from trunkline_serve.oip.answers import Answering
from trunkline_serve.oip.tensor_model import TensorModel, bounds_of
from trunkline_serve.oip.text_model import TextModel

_VERSION = re.compile("[1-9][0-9]{0,17}")


def version_of(text: str, field: str) -> int:
    """Returns the version that a request names; 0 if it names none.

    Raises:
        InvalidInput: It is no positive number.
    """
    if text and not _VERSION.fullmatch(text):
        raise InvalidInput(field, f"is {shown(text)}; versions are numbers from 1, or empty")
    return int(text or 0)


class Catalogue:
    """Finds models. Belongs to the engine's event loop.

    Args:
        engine: Its models are those found.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: WeakKeyDictionary[Served, tuple[TextModel, TensorModel]] = WeakKeyDictionary()

    def find(self, name: str, version: int) -> Answering:
        """Returns a model by one of its names; version 0 is the newest.

        Raises:
            InvalidInput: The name is empty and there are several models.
            NotFound: There is no such model or version.
        """
        tensors = name.endswith(TENSORS)  # no model is called so
        served = self._engine.models.find(name.removesuffix(TENSORS) if tensors else name, version)
        return self._both(served)[tensors]

    def versions(self, name: str, version: int) -> list[Answering]:
        """Returns the served versions of a model by one of its names; 0 stands for all.

        Raises:
            InvalidInput: As `find`.
            NotFound: As `find`.
        """
        one = self.find(name, version)
        return [one] if version else [other for other in self.all() if other.name == one.name]

    def all(self) -> Sequence[Answering]:
        """Returns all models by all their names, sorted by name, then version."""
        return sorted(
            (one for served in self._engine.models.all() for one in self._both(served)),
            key=lambda one: (one.name, one.version),
        )

    def ready(self, name: str, version: int) -> bool:
        """Tells if a model would answer."""
        try:
            self.find(name, version)
        except NotFound:
            return False
        return not self._engine.draining

    def _both(self, served: Served) -> tuple[TextModel, TensorModel]:
        """Returns a model by its own name, and for tensors."""
        if served not in self._known:
            bounds = bounds_of(served.model.pipeline.encoder)
            self._known[served] = (
                TextModel(self._engine, served),
                TensorModel(self._engine, served, bounds),
            )
        return self._known[served]
