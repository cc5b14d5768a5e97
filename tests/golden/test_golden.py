"""What the tiny bundle must answer. `--update-golden` writes what it answers now."""

import json
from pathlib import Path
from typing import Any

import pytest

import trunkline
from tests.tiny import build_tiny_bundle
from trunkline import Document, Model, Question
from trunkline.kinds import KINDS, find_kind

FOLDER = Path(__file__).parent
FILES = sorted(FOLDER.glob("*.json"))
FILE = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
TOLERANCE = 2e-4  # scores have four digits; the last one may round otherwise elsewhere


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return trunkline.load(build_tiny_bundle(tmp_path_factory.mktemp("golden") / "tiny"), 1)


def read(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return found


def document(result: dict[str, Any]) -> Document:
    questions = tuple(Question(asked["question"], asked["task"]) for asked in result["questions"])
    pair = result.get("text_pair")
    tasks = dict.fromkeys((*result["tasks"], *(question.task for question in questions)))
    return Document(result["text"], questions, tuple(tasks), pair)


def dump(value: Any, indent: str = "") -> str:
    """Returns JSON with one annotation per line, to be read as a diff."""
    parts = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(value, dict | list) or not any(isinstance(one, dict | list) for one in parts):
        return json.dumps(value, ensure_ascii=False)
    keys = (
        [f"{json.dumps(key)}: " for key in value] if isinstance(value, dict) else [""] * len(parts)
    )
    deeper = f"\n{indent}  "
    lines = [f"{key}{dump(one, indent + '  ')}" for key, one in zip(keys, parts, strict=True)]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}{deeper}{f',{deeper}'.join(lines)}\n{indent}{closing}"


def near(number: str) -> Any:
    """Returns what equals the number and its neighbours."""
    return pytest.approx(float(number), abs=TOLERANCE)


@FILE
def test_documents_are_annotated_as_promised(
    file: Path, model: Model, request: pytest.FixtureRequest
) -> None:
    documents = [document(result) for result in read(file)]
    results = [result.to_dict() for result in model.analyze(documents)]
    if request.config.getoption("--update-golden"):
        file.write_text(dump(results) + "\n", encoding="utf-8")
    assert json.loads(file.read_text(encoding="utf-8"), parse_float=near) == results


@FILE
def test_a_golden_file_is_written_as_the_flag_writes_it(file: Path) -> None:
    assert file.read_text(encoding="utf-8") == dump(read(file)) + "\n"


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_examples_with_windows_unicode_and_nothing(kind: str, model: Model) -> None:
    results = read(FOLDER / f"{kind}.json")
    used = {model.pipeline.tasks[name].kind for result in results for name in result["tasks"]}
    used |= {
        model.pipeline.tasks[asked["task"]].kind
        for result in results
        for asked in result["questions"]
    }
    assert used == {find_kind(kind).name}
    assert any(len(model.pipeline.prepare(document(result)).rows) > 2 for result in results)
    assert any(not result["text"].isascii() for result in results)
    assert any(not result["text"].strip() for result in results)
