"""Label Studio's tasks: which annotation counts, which regions, and where the text stands."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from trunkline.errors import DataError
from trunkline.formats.notes import Notes

Values = Mapping[str, Any]


def is_task(values: Values) -> bool:
    """Tells if a row is a task as the format JSON exports it."""
    kept = ("annotations", "completions", "predictions")
    return isinstance(values.get("data"), Mapping) and any(key in values for key in kept)


def is_minimal(values: Values) -> bool:
    """Tells if a row is what JSON-MIN makes of a task; it leaves controls without a result out."""
    return "annotation_id" in values and "annotator" in values


def without_facts(values: Values) -> dict[str, Any]:
    """Returns a row of JSON-MIN without what it says of the annotation, choices as a list."""
    return {
        key: value["choices"] if _are_choices(value) else value
        for key, value in values.items()
        if key not in _FACTS
    }


_FACTS = (
    *("id", "annotator", "annotation_id", "agreement"),
    *("created_at", "updated_at", "lead_time"),
)


def _are_choices(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("choices"), list)


def are_regions(value: Any) -> bool:
    """Tells if a value of JSON-MIN is what was marked with a control of labels."""
    return isinstance(value, list) and bool(value) and _is_region(value[0])


def _is_region(value: Any) -> bool:
    return isinstance(value, Mapping) and "start" in value and isinstance(value.get("labels"), list)


def regions(task: Values, where: str, control: str | None, notes: Notes) -> list[Values] | None:
    """Returns the regions marked in a task; None if no annotation counts.

    Args:
        task: As the format JSON exports it.
        where: The place.
        control: Name of the control tag that labels; None if there is one.
        notes: Get what is left out.

    Raises:
        DataError: There are several controls, or what was marked is not plain text.
    """
    results = _chosen(task, where, notes)
    if results is None:
        return None
    kinds = [one.get("type") for one in results]
    if "hypertextlabels" in kinds or "paragraphlabels" in kinds:
        reason = "marks HTML or a dialogue, where offsets are not into the text"
        raise DataError(where, f"{reason}; only tasks of the tag Text are read")
    return _values(results, "labels", where, control)


def choices(task: Values, where: str, control: str | None, notes: Notes) -> list[str] | None:
    """Returns what was chosen for the whole text of a task; None if nothing was.

    Raises:
        DataError: There are several controls.
    """
    results = _chosen(task, where, notes)
    if results is None:
        return None
    lists = [one.get("choices") for one in _values(results, "choices", where, control)]
    if not all(isinstance(one, list) for one in lists):
        raise DataError(where, f"choices must be lists, not {lists!r:.60}")
    found = [choice for one in lists for choice in one or ()]
    if not found:
        notes.add("texts skipped, which have no annotation", where)
    return found or None


def text_of(data: Values, where: str, key: str | None, pieces: Sequence[str] = ()) -> str:
    """Returns the text of a task's data: under `key`, under `text`, or the only one there.

    Of several, it is the only one that holds all of `pieces`.

    Raises:
        DataError: There is none, or several.
    """
    texts = {name: value for name, value in data.items() if isinstance(value, str)}
    wanted = key or "text"
    if wanted in texts:
        return texts[wanted]
    fitting = [one for one in texts.values() if pieces and all(part in one for part in pieces)]
    found = list(texts.values()) if len(texts) == 1 else fitting
    if key is not None or len(found) != 1:
        named = ", ".join(data) or "nothing"
        raise DataError(where, f"which key of data is the text? There are {named}; set text")
    return found[0]


def _chosen(task: Values, where: str, notes: Notes) -> list[Values] | None:
    """Returns the results of the annotation that counts: the ground truth, else the latest."""
    given = _tables(task.get("annotations", task.get("completions")), where, "annotations")
    live = [one for one in given if not (one.get("was_cancelled") or one.get("skipped"))]
    for _ in range(len(given) - len(live)):
        notes.add("annotations skipped, which the annotator cancelled", where)
    if not live:
        if not given:
            notes.add("texts skipped, which have no annotation", where)
        return None
    truths = [one for one in live if one.get("ground_truth")]
    latest = max(truths or live, key=_changed)
    results = {id(one): _tables(one.get("result"), where, "result") for one in live}
    wanted = results[id(latest)]
    if any(_said(one) != _said(wanted) for one in results.values()):
        kept = "the ground truth" if truths else "the latest"
        notes.add(f"texts whose annotators differ, where {kept} counts", where)
    return wanted


def _tables(value: Any, where: str, name: str) -> list[Values]:
    """Returns a list of objects, none where there is null."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise DataError(where, f"{name} must be a list of objects, not {value!r:.60}")
    return value


def _changed(annotation: Values) -> str:
    return str(annotation.get("updated_at", annotation.get("created_at", "")))


def _said(results: list[Values]) -> set[str]:
    """Returns what an annotator said, to compare."""
    return {
        json.dumps([one.get("from_name"), one["value"]], sort_keys=True)
        for one in results
        if "value" in one
    }


def _values(
    results: list[Values], kind: str, where: str, control: str | None
) -> list[Mapping[str, Any]]:
    """Returns the values of the results of a kind, from one control."""
    fitting = [one for one in results if one.get("type") == kind]
    names = list(dict.fromkeys(str(one.get("from_name")) for one in fitting))
    if control is None and len(names) > 1:
        reason = f"was annotated with several controls: {', '.join(names)}"
        raise DataError(where, f"{reason}; choose one: column = {names[0]!r}")
    chosen = [one for one in fitting if control in (None, one.get("from_name"))]
    return _tables([one.get("value") for one in chosen], where, "values")
