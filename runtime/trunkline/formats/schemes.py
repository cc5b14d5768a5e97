"""Tagging schemes: IOB1, IOB2, BILOU, BIOES and their like, all as IOB2."""

from __future__ import annotations

from collections.abc import Sequence

_OUTSIDE = "O"
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


def to_iob2(tags: Sequence[str]) -> list[str]:
    """Returns IOB1 or IOB2 tags as IOB2; an entity that opens with I- gets its B-.

    In IOB1, B- stands only between neighbouring entities of one type
    (Tjong Kim Sang and Veenstra, 1999); the same repair is what conlleval applies.
    """
    fixed: list[str] = []
    previous = _OUTSIDE
    for tag in tags:
        prefix, _, label = tag.partition("-")
        opens = prefix == "I" and previous[2:] != label
        fixed.append(f"B-{label}" if opens else tag)
        previous = tag
    return fixed
