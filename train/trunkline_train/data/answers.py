"""Reads questions with answers: SQuAD JSON (v1.1, v2.0), JSON lines, and the hub's layout."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trunkline.errors import DataError
from trunkline_train.config import TaskConfig
from trunkline_train.data.examples import AnswerExample
from trunkline_train.data.files import read_lines, read_text


def read_answer_file(path: Path, task: TaskConfig) -> Iterator[AnswerExample]:
    """Yields the questions of a SQuAD file: nested JSON, or `.jsonl` in the hub's flat layout.

    Raises:
        DataError: It does not fit, or an answer does not stand where it is said to.
    """
    if ".jsonl" in path.suffixes:
        for number, line in read_lines(path):
            if line.strip():
                yield _flat(_loads(line, path, number), path, f"{path}:{number}")
        return
    data = _loads(read_text(path), path, None)
    try:
        for article in data["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    yield _nested(paragraph["context"], question, path)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(path, f"is not SQuAD JSON: {error!r}; see docs/data.md") from None


def read_answer_hub(rows: Iterable[Any], name: str, task: TaskConfig) -> Iterator[AnswerExample]:
    """Yields the questions of a hub data set in the layout of `rajpurkar/squad`.

    Raises:
        DataError: It does not fit, or an answer does not stand where it is said to.
    """
    for index, row in enumerate(rows):
        yield _flat(row, name, f"{name} row {index}")


def _loads(text: str, path: Path, line: int | None) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(path, f"is not JSON: {error}", line) from None


def _nested(context: str, question: Mapping[str, Any], path: Path) -> AnswerExample:
    answers = [] if question.get("is_impossible") else question["answers"]
    return _checked(
        AnswerExample(
            id=str(question["id"]),
            question=question["question"].strip(),
            context=context,
            answers=tuple(answer["text"] for answer in answers),
            starts=tuple(answer["answer_start"] for answer in answers),
            where=f"{path} question {question['id']}",
        ),
        path,
    )


def _flat(row: Mapping[str, Any], path: Path | str, where: str) -> AnswerExample:
    try:
        example = AnswerExample(
            id=str(row["id"]),
            question=row["question"].strip(),
            context=row["context"],
            answers=tuple(row["answers"]["text"]),
            starts=tuple(row["answers"]["answer_start"]),
            where=where,
        )
        return _checked(example, path)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            path, f"{where} lacks id, question, context or answers: {error!r}"
        ) from None


def _checked(example: AnswerExample, path: Path | str) -> AnswerExample:
    for answer, start in zip(example.answers, example.starts, strict=True):
        found = example.context[start : start + len(answer)]
        if start < 0 or found != answer or not answer:
            reason = f"answer_start {start} gives {found!r}, not the answer {answer!r}"
            raise DataError(path, f"question {example.id}: {reason}")
    if not example.question:
        raise DataError(path, f"question {example.id} is empty")
    return example
