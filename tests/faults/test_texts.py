"""Any text through `trunkline predict` gives a right answer."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from trunkline.cli import main

FAMILY = "👩\u200d👩\u200d👧"


def predict(
    bundle: Path, capsys: pytest.CaptureFixture[str], text: str, *options: str
) -> dict[str, Any]:
    assert main(["predict", str(bundle), text, *options]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    (line,) = shown.out.split("\n")[:-1]
    result: dict[str, Any] = json.loads(line)
    assert result["text"] == text
    return result


def words(result: dict[str, Any]) -> list[str]:
    """Returns the tagged words, cut from the text by their offsets."""
    found = [result["text"][tag["start"] : tag["end"]] for tag in result["tasks"]["pos"]]
    assert found == [tag["text"] for tag in result["tasks"]["pos"]]
    return found


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("IBM opened an office.", ["IBM", "opened", "an", "office", "."]),
        ("😀 Ada 🎉😀", ["😀", "Ada", "🎉😀"]),
        (f"Ada {FAMILY} Rome", ["Ada", FAMILY, "Rome"]),
        ("cafe\u0301 Zu\u0308rich", ["cafe\u0301", "Zu\u0308rich"]),
        ("שלום, سلام!", ["שלום", ",", "سلام", "!"]),
        ("\u202eAda\u202c Rome", ["Ada", "Rome"]),
        ("東京 İn", ["東", "京", "İn"]),
        ("a\0b \0 Rome", ["a\0b", "Rome"]),
        ("line\none\r\n", ["line", "one"]),
    ],
)
def test_every_word_is_found_at_its_place(
    bundle: Path, capsys: pytest.CaptureFixture[str], text: str, wanted: list[str]
) -> None:
    assert words(predict(bundle, capsys, text)) == wanted


@pytest.mark.parametrize("text", ["", " ", "   \t ", "\0", "\u200b\ufeff"])
def test_a_text_without_words_has_no_annotations_and_surely_no_answer(
    bundle: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    assert predict(bundle, capsys, text, "--question", "Where?") == {
        "text": text,
        "tasks": {"ner": [], "pos": [], "topic": [], "mood": []},
        "questions": [{"question": "Where?", "task": "qa", "answers": [], "no_answer_score": 1.0}],
    }


def test_a_megabyte_is_read_to_its_end(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    word = "x" * 200  # longer than word pieces are cut: one token
    text = f"{word} in Rome 😀. " * 4_700
    assert len(text.encode()) > 1_000_000
    result = predict(bundle, capsys, text, "--task", "pos")
    assert words(result) == [word, "in", "Rome", "😀", "."] * 4_700


def test_a_right_to_left_answer_is_cut_by_code_points(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "😀 שלום سلام Rome"
    (asked,) = predict(bundle, capsys, text, "--question", "Where?", "--task", "qa")["questions"]
    assert asked["answers"]
    for answer in asked["answers"]:
        assert answer["text"] == text[answer["start"] : answer["end"]] != ""


def stdin(data: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8")


def test_a_byte_order_mark_and_carriage_returns_are_no_text(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin("\ufeffAda\r\nBern\r\n".encode()))
    assert main(["predict", str(bundle), "--task", "ner"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["Ada", "Bern"]


def test_each_line_of_standard_input_is_a_text(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["Ada lives in Rome", "", "a\0b", "😀"] * 40
    monkeypatch.setattr(sys, "stdin", stdin("\n".join(texts).encode()))
    assert main(["predict", str(bundle), "--task", "ner"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["text"] for line in lines] == texts


def test_no_input_gives_no_output(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin(b""))
    assert main(["predict", str(bundle)]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Ada", "--task", "nre"], "unknown task 'nre' (did you mean 'ner'?); known: match"),
        (["Ada", "--question", " "], "documents[0].questions[0].text: is empty; give a question"),
        (["Ada", "--question", "who " * 100], "documents[0].questions[0].text: has 100 tokens"),
        (["a\udc80"], "documents[0].text: is not valid Unicode"),
        (["Ada", "--task", "match"], "documents[0].text_pair: is missing; task 'match' reads a"),
        (["Ada", "--text-pair", "who " * 100], "documents[0].text_pair: has 100 tokens"),
        (["Ada", "--text-pair", "a\udc80"], "documents[0].text_pair: is not valid Unicode"),
        (["poison"], "ner: the model gave NaN or infinite logits"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_line(
    bundle: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["predict", str(bundle), *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith(f"trunkline predict: {message}")
