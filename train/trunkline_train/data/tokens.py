"""Token classification: a record's tokens and labels to an example."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from trunkline.decode.spans import OUTSIDE
from trunkline.errors import DataError
from trunkline.scoring.entities import to_iob2
from trunkline.tasks import TokenOptions
from trunkline_train.config import Column, TaskConfig
from trunkline_train.data.columns import read_columns, read_conllu
from trunkline_train.data.examples import TokenExample, token_example
from trunkline_train.data.reader import OTHER, Format, Reader
from trunkline_train.data.records import Record
from trunkline_train.data.tables import read_jsonl, read_parquet

_TAG = re.compile(r"O|[BI]-.+")
# Where words and labels stand in tables, in CoNLL-U and in CoNLL columns.
_LAYOUTS: tuple[tuple[Column, Column], ...] = (("tokens", "ner_tags"), ("form", "upos"), (0, -1))


class TokenReader(Reader):
    """Reads lists of tokens and of labels; spans come out in IOB2."""

    formats: ClassVar[Mapping[str, Format]] = {
        ".conllu": read_conllu,
        ".jsonl": read_jsonl,
        ".parquet": read_parquet,
        ".tsv": read_columns,
        OTHER: read_columns,
    }

    def __init__(self, task: TaskConfig) -> None:
        super().__init__(task)
        self._spans = task.decode_options() == TokenOptions("spans")
        self._seen: dict[object, str] = {}  # values of the data to tags; there are few

    def column(self, record: Record) -> Column:
        """Returns the column given, or the usual one of the layout."""
        return _layout(record)[1] if self.task.column is None else self.task.column

    def example(self, record: Record) -> TokenExample | None:
        """Returns the sentence, its words joined by blanks."""
        words = record.get(self.task.texts[0] if self.task.texts else _layout(record)[0])
        values = record.get(self.column(record))
        if not isinstance(words, list) or not isinstance(values, list):
            raise DataError(record.where, "tokens and labels must be lists")
        if len(words) != len(values):
            reason = f"has {len(words)} tokens but {len(values)} labels; they must match"
            raise DataError(record.where, reason)
        for at, word in enumerate(words):
            if not isinstance(word, str) or not word.strip():
                raise DataError(record.place(at), f"token {word!r} has no visible text")
        tags = self._tags(values, record)
        return token_example(words, tags, record.where) if words else None

    def _tags(self, values: list[object], record: Record) -> list[str]:
        for at, value in enumerate(values):
            if not isinstance(value, str) or value not in self._seen:
                self._seen[str(value)] = self._tag(value, record, at)
        tags = [self._seen[str(value)] for value in values]
        return to_iob2(tags) if self._spans else tags

    def _tag(self, value: object, record: Record, at: int) -> str:
        tag = self.label(value, record.place(at))
        if self._spans and not _TAG.fullmatch(tag):
            reason = f"label {tag!r} is not IOB (O, B-TYPE or I-TYPE)"
            mend = "choose another column, or set options.aggregation to 'tags'"
            raise DataError(record.place(at), f"{reason}; {mend}")
        prefix, _, kind = tag.partition("-")
        renamed = self._spans and kind in self.task.label_names
        return f"{prefix}-{self.task.label_names[kind]}" if renamed else tag

    def uses(self, example: TokenExample) -> Iterable[str]:
        """Returns `B-` and the type of every span, or all tags."""
        if not self._spans:
            return example.tags
        return [f"B-{tag[2:]}" for tag in example.tags if tag != OUTSIDE]

    def logits(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Returns O and both prefixes of each type; tags, and labels with O, as they are."""
        if not self._spans or OUTSIDE in labels:
            return tuple(labels)
        types = [label.removeprefix("B-") for label in labels]
        return (OUTSIDE, *(f"{prefix}-{kind}" for kind in types for prefix in "BI"))

    def needs_examples(self, label: str) -> bool:
        """Spans of one word each need no I-."""
        return not self._spans or label.startswith("B-")


def _layout(record: Record) -> tuple[Column, Column]:
    return next((layout for layout in _LAYOUTS if layout[0] in record.values), _LAYOUTS[0])
