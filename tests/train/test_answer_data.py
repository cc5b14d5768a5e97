import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.small import Corpus, write_squad
from trunkline.errors import DataError
from trunkline_train.config import TaskConfig
from trunkline_train.data.answers import read_answer_file
from trunkline_train.data.examples import AnswerExample

TASK = TaskConfig("question-answering", "x")
CONTEXT = "Ada lives in Bern."
FLAT = {
    "id": "1",
    "question": "Where?",
    "context": CONTEXT,
    "answers": {"text": ["Bern"], "answer_start": [13]},
}
Read = Callable[..., list[AnswerExample]]


def squad(*questions: dict[str, Any]) -> str:
    return json.dumps({"data": [{"paragraphs": [{"context": CONTEXT, "qas": questions}]}]})


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Writes a file and reads it."""

    def read(content: str, name: str = "qa.json") -> list[AnswerExample]:
        (tmp_path / name).write_text(content)
        return list(read_answer_file(tmp_path / name, TASK))

    return read


def refusal(read: Read, content: str, name: str = "qa.json") -> str:
    with pytest.raises(DataError) as caught:
        read(content, name)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_every_question_comes_with_all_its_answers(corpus: Corpus) -> None:
    examples = list(read_answer_file(corpus.folder / "qa.dev.json", TASK))
    assert len(examples) == 16
    assert len({example.id for example in examples}) == 16
    for example in examples:
        assert len(example.answers) == 2
        for answer, start in zip(example.answers, example.starts, strict=True):
            assert example.context[start:].startswith(answer)


def test_gzip_reads_as_the_plain_file(tmp_path: Path) -> None:
    for name in ("qa.json", "qa.json.gz"):
        write_squad(tmp_path / name, 3, 1)
    plain, packed = (list(read_answer_file(tmp_path / n, TASK)) for n in ("qa.json", "qa.json.gz"))
    assert [e.question for e in plain] == [e.question for e in packed]


def test_impossible_question_has_no_answers(read: Read) -> None:
    plausible = [{"text": "Bern", "answer_start": 13}]
    (example,) = read(
        squad({"id": "1", "question": "Why?", "is_impossible": True, "answers": plausible})
    )
    assert (example.answers, example.starts) == ((), ())


def test_json_lines_read_in_the_hubs_layout(read: Read) -> None:
    (example, other) = read(f"{json.dumps(FLAT)}\n\n{json.dumps(FLAT)}\n", "qa.jsonl")
    assert (example.question, example.answers, example.starts) == ("Where?", ("Bern",), (13,))
    assert (example.where.rpartition(":")[2], other.where.rpartition(":")[2]) == ("1", "3")


@pytest.mark.parametrize("start", [12, 14, -5, 99])
def test_answer_that_stands_elsewhere_is_named(read: Read, start: int) -> None:
    answers = [{"text": "Bern", "answer_start": start}]
    told = refusal(read, squad({"id": "q7", "question": "Where?", "answers": answers}))
    assert f"question q7: answer_start {start} gives" in told
    assert "not the answer 'Bern'" in told


def test_empty_answer_and_empty_question_are_refused(read: Read) -> None:
    empty = [{"text": "", "answer_start": 3}]
    assert "question 1:" in refusal(read, squad({"id": 1, "question": "a", "answers": empty}))
    assert "question 1 is empty" in refusal(read, squad({"id": 1, "question": "  ", "answers": []}))


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '"text"',
        '{"version": 1}',
        '{"data": [{"paragraphs": [{"context": "a"}]}]}',
        '{"data": [{"paragraphs": [{"context": "a", "qas": ["b"]}]}]}',
        squad({"id": 1, "question": None, "answers": []}),
        squad({"id": 1, "question": "Where?"}),
        squad({"id": 1, "question": "Where?", "answers": [{"text": "Bern"}]}),
        squad({"id": 1, "question": "Where?", "answers": [{"text": "Bern", "answer_start": "3"}]}),
    ],
)
def test_other_json_is_refused(read: Read, content: str) -> None:
    assert "qa.json: is not SQuAD JSON" in refusal(read, content)


def test_what_is_not_json_is_refused(read: Read) -> None:
    assert "qa.json: is not JSON" in refusal(read, '{"data": [')
    told = refusal(read, json.dumps(FLAT) + "\nAda\n", "qa.jsonl")
    assert "qa.jsonl:2: is not JSON" in told


@pytest.mark.parametrize(
    "change",
    [
        {"answers": None},
        {"answers": {"text": ["Bern"]}},
        {"answers": {"text": ["Bern", "Bern"], "answer_start": [13]}},
        {"answers": {"text": [4], "answer_start": [13]}},
        {"question": 3},
        {"context": None},
    ],
)
def test_json_line_that_does_not_fit_is_named(read: Read, change: dict[str, object]) -> None:
    assert "qa.jsonl:1 lacks" in refusal(read, json.dumps({**FLAT, **change}), "qa.jsonl")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.json: cannot be read"):
        list(read_answer_file(tmp_path / "nowhere.json", TASK))
