import io
import json
import os
from pathlib import Path

import pytest

from trunkline import Answer, DocumentResult, Label, QuestionResult, Span
from trunkline.cli import main
from trunkline.terminal import Lasting, json_line, printable

HOSTILE = "\x1b]0;owned\x07\x9b2J\u202e\r"
SAFE = r"\x1b]0;owned\x07\x9b2J\u202e\r"


def test_control_characters_are_escaped_and_all_else_stays() -> None:
    assert printable(HOSTILE) == SAFE
    assert printable("a\nb\tc", "\n") == "a\nb\\tc"
    text = "Zürich 😀 👩\u200d👩\u200d👧 שלום é \u00a0\ufeff"
    assert printable(text) == text


def test_json_stays_what_it_was() -> None:
    line = json_line({"text": f"Zürich {HOSTILE}"})
    assert not set(HOSTILE) & (set(line) - set("]0;owned2J"))
    assert "Zürich" in line
    assert json.loads(line) == {"text": f"Zürich {HOSTILE}"}


def test_a_result_shown_to_a_person_holds_none() -> None:
    span = Span(0, 1, HOSTILE, HOSTILE, 1.0)
    question = QuestionResult(HOSTILE, "qa", (Answer(0, 1, HOSTILE, 1.0),), 0.0)
    labels = (Label(HOSTILE, 1.0),)
    result = DocumentResult(HOSTILE, {"ner": (span,), "topic": labels}, (question,), HOSTILE)
    for shown in map(str, (result, span, labels[0], question.answers[0])):
        assert not set("\x1b\x07\x9b\u202e\r") & set(shown)
    assert str(result).count(SAFE) == 7


def test_an_error_is_one_line_whatever_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", f"{HOSTILE}\nx"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == rf"trunkline inspect: {SAFE}\nx: does not exist; check the path"


def test_a_lasting_stream_goes_on_when_its_reader_has_gone() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        lasting = Lasting(stream)
        print("first", file=lasting, flush=True)
        assert os.read(reading, 100) == b"first\n"
        os.close(reading)
        print("second" * 10_000, file=lasting, flush=True)
        print("third", file=lasting, flush=True)
        assert lasting.fileno() == stream.fileno()


def test_other_faults_of_a_stream_are_raised(tmp_path: Path) -> None:
    stream = io.TextIOWrapper((tmp_path / "x").open("wb"))
    stream.close()
    with pytest.raises(ValueError, match="closed"):
        Lasting(stream).write("x")
