"""Token classification: converts records of tokens and labels, or of texts with spans."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from trunkline.decode.spans import OUTSIDE
from trunkline.errors import DataError
from trunkline.formats.marked import Marked
from trunkline.formats.notes import Notes
from trunkline.formats.rows import Reading, holds_text, read_row
from trunkline.formats.schemes import PREFIXES, as_iob2
from trunkline.formats.words import iob2_tags, plain_words
from trunkline.offsets import OffsetUnit
from trunkline.tasks import TokenOptions
from trunkline_train.config import Column, TaskConfig
from trunkline_train.data.columns import read_columns, read_conllu
from trunkline_train.data.documents import read_docbin, read_json
from trunkline_train.data.examples import TokenExample, token_example
from trunkline_train.data.reader import OTHER, Format, Reader, amount, counted
from trunkline_train.data.records import Record
from trunkline_train.data.tables import read_jsonl, read_parquet

_TAG = re.compile(rf"O|[{PREFIXES}]-.+")
_SPANS = "spans"
# (words or text, labels) columns of tables, CoNLL-U, CoNLL columns, and texts with spans.
_LAYOUTS: tuple[tuple[Column, Column], ...] = (
    ("tokens", "ner_tags"),
    ("form", "upos"),
    (0, -1),
    ("text", _SPANS),
)


class TokenReader(Reader):
    """Reads lists of tokens and labels, or texts with spans; span tags become IOB2."""

    formats: ClassVar[Mapping[str, Format]] = {
        ".conllu": read_conllu,
        ".json": read_json,
        ".jsonl": read_jsonl,
        ".parquet": read_parquet,
        ".spacy": read_docbin,
        ".tsv": read_columns,
        OTHER: read_columns,
    }

    def __init__(self, task: TaskConfig) -> None:
        super().__init__(task)
        self._spans = task.decode_options() == TokenOptions("spans")
        self._seen: dict[object, str] = {}  # cache: values in the data to tags

    def unpack(self, record: Record, notes: Notes) -> Iterable[Record]:
        """Converts texts with spans to `marked` records; returns lists of tokens as is."""
        if not self._holds_text(record):
            return (record,)
        marked = read_row(record.values, record.where, self.reading(), notes)  # type: ignore[arg-type]
        return (
            Record({"text": one.text, _SPANS: one.spans}, one.where, marked=one) for one in marked
        )

    def _holds_text(self, record: Record) -> bool:
        values = record.values
        words = values.get(self.task.texts[0] if self.task.texts else "tokens")
        listed = isinstance(words, list) and words and not isinstance(words[0], dict)
        return not listed and holds_text(values, self._text_key())

    def _text_key(self) -> str | None:
        return str(self.task.texts[0]) if self.task.texts else None

    def reading(self) -> Reading:
        """Returns the settings for reading rows of texts with spans."""
        spans = None if self.task.column is None else str(self.task.column)
        unit = None if self.task.offsets is None else OffsetUnit(self.task.offsets)
        return Reading(self._text_key(), spans, unit, self.task.overlaps)

    def summary(self, record: Record, examples: Sequence[TokenExample]) -> str:
        """Describes a source: the number of texts and words, their columns and their labels."""
        words = amount(sum(len(example.words) for example in examples), "word")
        text = self.task.texts[0] if self.task.texts else _layout(record)[0]
        count = amount(len(examples), "sentence" if record.marked is None else "text")
        columns = f"text = {text}, labels = {self.column(record)}"
        return f"{count}, {words}, {columns} ({self._labels(examples)})"

    def _labels(self, examples: Sequence[TokenExample]) -> str:
        tags = [tag for example in examples for tag in example.tags]
        if not self._spans:
            return counted(tags, "tag")
        kinds = [tag[2:] for tag in tags if tag.startswith("B-")]
        types = counted(kinds, "type") if kinds else "every word is O"
        return f"{amount(len(kinds), 'span')}, {types}"

    def column(self, record: Record) -> Column:
        """Returns the configured label column, or the default of the layout."""
        if record.marked is not None:
            return _SPANS
        return _layout(record)[1] if self.task.column is None else self.task.column

    def example(self, record: Record) -> TokenExample | None:
        """Converts a record to an example: words joined with blanks, or the original text."""
        if record.marked is not None:
            return self._marked(record.marked)
        words = record.get(self.task.texts[0] if self.task.texts else _layout(record)[0])
        values = record.get(self.column(record))
        if not isinstance(words, list) or not isinstance(values, list):
            raise DataError(record.where, "tokens and labels must be lists")
        if len(words) != len(values):
            reason = f"has {len(words)} tokens but {len(values)} labels; they must match"
            raise DataError(record.where, reason)
        tags = self._tags(values, record)
        kept = [at for at, word in enumerate(words) if self._is_visible(word, tags[at], record, at)]
        if not kept:
            return None
        lines = tuple(record.lines[at] for at in kept) if record.lines else ()
        visible = [words[at].strip() for at in kept]
        return token_example(visible, [tags[at] for at in kept], record.where, lines)

    def _is_visible(self, word: object, tag: str, record: Record, at: int) -> bool:
        """Returns whether a word is more than white space; some tokenizers emit blank words."""
        if not isinstance(word, str):
            raise DataError(record.place(at), f"token {word!r} is not a text")
        if not word.strip() and (not self._spans or tag.startswith("B-")):
            raise DataError(record.place(at), f"token {word!r} has no visible text, but a label")
        return bool(word.strip())

    def _marked(self, marked: Marked) -> TokenExample | None:
        """Converts a text with spans, splitting it into plain words for scoring."""
        if not self._spans:
            reason = "has spans, and not a tag for every word; set options.aggregation to 'spans'"
            raise DataError(marked.where, reason)
        named = [mark._replace(label=self.label(mark.label, marked.where)) for mark in marked.spans]
        spans = [mark for mark in named if mark.label != OUTSIDE]
        words = plain_words(marked.text, spans)
        tags = iob2_tags(words, spans)
        if not words:
            return None
        return TokenExample(marked.text, tuple(words), tuple(tags), marked.where, split=False)

    def _tags(self, values: list[object], record: Record) -> list[str]:
        for at, value in enumerate(values):
            if not isinstance(value, str) or value not in self._seen:
                self._seen[str(value)] = self._tag(value, record, at)
        tags = [self._seen[str(value)] for value in values]
        return [self._renamed(tag) for tag in as_iob2(tags)] if self._spans else tags

    def _renamed(self, tag: str) -> str:
        """Applies `label_names` to the type of a tag; the name O removes the span.

        Tags are IOB2 by now, so adjacent spans whose types get the same name stay apart.
        """
        prefix, _, kind = tag.partition("-")
        name = self.named(kind) if kind else OUTSIDE
        return name if name == OUTSIDE else f"{prefix}-{name}"

    def _tag(self, value: object, record: Record, at: int) -> str:
        tag = self.label(value, record.place(at))
        if self._spans and not _TAG.fullmatch(tag):
            reason = f"label {tag!r} is not IOB (O, B-TYPE or I-TYPE), BILOU or BIOES"
            mend = "choose another column, or set options.aggregation to 'tags'"
            raise DataError(record.place(at), f"{reason}; {mend}")
        return tag

    def place(self, example: TokenExample, label: str) -> str:
        """Returns the location of the first word with a label, for errors."""
        words = (at for at, tag in enumerate(example.tags) if tag == label)
        return next(map(example.place, words), example.where)

    def fault(self, examples: Sequence[TokenExample], labels: Sequence[str]) -> str:
        """Returns why there is nothing to learn: no spans, or one tag on all words."""
        if len(labels) > (0 if self._spans else 1):
            return ""
        reason = f"every word has the label {labels[0] if labels else OUTSIDE!r}"
        column = "" if self.task.column is None else f" other than {self.task.column!r}"
        mend = f"there is nothing to learn; label some, or set a column{column}"
        return f"{reason}: {mend}"

    def uses(self, example: TokenExample) -> Iterable[str]:
        """Returns the B- tag of each labelled word's type, or all tags if not reading spans."""
        if not self._spans:
            return example.tags
        return [f"B-{tag[2:]}" for tag in example.tags if tag != OUTSIDE]

    def logits(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Returns O and the B- and I- tags of each type; plain tags and lists with O as is."""
        if not self._spans or OUTSIDE in labels:
            return tuple(labels)
        types = [label.removeprefix("B-") for label in labels]
        return (OUTSIDE, *(f"{prefix}-{kind}" for kind in types for prefix in "BI"))

    def needs_examples(self, label: str) -> bool:
        """Exempts I- tags, which one-word spans do not use."""
        return not self._spans or label.startswith("B-")


def _layout(record: Record) -> tuple[Column, Column]:
    return next((layout for layout in _LAYOUTS if layout[0] in record.values), _LAYOUTS[0])
