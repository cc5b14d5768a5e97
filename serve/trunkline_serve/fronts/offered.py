"""Models as a front has them: tokenizer and tasks, but no graph and no weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from trunkline import Model
from trunkline.bundle import Bundle, Manifest
from trunkline.encode import Row, TextEncoder
from trunkline.errors import RuntimeFault
from trunkline.kinds import Output, parse_task
from trunkline.runner import RowOutputs
from trunkline.structure import parse
from trunkline_serve.fronts.wire import Offer


def open_offer(offer: Offer) -> Model:
    """Returns the model that the engine describes, as good as its own but for running rows."""
    manifest = _manifest(offer.manifest)
    bundle = _OfferedBundle(Path(offer.path), manifest, offer.tokenizer)
    (graph,) = (one for one in manifest.graphs if one.file == offer.graph)
    return Model(bundle, graph, _ElsewhereRunner())


def _manifest(data: Any) -> Manifest:
    tasks = tuple(parse_task(task) for task in data["tasks"])
    return replace(parse(Manifest, {**data, "tasks": []}), tasks=tasks)


@dataclass(frozen=True)
class _OfferedBundle(Bundle):
    """A bundle whose tokenizer came with the offer: at its path there may be another by now."""

    tokenizer: str

    def encoder(self) -> TextEncoder:
        """Returns the encoder of its texts."""
        facts = self.manifest.encoder
        return TextEncoder(Tokenizer.from_str(self.tokenizer), facts.max_length, facts.overlap)


class _ElsewhereRunner:
    """Stands where a model has its runner; rows are run by the engine process."""

    lanes = 0
    budget = 0

    def group(self, length: int) -> int:
        """Refuses."""
        raise RuntimeFault("rows are not run in a front")

    def computed(self, lengths: Sequence[int]) -> int:
        """Refuses."""
        raise RuntimeFault("rows are not run in a front")

    def run(self, rows: Sequence[Row], outputs: Sequence[Output]) -> list[RowOutputs]:
        """Refuses."""
        raise RuntimeFault("rows are not run in a front")
