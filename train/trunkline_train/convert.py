"""The command `trunkline convert`: converts annotated texts between tools' formats."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from trunkline.errors import DataError
from trunkline.files import replaced_file
from trunkline.formats.marked import Marked, Overlaps, overlapping
from trunkline.formats.notes import Notes
from trunkline.formats.rows import Reading
from trunkline.formats.words import plain_words
from trunkline.formats.writers import FORMATS, written
from trunkline.offsets import OffsetUnit
from trunkline_train.config import Column, TaskConfig
from trunkline_train.data.records import Record
from trunkline_train.data.source import read_records
from trunkline_train.data.tokens import TokenReader

_STDOUT = "-"
_DOCBIN = ".spacy"
_MEND = "take --overlaps longest, or another format"


def convert(argv: Sequence[str]) -> int:
    """Runs `trunkline convert`."""
    options = _parser().parse_args(argv)
    out = options.output
    if out != _STDOUT and Path(out).exists():
        raise DataError(out, "exists; give another name, or delete it first")
    notes = Notes(options.input)
    # Read everything before writing anything, since even the last line may be invalid.
    texts = list(_read(options, notes))
    notes.check()
    if not texts:
        raise DataError(options.input, "; ".join(["holds no annotated texts", *notes.reasons()]))
    texts = [one for one in texts if _can_be_written(one, options.to, notes)]
    _write(texts, options.to, out)
    for line in notes.lines():
        print(line, file=sys.stderr)
    spans = sum(len(one.spans) for one in texts)
    print(f"{options.input}: {len(texts):,} texts with {spans:,} spans to {out}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "trunkline convert", description="Convert texts with labelled spans between formats."
    )
    parser.add_argument("input", help="its suffix and keys tell the format, see docs/data.md")
    parser.add_argument("output", help="a new file, or - for standard output")
    parser.add_argument("--to", choices=FORMATS, required=True, help="format of the output")
    parser.add_argument("--text", metavar="KEY", help="key or column of the text, or of the words")
    parser.add_argument(
        "--column", metavar="KEY", help="key or column of the spans, or of the tags"
    )
    parser.add_argument(
        "--offsets",
        choices=[unit.value for unit in OffsetUnit],
        help="what the input's offsets count; default what its tool counts",
    )
    parser.add_argument(
        "--overlaps",
        choices=("keep", "longest", "error"),
        default="keep",
        help="what becomes of spans that overlap; columns cannot keep them",
    )
    return parser


class _AllSpans(TokenReader):
    """Reads texts with spans, which may overlap.

    Args:
        task: The source and its columns.
        overlaps: How to handle overlapping spans.
    """

    def __init__(self, task: TaskConfig, overlaps: Overlaps) -> None:
        super().__init__(task)
        self._overlaps = overlaps

    def reading(self) -> Reading:
        """Returns the settings for reading rows, with `overlaps` replaced."""
        return replace(super().reading(), overlaps=self._overlaps)


def _read(options: argparse.Namespace, notes: Notes) -> Iterator[Marked]:
    task = TaskConfig(
        "token-classification",
        options.input,
        column=_column(options.column),
        text=() if options.text is None else (_column(options.text),),  # type: ignore[arg-type]
        offsets=options.offsets,
    )
    reader = _AllSpans(task, options.overlaps)
    for record in read_records(options.input, reader, notes):
        yield _marked(record, reader)


def _column(name: str | None) -> Column | None:
    """Parses a column given by name or number."""
    is_number = name is not None and name.removeprefix("-").isdecimal()
    return int(name) if name is not None and is_number else name


def _marked(record: Record, reader: TokenReader) -> Marked:
    if record.marked is not None:
        return record.marked
    example = reader.example(record)
    if example is None:
        return Marked("", (), record.where)
    return Marked(example.text, tuple(example.spans), example.where, example.words)


def _can_be_written(marked: Marked, form: str, notes: Notes) -> bool:
    if form == "conll" and overlapping(marked.spans):
        raise DataError(marked.where, f"spans overlap, which columns cannot say; {_MEND}")
    if form != "conll" or plain_words(marked.text):
        return True
    notes.add("texts left out, which hold no words for columns", marked.where)
    return False


def _write(texts: Sequence[Marked], form: str, out: str) -> None:
    if out == _STDOUT:
        for line in written(texts, form):
            print(line)
        return
    with replaced_file(Path(out)) as aside:
        if form == "spacy" and Path(out).suffix == _DOCBIN:
            aside.write_bytes(_docbin(texts, out))
        else:
            lines = (f"{line}\n" for line in written(texts, form))
            with aside.open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(lines)


def _docbin(texts: Sequence[Marked], out: str) -> bytes:
    """Returns texts as a spaCy `DocBin`; its tokens are `plain_words`, so spans match token bounds.

    Raises:
        DataError: spaCy is not installed, or spans overlap.
    """
    try:
        tokens, spacy = import_module("spacy.tokens"), import_module("spacy")
    except ImportError:
        reason = "is written by spaCy, which is not installed; pip install spacy, or give .jsonl"
        raise DataError(out, reason) from None
    nlp = spacy.blank("xx")
    packed = tokens.DocBin()
    for marked in texts:
        if overlapping(marked.spans):
            raise DataError(marked.where, f"spans overlap, which {_DOCBIN} cannot say; {_MEND}")
        packed.add(_doc(marked, nlp.vocab, tokens))
    return bytes(packed.to_bytes())


def _doc(marked: Marked, vocab: Any, tokens: Any) -> Any:
    """Converts a text to a spaCy `Doc`; white space other than a single blank becomes tokens."""
    words: list[str] = []
    spaces: list[bool] = []
    end = 0
    for start, stop in plain_words(marked.text, marked.spans):
        gap = marked.text[end:start]
        if gap.startswith(" ") and words:
            spaces[-1], gap = True, gap[1:]
        if gap:
            words.append(gap)
            spaces.append(False)
        words.append(marked.text[start:stop])
        spaces.append(False)
        end = stop
    if marked.text[end:]:
        words.append(marked.text[end:])
        spaces.append(False)
    doc = tokens.Doc(vocab, words=words, spaces=spaces)
    doc.set_ents([doc.char_span(mark.start, mark.end, mark.label) for mark in marked.spans])
    return doc
