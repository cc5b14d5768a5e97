"""The engine process as a front's own engine sees it."""

from __future__ import annotations

from collections.abc import Sequence

from trunkline import Model
from trunkline.encode import Row
from trunkline.errors import Unavailable
from trunkline.kinds import Output
from trunkline_serve.description import ModelId
from trunkline_serve.fronts.link import AWAY, Link
from trunkline_serve.fronts.wire import Changed, Load, Unload
from trunkline_serve.turns import Ran


class Remote:
    """Computes rows in the engine process, and has models loaded and unloaded there.

    Attributes:
        link: The connection; None while there is no engine.
    """

    def __init__(self) -> None:
        self.link: Link | None = None

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait, those of other fronts included."""
        return 0 if self.link is None else self.link.memory.queued(self.link.sent)

    def expected_wait(self, tokens: int = 0) -> float:
        """Returns the seconds until a call of so many tokens, made now, should be done."""
        return 0.0 if self.link is None else self.link.memory.expected_wait(tokens)

    async def submit(
        self,
        model: Model,
        rows: Sequence[Row],
        outputs: Sequence[Output],
        deadline: float | None = None,
    ) -> Ran:
        """Has rows computed; see `Scheduler.submit`.

        Raises:
            Overloaded: There is no room for their tensors.
            DeadlinePassed: It did while the rows waited.
            Unavailable: There is no engine, or it died.
        """
        if not rows:
            return Ran([])
        link = self._linked()
        known = link.known.get(model)
        if known is None:  # it is of an engine that died meanwhile
            raise Unavailable(AWAY)
        wanted = [known.columns[output.name] for output in outputs]
        return await link.run(known.key, rows, wanted, deadline)

    async def load(self, bundle: str, replace: bool) -> ModelId:
        """Serves a bundle in all fronts; see `Loader.load`."""
        (loaded,) = _ids(await self._linked().ask(Load, bundle, replace))
        return loaded

    async def unload(self, name: str, version: int) -> list[ModelId]:
        """Serves a model no longer, in any front; see `Loader.unload`."""
        return _ids(await self._linked().ask(Unload, name, version))

    def _linked(self) -> Link:
        if self.link is None:
            raise Unavailable(AWAY)
        return self.link


def _ids(message: Changed) -> list[ModelId]:
    return [ModelId(name, version) for name, version in message.ids]
