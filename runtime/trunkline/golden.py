"""Golden files: documents with the annotations a bundle must give for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trunkline.annotations import DocumentResult
from trunkline.documents import Document, Question
from trunkline.errors import BundleError, InvalidInput, NotFound
from trunkline.pipeline import Pipeline
from trunkline.structure import parse

_SCORE_TOLERANCE = 0.01  # other CPUs sum in another order
_LABEL = {"label", "score"}  # the keys of a label's JSON form


def write_golden(path: Path, results: Sequence[DocumentResult]) -> None:
    """Writes one JSON line per result; the documents stand in the results."""
    lines = (json.dumps(result.to_dict(), ensure_ascii=False) for result in results)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def check_golden(path: Path, pipeline: Pipeline, most: int | None = None) -> int:
    """Analyses the documents of a golden file and returns how many gave what stands there.

    Args:
        path: The file.
        pipeline: Analyses them.
        most: How many are analysed, the first ones; None for all.

    Raises:
        BundleError: A line is no result, an annotation differs, or a score by more than 0.01; names
            the line.
    """
    lines = path.read_text(encoding="utf-8").split("\n")  # other line ends may stand in a text
    given = [(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line][:most]
    expected = [_read(place, line) for place, line in given]
    try:
        results = pipeline.analyze([document for document, _ in expected])
    except (InvalidInput, NotFound) as error:
        raise BundleError(path, f"does not fit the model: {error}", "export it again") from None
    for (place, _), (_, want), got in zip(given, expected, results, strict=True):
        difference = _difference(want, got.to_dict(), "")
        if difference:
            mend = "this machine or onnxruntime computes otherwise than the exporter's: export here"
            raise BundleError(place, f"self-test failed at {difference}", mend)
    return len(expected)


@dataclass(frozen=True)
class _Asked:
    question: str
    task: str
    answers: object
    no_answer_score: object


@dataclass(frozen=True)
class _Line:
    """A result as JSON, as far as the document is to be read off it."""

    text: str
    tasks: dict[str, object]
    questions: tuple[_Asked, ...]
    text_pair: str | None = None


def _read(place: str, text: str) -> tuple[Document, Any]:
    """Returns a line's document, and all of it."""
    try:
        line = json.loads(text)
        read = parse(_Line, line)
    except (ValueError, RecursionError) as error:
        raise BundleError(place, f"is not a result: {error}", "export the bundle again") from None
    questions = tuple(Question(asked.question, asked.task) for asked in read.questions)
    return Document(read.text, questions, tuple(read.tasks), read.text_pair), line


def _difference(want: Any, got: Any, where: str) -> str:
    """Returns where two JSON values differ, or an empty string."""
    if isinstance(want, float) and isinstance(got, float):
        return "" if abs(want - got) <= _SCORE_TOLERANCE else f"{where}: {want} became {got}"
    if isinstance(want, dict) and isinstance(got, dict) and want.keys() == got.keys():
        pairs = [(want[key], got[key], f"{where}.{key}".lstrip(".")) for key in want]
    elif isinstance(want, list) and isinstance(got, list) and len(want) == len(got):
        both = zip(_in_order(want), _in_order(got), strict=True)
        pairs = [(a, b, f"{where}[{at}]") for at, (a, b) in enumerate(both)]
    else:
        return "" if want == got else f"{where}: {want!r} became {got!r}"
    return next((found for a, b, at in pairs if (found := _difference(a, b, at))), "")


def _in_order(items: list[Any]) -> list[Any]:
    """Returns labels by name, other things as they are: labels of near scores may change places."""
    if any(not isinstance(item, dict) or item.keys() != _LABEL for item in items):
        return items
    return sorted(items, key=lambda item: str(item["label"]))
