"""Reads rows of annotated text: one JSON object of any dialect to texts with spans.

    {"text": ..., "label": [[0, 3, "ORG"]]}                                  doccano
    {"text": ..., "entities": [{"start_offset": 0, "end_offset": 3, "label": "ORG"}]}   doccano
    {"text": ..., "spans": [{"start": 0, "end": 3, "label": "ORG"}], "answer": ...}     Prodigy
    ["...", {"entities": [[0, 3, "ORG"]]}], {"text": ..., "ents": [...]}     spaCy
    {"id": ..., "paragraphs": [{"raw": ..., "sentences": [...]}]}            spaCy 2
    {"data": {"text": ...}, "annotations": [{"result": [...]}]}              Label Studio
    {"text": ..., "label": [{"start": 0, "end": 3, "labels": ["ORG"]}]}      Label Studio, JSON-MIN

doccano's editor counts offsets in UTF-16 units (doccano/doccano#2290), all others in code points;
so did Label Studio before 2022, which shows where a region brings its own text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from trunkline.errors import DataError
from trunkline.formats import label_studio, spacy
from trunkline.formats.marked import Mark, Marked, Overlaps, longest, overlapping
from trunkline.formats.notes import Notes
from trunkline.offsets import OffsetMap, OffsetUnit

SPAN_KEYS = ("spans", "entities", "ents", "label", "labels")
_BOUNDS = (("start", "end"), ("start_offset", "end_offset"))
SKIPPED_ANSWERS = {"reject": "rejected", "ignore": "ignored"}


@dataclass(frozen=True)
class Reading:
    """How rows are read.

    Attributes:
        text: Key of the text; None for `text`, or the only one in a task of Label Studio.
        spans: Key of the spans, or the control tag of Label Studio; None finds it.
        unit: What offsets count; None for what the format's own tool counts.
        overlaps: What becomes of spans that overlap.
    """

    text: str | None = None
    spans: str | None = None
    unit: OffsetUnit | None = None
    overlaps: Overlaps = "error"


class Raw(NamedTuple):
    """A span as it stands in a file; `text` is what it says to cover, if it does."""

    start: int
    end: int
    label: str
    text: str | None = None


class _Found(NamedTuple):
    """A text and its spans, before offsets are looked at."""

    text: str
    spans: list[Raw]
    unit: OffsetUnit


def as_row(value: Any) -> Mapping[str, Any] | None:
    """Returns a JSON value as a row, None if it is none.

    spaCy's pair gets its text as `text`, and the groups of spans in a `Doc` become keys.
    """
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str):  # noqa: PLR2004
        return {"text": value[0], **value[1]} if isinstance(value[1], dict) else None
    if not isinstance(value, dict):
        return None
    groups = value.get("spans")
    if not isinstance(groups, dict) or "tokens" not in value or "text" not in value:
        return value
    return {**value, "spans": None, **groups}


def holds_text(values: Mapping[Any, Any], key: str | None) -> bool:
    """Tells if a row is a text that may have spans, not a list of words."""
    nested = (label_studio.is_task, label_studio.is_minimal, spacy.is_document)
    return any(fits(values) for fits in nested) or isinstance(values.get(key or "text"), str)


def read_row(values: Mapping[str, Any], where: str, how: Reading, notes: Notes) -> Iterator[Marked]:
    """Yields the texts of a row with their spans; what is left out is noted.

    Raises:
        DataError: The row does not fit its format; names the place.
    """
    for found in _found(values, where, how, notes):
        yield _checked(found, where, how, notes)


def _found(values: Mapping[str, Any], where: str, how: Reading, notes: Notes) -> Iterable[_Found]:
    if label_studio.is_task(values):
        return _task(values, where, how, notes)
    if spacy.is_document(values):
        pairs = spacy.paragraphs(values, where, notes)
        return [
            _Found(
                text,
                [raw for one in _listed(spans, where) for raw in _raws(one, where, notes)],
                _POINTS,
            )
            for text, spans in pairs
        ]
    return _flat(values, where, how, notes)


def _task(values: Mapping[str, Any], where: str, how: Reading, notes: Notes) -> Iterator[_Found]:
    regions = label_studio.regions(values, where, how.spans, notes)
    if regions is not None:
        raws = [raw for region in regions for raw in _raws(region, where, notes)]
        pieces = [raw.text for raw in raws if raw.text]
        yield _Found(label_studio.text_of(values["data"], where, how.text, pieces), raws, _POINTS)


def _flat(values: Mapping[str, Any], where: str, how: Reading, notes: Notes) -> Iterator[_Found]:
    answer = values.get("answer")
    if isinstance(answer, str) and answer in SKIPPED_ANSWERS:
        notes.add(f"texts skipped, which the annotator {SKIPPED_ANSWERS[answer]}", where)
        return
    key = how.spans or span_key(values)
    given = values.get(key or "")
    minimal = label_studio.is_minimal(values)
    if given is None and minimal:
        given = []
    if given is None:
        notes.add(f"texts skipped, which have no {how.spans or 'spans'!r}", where)
        return
    raws = [raw for one in _listed(given, where) for raw in _raws(one, where, notes)]
    pieces = [raw.text for raw in raws if raw.text]
    text = (
        label_studio.text_of(values, where, how.text, pieces)
        if minimal
        else _text(values, where, how.text)
    )
    yield _Found(text, raws, _usual_unit(key, given, values))


def _text(
    values: Mapping[str, Any], where: str, key: str | None, pieces: Sequence[str] = ()
) -> str:
    text = values.get(key or "text")
    if not isinstance(text, str):
        raise DataError(where, f"{key or 'text'!r} must be a text, not {text!r:.60}")
    return text


def span_key(values: Mapping[str, Any]) -> str | None:
    """Returns the key of a row that holds spans; None if there is none."""
    known = [key for key in SPAN_KEYS if isinstance(values.get(key), list | Mapping)]
    filled = [key for key in known if _are_spans(values[key])]
    regions = [key for key, value in values.items() if label_studio.are_regions(value)]
    return next(iter((*filled, *regions, *known)), None)


def _are_spans(value: Any) -> bool:
    first = value[0] if isinstance(value, list) and value else None
    bounds = isinstance(first, Mapping) and any(pair[0] in first for pair in _BOUNDS)
    return bounds or (isinstance(first, list | tuple) and len(first) >= 3)  # noqa: PLR2004


def _usual_unit(key: str | None, given: Any, values: Mapping[str, Any]) -> OffsetUnit:
    """Returns what the tool counts in that writes spans like these."""
    first = given[0] if isinstance(given, list) and given else None
    doccano = isinstance(first, Mapping) and "start_offset" in first
    doccano |= isinstance(first, list) and key in ("label", "labels")
    doccano |= key == "entities" and isinstance(values.get("cats"), list)
    return OffsetUnit.UTF16_UNIT if doccano else _POINTS


_POINTS = OffsetUnit.CODE_POINT


def _listed(given: Any, where: str) -> Sequence[Any]:
    """Returns spans as a list; a table of lists, as `datasets` makes of them, is turned."""
    if isinstance(given, Mapping) and all(isinstance(one, list) for one in given.values()):
        return [dict(zip(given, row, strict=True)) for row in zip(*given.values(), strict=True)]
    if not isinstance(given, list | tuple):
        raise DataError(where, f"spans must be a list, not {given!r:.60}")
    return given


def _raws(one: Any, where: str, notes: Notes) -> Iterator[Raw]:
    """Yields a span, or one for each of its labels."""
    if isinstance(one, Mapping):
        bounds = next(([one[a], one[b]] for a, b in _BOUNDS if a in one and b in one), None)
        labels = one.get("labels", one.get("label"))
        text = one.get("text")
    else:
        bounds = list(one[:2]) if isinstance(one, list | tuple) and len(one) >= 3 else None  # noqa: PLR2004
        labels, text = (one[2], None) if bounds else (None, None)
    if bounds is None or not all(map(_is_whole, bounds)):
        reason = f"span {one!r:.80} has no whole numbers for start and end"
        raise DataError(where, reason)
    if isinstance(labels, list) and not labels:
        notes.add("spans skipped, which have no label", f"{where}, {bounds[0]}-{bounds[1]}")
    for label in labels if isinstance(labels, list) else [labels]:
        if not isinstance(label, str | int) or isinstance(label, bool) or label == "":
            raise DataError(where, f"span {one!r:.80} has {label!r} for a label")
        yield Raw(
            int(bounds[0]), int(bounds[1]), str(label), text if isinstance(text, str) else None
        )


def _is_whole(value: object) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole or (isinstance(value, float) and value.is_integer())


def _checked(found: _Found, where: str, how: Reading, notes: Notes) -> Marked:
    """Returns a text with spans in code points, in order, checked against it."""
    text = found.text
    try:
        text.encode()
    except UnicodeEncodeError:
        reason = "is not valid Unicode (it holds lone surrogates); mend the text"
        raise DataError(where, reason) from None
    offsets = OffsetMap(text, _unit(found, where, how, notes))
    marks: list[Mark] = []
    for raw in found.spans:
        start, end = offsets.back(raw.start), offsets.back(raw.end)
        place = f"{where}, {raw.start}-{raw.end} {raw.label}"
        if start is None or end is None or start > end:
            notes.fault(f"spans out of their text, or inside a character; {_MEND_OFFSETS}", place)
        elif not text[start:end].strip():
            notes.add("spans skipped, which are empty", place)
        elif not _fits(raw.text, text[start:end]):
            notes.fault(
                f"spans that cover another text than they say; {_MEND_OFFSETS}",
                f"{place}: {text[start:end]!r:.40}, not {raw.text!r:.40}",
            )
        else:
            marks.append(_trimmed(text, start, end, raw.label))
    spans = _resolved(tuple(sorted(dict.fromkeys(marks))), where, how, notes)
    notes.read(text, spans, where)
    return Marked(text, spans, where)


_MEND_OFFSETS = "mend them, or say what they count with offsets"


def _unit(found: _Found, where: str, how: Reading, notes: Notes) -> OffsetUnit:
    """Returns what the offsets of a text count."""
    if found.text.isascii() or max(found.text) <= "\uffff":
        return how.unit or found.unit
    if how.unit is not None:
        return how.unit
    units = (found.unit, OffsetUnit.UTF16_UNIT)
    unit = next((one for one in units if _all_fit(found, one)), found.unit)
    if unit is OffsetUnit.UTF16_UNIT:
        reason = "texts with characters beyond U+FFFF, whose offsets were read as UTF-16 units"
        notes.add(f"{reason}; if they are none, set offsets to 'code-point'", where)
    return unit


def _all_fit(found: _Found, unit: OffsetUnit) -> bool:
    offsets = OffsetMap(found.text, unit)
    for raw in found.spans:
        start, end = offsets.back(raw.start), offsets.back(raw.end)
        covered = "" if start is None or end is None else found.text[start:end]
        if raw.text and _plain(raw.text) != _plain(covered):
            return False
    return True


def _fits(said: str | None, covered: str) -> bool:
    """Tells if a span covers the text it says.

    Where Label Studio takes whole words, it says only what was dragged over.
    """
    return said is None or _plain(said) in _plain(covered)


def _plain(text: str) -> str:
    """Returns a text without what tools do to white space; Label Studio escapes line ends."""
    return " ".join(text.replace("\\n", "\n").split())


def _trimmed(text: str, start: int, end: int, label: str) -> Mark:
    piece = text[start:end]
    start = end - len(piece.lstrip())
    return Mark(start, start + len(piece.strip()), label)


def _resolved(spans: tuple[Mark, ...], where: str, how: Reading, notes: Notes) -> tuple[Mark, ...]:
    pairs = overlapping(spans) if how.overlaps != "keep" else []
    for one, other in pairs:
        place = f"{where}, {_shown(one)} and {_shown(other)}"
        if how.overlaps == "error":
            notes.fault(
                "spans that overlap; mend them, or keep the longest: overlaps = 'longest'", place
            )
        else:
            notes.add("spans that overlap, of which the longest stays", place)
    return longest(spans) if pairs else spans


def _shown(mark: Mark) -> str:
    return f"{mark.start}-{mark.end} {mark.label}"
