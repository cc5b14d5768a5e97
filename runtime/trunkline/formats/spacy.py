"""spaCy's training data: the nested JSON of version 2, which `docs_to_json` still writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trunkline.errors import DataError
from trunkline.formats.notes import Notes
from trunkline.formats.schemes import as_iob2

Spans = list[Any]  # start, end and label each, as they stand there


def is_document(values: Mapping[str, Any]) -> bool:
    """Tells if a row is a document of paragraphs."""
    return isinstance(values.get("paragraphs"), list)


def paragraphs(
    document: Mapping[str, Any], where: str, notes: Notes
) -> Iterator[tuple[str, Spans]]:
    """Yields the paragraphs of a document with their entities, in code points.

    Raises:
        DataError: It does not fit; names the place.
    """
    for at, paragraph in enumerate(document["paragraphs"]):
        place = f"{where}, paragraph {at + 1}"
        try:
            found = _entities(paragraph, place)
        except (LookupError, TypeError, AttributeError) as error:
            raise DataError(place, f"is not spaCy's JSON: {error!r}") from None
        if found is None:
            notes.add("texts skipped, which have no annotation", place)
        else:
            yield found


def _entities(paragraph: Mapping[str, Any], where: str) -> tuple[str, Spans] | None:
    tokens = [token for sentence in paragraph["sentences"] for token in sentence["tokens"]]
    words = [str(token["orth"]) for token in tokens]
    text = paragraph.get("raw")
    if text is None:
        text = "".join(
            word + one.get("space", " ") for word, one in zip(words, tokens, strict=True)
        )
    if not isinstance(text, str):
        raise DataError(where, f"'raw' must be a text, not {text!r:.60}")
    tags = [token.get("ner", "-") for token in tokens]
    is_open = "-" in tags  # spaCy's sign of a token that nobody has looked at
    if "entities" in paragraph and not (is_open and tags and "ner" in tokens[0]):
        return text, paragraph["entities"]
    if is_open or not tags:
        return None
    return text, _joined(_places(text, words, where), as_iob2(tags))


def _places(text: str, words: list[str], where: str) -> list[tuple[int, int]]:
    places = []
    position = 0
    for word in words:
        start = text.find(word, position)
        if start < 0:
            raise DataError(where, f"token {word!r} does not stand in the text")
        position = start + len(word)
        places.append((start, position))
    return places


def _joined(places: list[tuple[int, int]], tags: list[str]) -> Spans:
    spans: Spans = []
    for (start, end), tag in zip(places, tags, strict=True):
        if tag.startswith("B-"):
            spans.append((start, end, tag[2:]))
        elif tag.startswith("I-"):
            spans[-1] = (spans[-1][0], end, tag[2:])
    return spans
