"""Warnings about readable data that is probably wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from trunkline.formats.notes import Notes
from trunkline_train.data.examples import Example

_BETWEEN_WORDS = re.compile(r"[\s_-]+")


def alike(labels: Iterable[str]) -> Iterator[str]:
    """Yields a line for each group of labels that differ only in case, blanks, `_` or `-`."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        plain = _BETWEEN_WORDS.sub("", label).casefold()
        groups.setdefault(plain or label, []).append(label)
    for group in groups.values():
        if len(group) > 1:
            shown = ", ".join(map(repr, group))
            yield f"labels that may be the same are learned apart: {shown}; label_names joins them"


def trained_on(train: Sequence[Example], dev: Sequence[Example], source: str) -> list[str]:
    """Returns warnings about dev examples that are also in `train` (same text and `beside`).

    Args:
        train: The training examples.
        dev: The dev examples.
        source: Source of the dev examples, for the warnings.
    """
    seen = {(example.document, example.beside) for example in train}
    notes = Notes(source)
    for example in dev:
        if (example.document, example.beside) in seen:
            reason = "dev examples that are also in the training data, which raises the dev score"
            notes.add(reason, example.where)
    return notes.lines()
