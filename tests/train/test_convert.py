import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.train.test_span_data import GOLDEN, TEXTS, read, spans
from trunkline.cli import main
from trunkline.formats.writers import FORMATS

OFFSETS = [form for form in FORMATS if form != "conll"]


def convert(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["convert", *map(str, arguments)])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


@pytest.mark.parametrize("name", ["label-studio.json", "prodigy.jsonl", "spacy-2.json"])
@pytest.mark.parametrize("form", OFFSETS)
def test_any_format_becomes_any_other(
    name: str, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / ("a.json" if form == "label-studio" else "a.jsonl")
    status, _, told = convert(capsys, GOLDEN / name, out, "--to", form)
    assert status == 0
    assert f"{name}: 3 texts with 4 spans to {out}" in told
    assert spans(read(out)) == TEXTS


def test_what_is_skipped_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    _, shown, told = convert(capsys, GOLDEN / "prodigy.jsonl", "-", "--to", "spacy")
    assert [json.loads(line)[0] for line in shown.splitlines()] == [text for text, _ in TEXTS]
    assert "which the annotator rejected: 1 (" in told


def test_columns_go_both_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = tmp_path / "a.conll"
    assert convert(capsys, GOLDEN / "doccano.jsonl", columns, "--to", "conll")[0] == 0
    first, *_ = columns.read_text().split("\n\n")
    assert first.splitlines()[:2] == ["IBM\tB-ORG", "opened\tO"]
    again = tmp_path / "b.jsonl"
    assert convert(capsys, columns, again, "--to", "jsonl")[0] == 0
    rows = [json.loads(line) for line in again.read_text().splitlines()]
    assert rows[0]["text"] == "IBM opened an office in New York ."
    assert [row["text"][a["start"] : a["end"]] for row in rows for a in row["spans"]] == [
        *("IBM", "New York"),
        *("Ada Lovelace", "Bern"),
    ]


def test_overlaps_stay_unless_columns_are_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "a.jsonl", tmp_path / "b"
    source.write_text(json.dumps({"text": "New York", "spans": [[0, 8, "LOC"], [4, 8, "X"]]}))
    assert (
        '"label": [[0, 8, "LOC"], [4, 8, "X"]]'
        in convert(capsys, source, "-", "--to", "doccano")[1]
    )
    status, _, told = convert(capsys, source, out, "--to", "conll")
    assert status == 2 and not out.exists()
    assert "a.jsonl:1: spans overlap, which columns cannot say; take --overlaps longest" in told
    assert convert(capsys, source, out, "--to", "conll", "--overlaps", "longest")[0] == 0
    assert convert(capsys, source, "-", "--to", "jsonl", "--overlaps", "error")[0] == 2


def test_offsets_are_read_as_they_are_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text(json.dumps({"text": "é IBM", "spans": [[3, 6, "ORG"]]}), encoding="utf-8")
    arguments = (source, "-", "--to", "jsonl", "--offsets", "utf8-byte")
    assert '{"start": 2, "end": 5, "label": "ORG"}' in convert(capsys, *arguments)[1]


def test_keys_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text(json.dumps({"body": "IBM", "marks": [[0, 3, "ORG"]]}))
    arguments = (source, "-", "--to", "spacy", "--text", "body", "--column", "marks")
    assert convert(capsys, *arguments)[1] == '["IBM", {"entities": [[0, 3, "ORG"]]}]\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"text": "IBM", "spans": [[0, 9, "ORG"]]}', "spans out of their text"),
        ('{"text": "IBM"}', "holds no examples; texts skipped, which have no 'spans': 1"),
        ("", "holds no examples"),
        ("{", "a.jsonl:1: is not JSON"),
    ],
)
def test_a_source_at_fault_leaves_nothing_behind(
    text: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    status, shown, errors = convert(capsys, tmp_path / "a.jsonl", tmp_path / "b", "--to", "jsonl")
    assert (status, shown, len(errors.splitlines())) == (2, "", 1)
    assert told in errors
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_file_that_exists_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "b").write_text("mine")
    told = convert(capsys, GOLDEN / "spacy.json", tmp_path / "b", "--to", "jsonl")[2]
    assert "b: exists; give another name, or delete it first" in told
    assert (tmp_path / "b").read_text() == "mine"


def test_it_needs_no_extra() -> None:
    code = f"""
import sys
for name in ("torch", "transformers", "datasets", "pyarrow", "grpc"):
    sys.modules[name] = None
from trunkline.cli import main
sys.exit(main(["convert", {str(GOLDEN / "doccano.jsonl")!r}, "-", "--to", "prodigy"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3


def test_spacy_files_go_both_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("spacy")
    out = tmp_path / "a.spacy"
    assert convert(capsys, GOLDEN / "doccano.jsonl", out, "--to", "spacy")[0] == 0
    assert spans(read(out)) == TEXTS


def test_spacy_files_are_written_by_spacy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    told = convert(capsys, GOLDEN / "doccano.jsonl", tmp_path / "a.spacy", "--to", "spacy")[2]
    assert "is written by spaCy, which is not installed; pip install spacy" in told
    assert not any(tmp_path.iterdir())
