"""Guesses the text and label columns from common column names."""

from __future__ import annotations

import re
from collections.abc import Sequence

LABEL, TEXT, PAIR = "label", "text", "text_pair"
_LABELS = frozenset(
    (
        *("labels", "class", "classes", "category", "categories", "sentiment", "target", "topic"),
        *("topics", "intent", "emotion", "polarity", "genre", "tag", "tags", "v1", "class index"),
        *("class label", "class name", "gold label", "label text", "label name"),
    )
)
_TITLES = frozenset(("title", "headline", "subject"))
_BODIES = frozenset(
    (
        *("texts", "review", "reviews", "body", "sentence", "content", "message", "comment"),
        *("tweet", "document", "description", "query", "question", "utterance", "article"),
        *("abstract", "post", "summary", "sms", "v2", "review text", "review body"),
        *("comment text", "tweet text", "full text", "message text"),
    )
)
# Columns that identify rows are neither text nor label.
_KEYS = re.compile(
    r"(.* )?(id|ids|idx|index|uuid|guid|url|uri|link|date|time|timestamp|author|user|username)"
    r"|unnamed: \d+|file ?name|created at"
)
_APART = re.compile(r"[\s_-]+")


class Unclear(ValueError):
    """The column names are ambiguous or unknown."""


def is_known(name: str) -> bool:
    """Returns whether a name is common for columns of texts or labels."""
    return _plain(name) in {LABEL, TEXT, "text pair", *_LABELS, *_TITLES, *_BODIES}


def label_column(names: Sequence[str], taken: Sequence[str]) -> str | None:
    """Returns the label column, or None if no name indicates one.

    Args:
        names: All column names.
        taken: Columns that hold something else.

    Raises:
        Unclear: Several columns may hold the label.
    """
    free = [name for name in names if name not in taken]
    found = _named(free, {LABEL}) or _named(free, _LABELS)
    if len(found) > 1:
        raise Unclear(f"{' or '.join(found)} may be the label; set column")
    if found:
        return found[0]
    others = [name for name in free if not _is_key(name)]
    return _other(others, _texts(others))


def text_columns(names: Sequence[str], taken: Sequence[str]) -> tuple[str, ...]:
    """Returns the text columns: one column, or a title and a body.

    Args:
        names: All column names.
        taken: Columns that hold something else, such as the label.

    Raises:
        Unclear: No column, or several, may hold the text.
    """
    free = [name for name in names if name not in taken]
    found = _texts(free)
    others = [name for name in free if not _is_key(name)]
    if not found and len(others) == 1:
        return (others[0],)
    if not found:
        raise Unclear("no name tells which column holds the text; set text")
    bodies = [name for name in found if _plain(name) not in _TITLES]
    if len(bodies) > 1 or len(found) > len(bodies) + 1:
        raise Unclear(f"{' or '.join(found)} may be the text; set text")
    return tuple(found)


def _texts(names: Sequence[str]) -> list[str]:
    return _named(names, {TEXT}) or _named(names, _BODIES | _TITLES)


def _other(free: Sequence[str], known: Sequence[str]) -> str | None:
    """Returns the only column not in `known`, if there is exactly one."""
    others = [name for name in free if name not in known]
    return others[0] if known and len(others) == 1 and len(free) == len(known) + 1 else None


def _is_key(name: str) -> bool:
    return _KEYS.fullmatch(_plain(name)) is not None


def _named(names: Sequence[str], known: frozenset[str] | set[str]) -> list[str]:
    return [name for name in names if _plain(name) in known]


def _plain(name: str) -> str:
    return _APART.sub(" ", name.strip()).lower()
