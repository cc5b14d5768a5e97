import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.small import Corpus, write_squad
from trunkline.errors import DataError
from trunkline_train.config import TaskConfig
from trunkline_train.data.examples import AnswerExample
from trunkline_train.data.source import load_test

CONTEXT = "Ada lives in Bern."
FLAT = {
    "id": "1",
    "question": "Where?",
    "context": CONTEXT,
    "answers": {"text": ["Bern"], "answer_start": [13]},
}
ANSWERS = [{"text": "Bern", "answer_start": 13}]
Read = Callable[..., list[AnswerExample]]


def examples(path: Path, **options: object) -> list[AnswerExample]:
    return load_test(TaskConfig("question-answering", "x", test=str(path), **options), "test")


def squad(*questions: dict[str, Any]) -> str:
    return json.dumps({"data": [{"paragraphs": [{"context": CONTEXT, "qas": questions}]}]})


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Writes a file and reads it."""

    def read(content: str, name: str = "qa.json", **options: object) -> list[AnswerExample]:
        (tmp_path / name).write_text(content)
        return examples(tmp_path / name, **options)

    return read


def refusal(read: Read, content: str, name: str = "qa.json") -> str:
    with pytest.raises(DataError) as caught:
        read(content, name)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_every_question_comes_with_all_its_answers(corpus: Corpus) -> None:
    found = examples(corpus.folder / "qa.dev.json")
    assert len(found) == 16
    assert len({example.id for example in found}) == 16
    for example in found:
        assert len(example.answers) == 2
        for answer, start in zip(example.answers, example.starts, strict=True):
            assert example.context[start:].startswith(answer)


def test_gzip_reads_as_the_plain_file(tmp_path: Path) -> None:
    for name in ("qa.json", "qa.json.gz"):
        write_squad(tmp_path / name, 3, 1)
    plain, packed = (examples(tmp_path / name) for name in ("qa.json", "qa.json.gz"))
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


@pytest.mark.parametrize("mark", [True, 1, 1.0, "True", "true", "1"])
def test_mark_of_an_impossible_question_may_be_any_truth_value(read: Read, mark: object) -> None:
    for given in ({"answers": FLAT["answers"]}, {"answers": None}, {}):
        row = {"question": "Why?", "context": CONTEXT, "is_impossible": mark, **given}
        (example,) = read(json.dumps(row), "qa.jsonl")
        assert example.answers == ()


@pytest.mark.parametrize("mark", [False, 0, 0.0, "False", "false", "0", "", None, math.nan])
def test_question_that_is_not_marked_keeps_its_answers(read: Read, mark: object) -> None:
    (example,) = read(json.dumps({**FLAT, "is_impossible": mark}), "qa.jsonl")
    (nested,) = read(squad({**FLAT, "answers": ANSWERS, "is_impossible": mark}))
    assert example.answers == nested.answers == ("Bern",)


@pytest.mark.parametrize("mark", ["maybe", 2, [], "nan"])
def test_mark_that_is_no_truth_value_is_refused(read: Read, mark: object) -> None:
    told = refusal(read, json.dumps({**FLAT, "is_impossible": mark}), "qa.jsonl")
    assert f"qa.jsonl:1: is_impossible is {mark!r}; give true, false or null" in told


def test_questions_need_no_id(read: Read) -> None:
    one, two = read(squad(*[{"question": "Where?", "answers": ANSWERS}] * 2))
    assert one.where.endswith("qa.json question data[0].paragraphs[0].qas[0]")
    assert one.id != two.id


@pytest.mark.parametrize("unknown", [{}, {"answers": None}])
def test_questions_whose_answers_are_not_known_are_left_out(
    read: Read, unknown: dict[str, object]
) -> None:
    asked = {"id": "2", "question": "Where?", **unknown}
    assert len(read(squad(asked, {**FLAT, "answers": ANSWERS}))) == 1
    told = "no row has a value in the column 'answers'" if unknown else "no row has the column 'an"
    assert told in refusal(read, squad(asked))


@pytest.mark.parametrize("start", [12, 14, -5, 99])
def test_answer_that_stands_elsewhere_is_named(read: Read, start: int) -> None:
    answers = [{"text": "Bern", "answer_start": start}]
    told = refusal(read, squad({"id": "q7", "question": "Where?", "answers": answers}))
    assert f"qa.json question q7: answer_start {start} gives" in told
    assert "not the answer 'Bern'" in told


def test_empty_answer_and_empty_question_are_refused(read: Read) -> None:
    empty = [{"text": "", "answer_start": 3}]
    assert "question 1:" in refusal(read, squad({"id": 1, "question": "a", "answers": empty}))
    told = refusal(read, squad({"id": 1, "question": "  ", "answers": []}))
    assert "qa.json question 1: the question is empty" in told


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '"text"',
        '{"version": 1}',
        '{"data": [{"paragraphs": [{"context": "a"}]}]}',
        '{"data": [{"paragraphs": [{"context": "a", "qas": ["b"]}]}]}',
    ],
)
def test_other_json_is_refused(read: Read, content: str) -> None:
    assert "qa.json: is not SQuAD JSON" in refusal(read, content)


def test_what_is_not_json_is_refused(read: Read) -> None:
    assert "qa.json: is not JSON" in refusal(read, '{"data": [')
    told = refusal(read, json.dumps(FLAT) + "\nAda\n", "qa.jsonl")
    assert "qa.jsonl:2: is not JSON" in told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"answers": {"text": ["Bern"]}}, "answers need text and answer_start, got {'te"),
        ({"answers": [{"text": "Bern"}]}, "answers need text and answer_start, got [{'text': 'B"),
        ({"answers": 3}, "answers need text and answer_start, got 3; give {"),
        ({"answers": "Bern"}, "answers need text and answer_start, got 'Bern'; give {"),
        ({"answers": {"text": None, "answer_start": [1]}}, "answers need text and answer_start"),
        ({"answers": {"text": ["Bern"] * 2, "answer_start": [13]}}, "answers need one whole"),
        ({"answers": {"text": [4], "answer_start": [13]}}, "answers need one whole number"),
        ({"answers": {"text": ["Bern"], "answer_start": ["13"]}}, "answers need one whole number"),
        ({"question": 3}, "question and context must be texts"),
        ({"question": None}, "column 'question' is null"),
        ({"context": None}, "column 'context' is null"),
    ],
)
def test_row_that_does_not_fit_is_named(read: Read, change: dict[str, object], told: str) -> None:
    lines = refusal(read, f"{json.dumps(FLAT)}\n{json.dumps({**FLAT, **change})}", "qa.jsonl")
    assert f"qa.jsonl:2: {told}" in lines


def test_nested_question_that_does_not_fit_is_named(read: Read) -> None:
    told = refusal(read, squad({"id": "q7", "question": None, "answers": []}))
    assert "qa.json question q7: column 'question' is null" in told
    answers = [{"text": "Bern", "answer_start": "3"}]
    told = refusal(read, squad({"id": "q7", "question": "Where?", "answers": answers}))
    assert "qa.json question q7: answers need one whole number" in told


def test_rows_without_answers_to_any_question_are_left_out(read: Read) -> None:
    other = {"context": CONTEXT, "question": "Where?", "ner_tags": []}
    assert len(read(f"{json.dumps(FLAT)}\n{json.dumps(other)}\n", "qa.jsonl")) == 1
    told = refusal(read, json.dumps(other), "qa.jsonl")
    assert "no row has the column 'answers'; there are context, question, ner_tags" in told


@pytest.mark.parametrize(
    "change",
    [
        {"answers": {"text": [], "answer_start": []}},
        {"answers": []},
        {"answers": {"text": ["Bern"], "answer_start": [13]}, "is_impossible": True},
    ],
)
def test_flat_question_may_have_no_answer(read: Read, change: dict[str, object]) -> None:
    (example,) = read(json.dumps({**FLAT, **change}), "qa.jsonl")
    assert (example.answers, example.starts) == ((), ())


def test_parts_may_have_other_names_and_no_id(read: Read) -> None:
    row = {"passage": CONTEXT, "question": " Where? ", "spans": FLAT["answers"]}
    (example,) = read(json.dumps(row), "qa.jsonl", column="spans", text=("passage",))
    assert (example.question, example.answers) == ("Where?", ("Bern",))
    assert example.id == example.where


def test_parquet_reads_as_json_lines(read: Read, tmp_path: Path) -> None:
    parquet.write_table(pa.Table.from_pylist([FLAT, FLAT]), tmp_path / "qa.parquet")
    one, two = examples(tmp_path / "qa.parquet")
    assert (one.question, one.answers, one.starts) == ("Where?", ("Bern",), (13,))
    assert two.where.endswith("qa.parquet row 1")


@pytest.mark.parametrize("name", ["qa.csv", "qa", "qa.conllu"])
def test_other_formats_are_refused(read: Read, name: str) -> None:
    told = refusal(read, "a,b\n", name)
    assert "question-answering is read from .json, .jsonl, .parquet" in told


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.json: cannot be read"):
        examples(tmp_path / "nowhere.json")
