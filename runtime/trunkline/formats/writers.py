"""Writes texts with spans as annotation tools read them, one line at a time.

    for line in written(texts, "doccano"): print(line)

doccano counts offsets in UTF-16 units, as its editor does; the others in code points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from trunkline.errors import InvalidInput, NotFound
from trunkline.formats.marked import Mark, Marked, overlapping
from trunkline.formats.words import iob2_tags, plain_words
from trunkline.offsets import OffsetMap, OffsetUnit
from trunkline.terminal import json_line


def written(texts: Iterable[Marked], form: str, *, predicted: bool = False) -> Iterator[str]:
    """Yields the lines of a file, without their ends.

    Args:
        texts: With their spans.
        form: One of `FORMATS`.
        predicted: The spans are a model's, for people to check: Label Studio keeps such apart.

    Raises:
        NotFound: There is no such format.
        InvalidInput: A text cannot be written in it.
    """
    if form not in FORMATS:
        raise NotFound("format", form, FORMATS)
    if form == "label-studio":
        return _array(_task(one, predicted) for one in texts)
    return (FORMATS[form](one) for one in texts)


def _doccano(marked: Marked) -> str:
    unit = OffsetMap(marked.text, OffsetUnit.UTF16_UNIT)
    spans = [[unit(mark.start), unit(mark.end), mark.label] for mark in marked.spans]
    return json_line({"text": marked.text, "label": spans})


def _prodigy(marked: Marked) -> str:
    return json_line({"text": marked.text, "spans": [_span(mark) for mark in marked.spans]})


def _span(mark: Mark) -> dict[str, object]:
    span: dict[str, object] = {"start": mark.start, "end": mark.end, "label": mark.label}
    return span if mark.score is None else span | {"score": _rounded(mark.score)}


def _spacy(marked: Marked) -> str:
    spans = [[mark.start, mark.end, mark.label] for mark in marked.spans]
    return json_line([marked.text, {"entities": spans}])


def _conll(marked: Marked) -> str:
    """Returns a sentence: word and tag, apart by a tab, a line each, and an empty line."""
    pairs = overlapping(marked.spans)
    if pairs:
        one, other = pairs[0]
        reason = f"spans {one.start}-{one.end} and {other.start}-{other.end} overlap"
        raise InvalidInput(marked.where or "text", f"{reason}, which columns cannot say")
    words = plain_words(marked.text, marked.spans) if marked.words is None else marked.words
    tags = iob2_tags(words, marked.spans)
    rows = zip(words, tags, strict=True)
    return "".join(f"{_cell(marked.text[a:b])}\t{_cell(tag)}\n" for (a, b), tag in rows)


def _cell(text: str) -> str:
    """Returns a text that neither ends a column nor a line."""
    return " ".join(text.split())


def _task(marked: Marked, predicted: bool) -> str:
    regions = [_region(marked.text, mark, at) for at, mark in enumerate(marked.spans)]
    kept = "predictions" if predicted else "annotations"
    return json_line({"data": {"text": marked.text}, kept: [{"result": regions}]})


def _region(text: str, mark: Mark, at: int) -> dict[str, object]:
    piece = {"start": mark.start, "end": mark.end, "text": text[mark.start : mark.end]}
    region: dict[str, object] = {
        "id": str(at),
        "from_name": "label",
        "to_name": "text",
        "type": "labels",
        "value": {**piece, "labels": [mark.label]},
    }
    return region if mark.score is None else region | {"score": _rounded(mark.score)}


def _array(items: Iterable[str]) -> Iterator[str]:
    """Yields the lines of a JSON array, an item each."""
    yield "["
    for at, item in enumerate(items):
        yield f", {item}" if at else f"  {item}"
    yield "]"


def _rounded(score: float) -> float:
    return round(score, 4)


FORMATS: dict[str, Callable[[Marked], str]] = {
    "doccano": _doccano,
    "prodigy": _prodigy,
    "spacy": _spacy,
    "label-studio": lambda marked: _task(marked, predicted=False),
    "conll": _conll,
    "jsonl": _prodigy,
}
