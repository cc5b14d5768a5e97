"""AG News as one JSON-lines file, whichever way its copies were put together.

The public copies of the training set join title and description each in its own way (a blank, a
full stop, nothing), and keep leftovers of HTML. A model could learn which copy a text is from, and
the copies do not have the same share of each topic: the joins and the leftovers must go.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

TOPICS = {1: "World", 2: "Sports", 3: "Business", 4: "Sci/Tech"}

_ENTITY = re.compile(r"[ &](#\d+|quot|amp|apos|lt|gt|nbsp|ellip|hellip|[lr][sd]quo|[mn]dash);")
_ELEMENT = re.compile(r"</?[A-Za-z][^<>]*>")
_GLUE = re.compile(r"""(?<=[\w.?!:;)"'])(?=["'(]?[A-Z])""")
_WORD = re.compile(r"[A-Za-z0-9]+")
_FULL_STOP_COPY, _GLUED_COPY = "hhf", "zy"


def from_samples(rows: Iterable[str]) -> Iterator[str]:
    """Yields `{"text", "label"}` lines from lines of `{"label", "text", "src"}`.

    Texts whose title and description cannot be told apart are left out.
    """
    items = [json.loads(row) for row in rows]
    known = _known_words(items)
    for item in items:
        text = _joined(item, known)
        if text:
            yield _line(text, item["label"])


def from_table(table: str) -> Iterator[str]:
    """Yields `{"text", "label"}` lines from the CSV `class,title,description`."""
    for label, title, description in csv.reader(io.StringIO(table)):
        yield _line(clean(f"{title} {description}"), int(label))


def clean(text: str) -> str:
    """Returns the text without remains of HTML and of line breaks, words apart by one blank."""
    text = text.replace("\\", " ")
    text = _ENTITY.sub(lambda found: html.unescape(f"&{found[1]};"), f" {text}")
    return " ".join(_ELEMENT.sub("", text).split())


def _line(text: str, label: int) -> str:
    return json.dumps({"text": text, "label": TOPICS[label]}, ensure_ascii=False)


def _known_words(items: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Returns the words of all texts but those that were glued together."""
    apart = (item["text"] for item in items if item["src"][0] != _GLUED_COPY)
    return frozenset(word for text in apart for word in clean(text).split())


def _joined(item: Mapping[str, Any], known: frozenset[str]) -> str | None:
    if item["src"][0] == _FULL_STOP_COPY:
        return clean(item["text"].replace(" . ", " ", 1))
    text = clean(item["text"])
    return _unglued(text, known) if item["src"][0] == _GLUED_COPY else text


def _unglued(text: str, known: frozenset[str]) -> str | None:
    """Returns the text with a blank where two words were glued; None if that place is unclear."""
    words = text.split(" ")
    odd = [at for at, word in enumerate(words) if word not in known and _GLUE.search(word)]
    cuts = [(at, parts) for at in odd for parts in _cuts(words[at], known)]
    if not odd:
        return text
    if len(cuts) != 1:
        return None
    ((at, parts),) = cuts
    return " ".join([*words[:at], *parts, *words[at + 1 :]])


def _cuts(word: str, known: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yields the ways to cut a word into two known ones."""
    for glue in _GLUE.finditer(word):
        parts = word[: glue.start()], word[glue.start() :]
        if all(_is_known(part, known) for part in parts):
            yield parts


def _is_known(part: str, known: frozenset[str]) -> bool:
    core = "".join(_WORD.findall(part))
    return part in known or core in known
