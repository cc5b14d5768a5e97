"""Golden files: documents with the annotations a bundle must give for them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trunkline.annotations import DocumentResult
from trunkline.documents import Document, Question
from trunkline.errors import BundleError
from trunkline.pipeline import Pipeline

_SCORE_TOLERANCE = 0.01  # other CPUs sum in another order
_LABEL = {"label", "score"}  # the keys of a label's JSON form


def write_golden(path: Path, results: Sequence[DocumentResult]) -> None:
    """Writes one JSON line per result; the documents stand in the results."""
    lines = (json.dumps(result.to_dict(), ensure_ascii=False) for result in results)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def check_golden(path: Path, pipeline: Pipeline) -> int:
    """Analyses the documents of a golden file and returns how many gave what stands there.

    Raises:
        BundleError: An annotation differs, or a score by more than 0.01; names the line.
    """
    lines = path.read_text(encoding="utf-8").split("\n")  # other line ends may stand in a text
    expected = [json.loads(line) for line in lines if line]
    results = pipeline.analyze([_document(line) for line in expected])
    for number, (want, got) in enumerate(zip(expected, results, strict=True), start=1):
        difference = _difference(want, got.to_dict(), "")
        if difference:
            mend = "this machine or onnxruntime computes otherwise than the exporter's: export here"
            raise BundleError(f"{path}:{number}", f"self-test failed at {difference}", mend)
    return len(expected)


def _document(line: Mapping[str, Any]) -> Document:
    questions = tuple(Question(asked["question"], asked["task"]) for asked in line["questions"])
    return Document(line["text"], questions, tuple(line["tasks"]), line.get("text_pair"))


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
