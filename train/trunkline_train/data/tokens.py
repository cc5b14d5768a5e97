"""Reads token labels: CoNLL columns from files, `tokens` and label features from the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trunkline.errors import DataError
from trunkline.scoring.entities import to_iob2
from trunkline_train.config import TaskConfig
from trunkline_train.data.examples import TokenExample, token_example
from trunkline_train.data.files import read_lines

_DOCUMENT = "-DOCSTART-"
_SPAN_TAG = re.compile(r"O|[BI]-.+")


def read_token_file(path: Path, task: TaskConfig) -> Iterator[TokenExample]:
    """Yields the sentences of a CoNLL column file.

    One token a line, columns apart by blanks or tabs, sentences by empty lines; `-DOCSTART-` lines
    are skipped. IOB1 and IOB2 are read; IOB2 comes out.

    Raises:
        DataError: A line has another number of columns, or a label that is none; names it.
    """
    column = -1 if task.column is None else task.column
    if isinstance(column, str):
        raise DataError(path, f"column {column!r}: give a number for files, e.g. -1 for the last")
    words: list[str] = []
    tags: list[str] = []
    first = width = 0
    for number, line in read_lines(path):
        fields = line.split("\t") if "\t" in line else line.split()
        if not line.strip():
            if words:
                yield token_example(words, _checked(tags, task, path, first), f"{path}:{first}")
            words, tags = [], []
            continue
        if fields[0] == _DOCUMENT:
            continue
        width = width or len(fields)
        if len(fields) != width:
            reason = f"has {len(fields)} columns, the lines before have {width}"
            raise DataError(path, reason, number)
        if not -width <= column < width or width == 1:
            raise DataError(path, f"has {width} columns, there is no label column {column}", number)
        first = first if words else number
        words.append(fields[0])
        tags.append(fields[column])
    if words:
        yield token_example(words, _checked(tags, task, path, first), f"{path}:{first}")


def read_token_hub(rows: Any, name: str, task: TaskConfig) -> Iterator[TokenExample]:
    """Yields the sentences of a hub data set with a `tokens` feature and a label feature.

    Args:
        rows: A `datasets.Dataset`.
        name: Its name, for errors.
        task: `column` names the label feature; `ner_tags` by default.

    Raises:
        DataError: A feature is missing or does not fit.
    """
    column = task.column or "ner_tags"
    for feature in ("tokens", column):
        if feature not in rows.features:
            known = ", ".join(rows.features)
            raise DataError(name, f"has no feature {feature!r}; it has {known}: set column")
    inner = getattr(rows.features[column], "feature", None)
    names = getattr(inner, "names", None)
    for index, row in enumerate(rows):
        if len(row["tokens"]) != len(row[column]):
            raise DataError(name, f"row {index} has unequal numbers of tokens and labels")
        tags = [names[tag] if names else str(tag) for tag in row[column]]
        if row["tokens"]:
            where = f"{name} row {index}"
            yield token_example(row["tokens"], _checked(tags, task, name, index), where)


def collect_labels(examples: Sequence[TokenExample], task: TaskConfig) -> tuple[str, ...]:
    """Returns the label set of training data: O and B-/I- of each type, or the tags, sorted."""
    seen = {tag for example in examples for tag in example.tags}
    if not _spans(task):
        return tuple(sorted(seen))
    types = sorted({tag[2:] for tag in seen if tag != "O"})
    return ("O", *(f"{prefix}-{label}" for label in types for prefix in "BI"))


def _checked(tags: list[str], task: TaskConfig, path: Path | str, line: int) -> list[str]:
    if not _spans(task):
        return tags
    for offset, tag in enumerate(tags):
        if not _SPAN_TAG.fullmatch(tag):
            reason = f"label {tag!r} is not IOB (O, B-TYPE or I-TYPE)"
            mend = "choose another column, or set options.aggregation to 'tags'"
            raise DataError(path, f"{reason}; {mend}", line + offset)
    return to_iob2(tags)


def _spans(task: TaskConfig) -> bool:
    return getattr(task.decode_options(), "aggregation", "") == "spans"
