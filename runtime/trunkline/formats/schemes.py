"""Tagging schemes: IOB1, IOB2, BILOU, BIOES and their like, all as IOB2."""

from __future__ import annotations

from collections.abc import Sequence

from trunkline.scoring.entities import to_iob2

_PREFIXES = {
    **{"B": "B", "I": "I"},
    **{"L": "I", "U": "B"},  # BILOU: last, unit
    **{"E": "I", "S": "B"},  # BIOES: end, single
    **{"M": "I", "W": "B"},  # BMEWO: middle, whole
}
PREFIXES = "".join(_PREFIXES)


def as_iob2(tags: Sequence[str]) -> list[str]:
    """Returns the tags of a sentence as IOB2; an entity that opens with I- gets its B-."""
    return to_iob2([_PREFIXES[tag[0]] + tag[1:] if tag[1:2] == "-" else tag for tag in tags])
