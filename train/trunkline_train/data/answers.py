"""Question answering: reads SQuAD JSON into records and records into examples."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from trunkline.errors import DataError
from trunkline.formats.notes import Notes
from trunkline_train.config import Column, TaskConfig
from trunkline_train.data.examples import AnswerExample
from trunkline_train.data.files import read_text
from trunkline_train.data.reader import Format, Reader, amount
from trunkline_train.data.records import Record
from trunkline_train.data.tables import read_jsonl, read_parquet

_TRUTH = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False, "": False}


def read_squad(path: Path, task: TaskConfig, notes: Notes) -> Iterator[Record]:
    """Yields the questions of a SQuAD JSON file (v1.1 or v2.0) in the hub's flat layout.

    Raises:
        DataError: The file is not SQuAD JSON.
    """
    try:
        data = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"is not JSON: {error}") from None
    try:
        for at, article in enumerate(data["data"]):
            for under, paragraph in enumerate(article["paragraphs"]):
                for number, question in enumerate(paragraph["qas"]):
                    place = f"data[{at}].paragraphs[{under}].qas[{number}]"
                    where = f"{path} question {question.get('id', place)}"
                    yield Record({**question, "context": paragraph["context"]}, where)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(path, f"is not SQuAD JSON: {error!r}; see docs/data.md") from None


class AnswerReader(Reader):
    """Reads questions with a context and answers; `column` names the answers, `text` the context.

    Answers of a question marked `is_impossible` (SQuAD v2) are ignored.
    """

    formats: ClassVar[Mapping[str, Format]] = {
        ".json": read_squad,
        ".jsonl": read_jsonl,
        ".parquet": read_parquet,
    }

    def summary(self, record: Record, examples: Sequence[AnswerExample]) -> str:
        """Describes a source: the number of questions, and of those without an answer."""
        unanswered = sum(not example.answers for example in examples)
        context = self.task.texts[0] if self.task.texts else "context"
        columns = f"context = {context}, answers = {self.column(record)}"
        return f"{amount(len(examples), 'question')}, {columns} ({unanswered:,} without an answer)"

    def column(self, record: Record) -> Column:
        """Returns the configured column, by default `answers`."""
        return "answers" if self.task.column is None else self.task.column

    def is_labelled(self, record: Record) -> bool:
        """Returns whether the question has answers or is marked as impossible."""
        return _is_impossible(record) or super().is_labelled(record)

    def example(self, record: Record) -> AnswerExample:
        """Returns the question after checking that each answer is at its `answer_start`."""
        context = record.get(self.task.texts[0] if self.task.texts else "context")
        question = record.get("question")
        if not isinstance(context, str) or not isinstance(question, str):
            raise DataError(record.where, "question and context must be texts")
        if not question.strip():
            raise DataError(record.where, "the question is empty")
        answers = [] if _is_impossible(record) else record.get(self.column(record))
        texts, starts = _texts_and_starts(answers, record.where)
        for text, start in zip(texts, starts, strict=True):
            found = context[start : start + len(text)]
            if start < 0 or found != text or not text:
                reason = f"answer_start {start} gives {found!r}, not the answer {text!r}"
                raise DataError(record.where, f"{reason}; count characters, from 0")
        name = str(record.values.get("id", record.where))
        return AnswerExample(name, question.strip(), context, texts, starts, record.where)


def _is_impossible(record: Record) -> bool:
    """Returns whether the question is marked as one that the context does not answer.

    Accepts numbers, strings and NaN, which tools that write tables turn booleans into.
    """
    value = record.values.get("is_impossible")
    if value is None or value != value:  # NaN  # noqa: PLR0124
        return False
    known = _TRUTH.get(str(value).strip().lower()) if isinstance(value, str | int | float) else None
    if known is None:
        raise DataError(record.where, f"is_impossible is {value!r}; give true, false or null")
    return known


def _texts_and_starts(answers: Any, where: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Reads answers as a dict of lists (the hub) or a list of dicts (SQuAD JSON)."""
    try:
        if isinstance(answers, Mapping):
            texts, starts = list(answers["text"]), list(answers["answer_start"])
        else:
            texts = [answer["text"] for answer in answers]
            starts = [answer["answer_start"] for answer in answers]
    except (KeyError, TypeError):
        mend = 'give {"text": [...], "answer_start": [...]}, or a list of {"text", "answer_start"}'
        raise DataError(
            where, f"answers need text and answer_start, got {answers!r:.60}; {mend}"
        ) from None
    texts_fit = all(isinstance(text, str) for text in texts)
    starts_fit = all(isinstance(start, int) for start in starts)
    if len(texts) != len(starts) or not texts_fit or not starts_fit:
        raise DataError(where, "answers need one whole number in answer_start for each text")
    return tuple(texts), tuple(starts)
