"""Reads what annotators said of whole texts: choices of Label Studio, answers of Prodigy, `cats`.

{"data": {"text": ...}, "annotations": [{"result": [{"type": "choices", ...}]}]}   Label Studio
{"text": ..., "options": [{"id": "good"}], "accept": ["good"], "answer": "accept"} Prodigy
{"text": ..., "label": "good", "answer": "accept"}                                 Prodigy
["...", {"cats": {"good": 1.0, "bad": 0.0}}]                                       spaCy
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from trunkline.errors import DataError
from trunkline.formats import label_studio
from trunkline.formats.notes import Notes
from trunkline.formats.rows import SKIPPED_ANSWERS

_PRODIGY = ("_task_hash", "_input_hash", "options")
_FITS = 0.5  # from here on a category of spaCy counts


class Classified(NamedTuple):
    """A text and the labels it was given."""

    text: str
    labels: list[Any]


def is_classified(values: Mapping[str, Any]) -> bool:
    """Tells if a row is in the format of an annotation tool, not a table's."""
    return (
        label_studio.is_task(values)
        or ("answer" in values and any(key in values for key in _PRODIGY))
        or isinstance(values.get("cats"), Mapping)
    )


def read_classified(
    values: Mapping[str, Any], where: str, text: str | None, control: str | None, notes: Notes
) -> Classified | None:
    """Returns the text of a row with its labels; None, which is noted, if it does not count.

    Args:
        values: Of a row that `is_classified`.
        where: The place.
        text: Key of the text; None for the usual one.
        control: Key of the labels, or Label Studio's control; None finds it.
        notes: Get what is left out.

    Raises:
        DataError: The row does not fit its format; names the place.
    """
    if label_studio.is_task(values):
        found = label_studio.choices(values, where, control, notes)
        if found is None:
            return None
        return Classified(label_studio.text_of(values["data"], where, text), found)
    answer = values.get("answer")
    if isinstance(answer, str) and answer in SKIPPED_ANSWERS:
        notes.add(f"texts skipped, which the annotator {SKIPPED_ANSWERS[answer]}", where)
        return None
    given = _flat(values, where, control)
    if given is None:
        notes.add("texts skipped, which have no label", where)
        return None
    body = values.get(text or "text")
    if not isinstance(body, str):
        raise DataError(where, f"{text or 'text'!r} must be a text, not {body!r:.60}")
    return Classified(body, given)


def _flat(values: Mapping[str, Any], where: str, key: str | None) -> list[Any] | None:
    """Returns the labels of a row of Prodigy or spaCy."""
    cats = values.get("cats")
    if key is None and isinstance(cats, Mapping):
        if not all(isinstance(value, int | float) for value in cats.values()):
            raise DataError(where, f"cats must be numbers, not {cats!r:.60}")
        return [name for name, value in cats.items() if value >= _FITS]
    label = values.get("accept") or [] if key is None and "options" in values else None
    if label is None:
        label = values.get(key or "label")
    return label if isinstance(label, list) or label is None else [label]
