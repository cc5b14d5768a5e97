import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.small import OVERLAP, POSITIONS, wordpiece
from trunkline.encode import TextEncoder
from trunkline.errors import DataError
from trunkline_train.config import TaskConfig
from trunkline_train.data.examples import TokenExample
from trunkline_train.data.fit import fit_spans
from trunkline_train.data.source import load_test

GOLDEN = Path(__file__).parents[1] / "golden" / "formats"
TEXTS = [
    ("IBM opened an office in New York.", [(0, 3, "ORG"), (24, 32, "LOC")]),
    ("🎉 Ada Lovelace\nlives\tin  Bern 👩‍🔬.", [(2, 14, "PER"), (25, 29, "LOC")]),
    ("Nothing here.", []),
]
Write = Callable[..., Path]


def read(path: Path, **options: object) -> list[TokenExample]:
    task = TaskConfig("token-classification", "x", test=str(path), **options)
    return load_test(task, "test")


def spans(examples: list[TokenExample]) -> list[tuple[str, list[tuple[int, int, str]]]]:
    return [(one.text, [mark[:3] for mark in one.spans]) for one in examples]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(*rows: object, name: str = "data.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        read(path, **options)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


ALL = sorted(path.name for path in GOLDEN.iterdir() if "utf16" not in path.name)


@pytest.mark.parametrize("name", ALL)
def test_every_dialect_gives_the_same_spans(name: str) -> None:
    assert spans(read(GOLDEN / name)) == TEXTS


def test_offsets_of_old_label_studio_are_told_by_the_text_of_their_regions() -> None:
    assert spans(read(GOLDEN / "label-studio-utf16.json")) == TEXTS[1:2]


@pytest.mark.parametrize(
    ("name", "notes"),
    [
        (
            "prodigy.jsonl",
            ["which the annotator rejected: 1 (", "which the annotator ignored: 1 ("],
        ),
        (
            "label-studio.json",
            [
                "annotations skipped, which the annotator cancelled: 1 (",
                "texts whose annotators differ, where the latest counts: 1 (",
                "texts skipped, which have no annotation: 1 (",
            ],
        ),
        ("spacy-2.json", ["texts skipped, which have no annotation: 1 ("]),
        ("doccano.jsonl", ["whose offsets were read as UTF-16 units: 1 ("]),
        ("spacy.json", []),
    ],
)
def test_what_is_left_out_is_told(
    name: str, notes: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    read(GOLDEN / name)
    summary, *told = capsys.readouterr().err.splitlines()
    assert summary.startswith(f"read {GOLDEN / name}: ")
    assert len(told) == len(notes)
    for line, note in zip(told, notes, strict=True):
        assert note in line and f"{name}:" in line


def test_the_ground_truth_counts_before_the_latest(write: Write) -> None:
    tasks = json.loads((GOLDEN / "label-studio.json").read_text())
    tasks[0]["annotations"][1]["ground_truth"] = True
    (first, *_) = read(write(tasks, name="a.json"))
    assert spans([first]) == [(TEXTS[0][0], [(0, 3, "LOC")])]


def test_one_of_several_controls_is_chosen(write: Write) -> None:
    results = [
        {"from_name": name, "type": "labels", "value": {"start": 0, "end": 3, "labels": ["ORG"]}}
        for name in ("ner", "pos")
    ]
    task = {"data": {"text": "IBM"}, "annotations": [{"result": results}]}
    path = write([task], name="a.json")
    assert "several controls: ner, pos; choose one: column = 'ner'" in refusal(path)
    assert spans(read(path, column="ner")) == [("IBM", [(0, 3, "ORG")])]


def test_a_task_without_a_clear_text_asks_for_it(write: Write) -> None:
    task = {"data": {"a": "IBM", "b": "Bern"}, "annotations": [{"result": []}]}
    path = write(task)
    assert "data.jsonl:1: which key of data is the text? There are a, b; set text" in refusal(path)
    assert spans(read(path, text=("b",))) == [("Bern", [])]


def test_html_of_label_studio_is_refused(write: Write) -> None:
    result = {"type": "hypertextlabels", "value": {"start": "/p[1]", "end": "/p[1]"}}
    task = {"data": {"text": "<p>IBM"}, "annotations": [{"result": [result]}]}
    assert "only tasks of the tag Text are read" in refusal(write(task))


def test_keys_may_have_other_names(write: Write) -> None:
    row = {"body": "IBM grew.", "marks": [{"start": 0, "end": 3, "label": "ORG"}]}
    (example,) = read(write(row), text=("body",), column="marks")
    assert spans([example]) == [("IBM grew.", [(0, 3, "ORG")])]


OVERLAPS = {"text": "in New York City", "spans": [[3, 11, "LOC"], [7, 16, "LOC"], [3, 16, "LOC"]]}


def test_overlaps_are_refused_with_line_and_offsets(write: Write) -> None:
    told = refusal(write({"text": "", "spans": []}, OVERLAPS))
    assert "data.jsonl: spans that overlap: 2 (" in told
    assert "data.jsonl:2, 3-11 LOC and 3-16 LOC, " in told
    assert "overlaps = 'longest'" in told


def test_the_longest_of_overlaps_stays(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = read(write(OVERLAPS), overlaps="longest")
    assert spans([example]) == [("in New York City", [(3, 16, "LOC")])]
    assert "spans that overlap, of which the longest stays: 2 (" in capsys.readouterr().err


@pytest.mark.parametrize("bounds", [(-1, 2), (0, 5), (3, 1)])
def test_spans_out_of_the_text_are_counted_and_refused(
    write: Write, bounds: tuple[int, int]
) -> None:
    row = {"text": "IBM.", "spans": [[*bounds, "ORG"]]}
    told = refusal(write({"text": "x", "spans": []}, *[row] * 5))
    assert "data.jsonl: spans out of their text, or inside a character: 5 (" in told
    assert f"data.jsonl:2, {bounds[0]}-{bounds[1]} ORG, " in told and ", ...)" in told


def test_an_offset_inside_an_emoji_is_refused(write: Write) -> None:
    row = {"text": "🎉 IBM", "label": [[1, 5, "ORG"]]}
    assert "inside a character: 1 (" in refusal(write(row))
    (example,) = read(write(row), offsets="code-point", column="label")
    assert spans([example]) == [("🎉 IBM", [(2, 5, "ORG")])]


def test_a_span_that_says_another_text_is_refused(write: Write) -> None:
    row = {"text": "IBM grew", "spans": [{"start": 1, "end": 4, "label": "ORG", "text": "IBM"}]}
    assert "data.jsonl:1, 1-4 ORG: 'BM ', not 'IBM'" in refusal(write(row))


def test_empty_spans_are_skipped_and_told_and_blanks_are_trimmed(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"text": "in IBM .", "spans": [[2, 2, "LOC"], [2, 3, "LOC"], [2, 7, "ORG"]]}
    assert spans(read(write(row))) == [("in IBM .", [(3, 6, "ORG")])]
    assert "spans skipped, which are empty: 2 (" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("span", "told"),
    [
        ([0, 3], "has no whole numbers for start and end"),
        ({"start": "0", "end": "3", "label": "ORG"}, "has no whole numbers"),
        ({"start": 0, "label": "ORG"}, "has no whole numbers"),
        ([0, 3, None], "has None for a label"),
        ({"start": 0, "end": 3}, "has None for a label"),
        ([0, 3, ""], "has '' for a label"),
        ("ORG", "has no whole numbers"),
    ],
)
def test_a_span_that_does_not_fit_is_named(write: Write, span: object, told: str) -> None:
    assert f"data.jsonl:1: span {span!r}" in refusal(write({"text": "IBM", "spans": [span]}))
    assert told in refusal(write({"text": "IBM", "spans": [span]}))


def test_texts_without_spans_say_what_there_is(write: Write) -> None:
    told = refusal(write({"text": "IBM", "topic": "news"}))
    assert "data.jsonl: holds no examples; texts skipped, which have no 'spans': 1 (" in told
    told = refusal(write({"text": "IBM", "spans": []}), column="marks")
    assert "data.jsonl: holds no examples; texts skipped, which have no 'marks': 1 (" in told


def test_spans_are_no_tags_for_every_word() -> None:
    told = refusal(GOLDEN / "spacy.json", options={"aggregation": "tags"})
    assert "set options.aggregation to 'spans'" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[{"text": "a", "spans": []},\n {"text": }]', "a.json:2: is not JSON: Expecting value"),
        ('[{"text": "a", "spans": []},\n 3]', "a.json:2: is not a JSON object: 3"),
        ("[]", "a.json: holds no examples"),
        ('{"data": []}', "a.json: no row has the column 'ner_tags'; there are data"),
    ],
)
def test_json_that_does_not_fit_is_named(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert told in refusal(tmp_path / "a.json")


def test_spacy_files_need_spacy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    (tmp_path / "a.spacy").write_bytes(b"x")
    told = refusal(tmp_path / "a.spacy")
    assert "is read by spaCy, which is not installed; pip install spacy" in told


@pytest.mark.parametrize(
    "tags",
    ["B-PER L-PER O U-LOC", "B-PER E-PER O S-LOC", "B-PER I-PER O B-LOC", "I-PER I-PER O I-LOC"],
)
def test_schemes_of_tags_are_one(tmp_path: Path, tags: str) -> None:
    words = ["Ada", "Lovelace", "in", "Bern"]
    pairs = zip(words, tags.split(), strict=True)
    (tmp_path / "a.conll").write_text("".join(f"{word} {tag}\n" for word, tag in pairs))
    (example,) = read(tmp_path / "a.conll")
    assert example.tags == ("B-PER", "I-PER", "O", "B-LOC")


def test_words_may_hold_blanks_and_blank_words_go(write: Write) -> None:
    tokens = ["New York ", "\n", " is", " ", "big"]
    (example,) = read(write({"tokens": tokens, "ner_tags": ["B-LOC", "I-LOC", "O", "O", "O"]}))
    assert spans([example]) == [("New York is big", [(0, 8, "LOC")])]
    assert [example.text[a:b] for a, b in example.words] == ["New York", "is", "big"]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(wordpiece(), POSITIONS, OVERLAP)


def test_labels_fall_on_the_words_of_the_tokenizer(write: Write, encoder: TextEncoder) -> None:
    text = "eBay, and Saint-Denis."
    row = {"text": text, "spans": [[1, 4, "ORG"], [10, 21, "LOC"], [4, 5, "X"]]}
    (example,), lines = fit_spans(read(write(row)), encoder, "data")
    assert isinstance(example, TokenExample)
    words = [text[a:b] for a, b in example.words]
    tags = dict(zip(words, example.tags, strict=True))
    assert (tags["eBay"], tags[","], tags["and"]) == ("B-ORG", "B-X", "O")
    assert [tags[word] for word in ("Saint", "-", "Denis", ".")] == ["B-LOC", "I-LOC", "I-LOC", "O"]
    (line,) = lines
    assert "inside a word, and take all of it: 1 (" in line
    assert "1-4 ORG 'Bay' to 'eBay'" in line


def test_spans_that_meet_on_a_word_are_told(write: Write, encoder: TextEncoder) -> None:
    row = {"text": "eBay grew", "spans": [[0, 1, "X"], [1, 4, "ORG"], [5, 9, "V"]]}
    (example,), lines = fit_spans(read(write(row)), encoder, "data")
    assert isinstance(example, TokenExample) and len(example.spans) == 2
    assert any("share a word with another, of which the longest stays: 1 (" in one for one in lines)


def test_offsets_that_fit_no_words_are_refused(write: Write, encoder: TextEncoder) -> None:
    row = {"text": "the office grew", "spans": [[5, 11, "X"]]}
    with pytest.raises(DataError, match=r"10 of 10 spans do not fall on the tokenizer's words"):
        fit_spans(read(write(*[row] * 10)), encoder, "data")


def test_words_of_the_data_stay(tmp_path: Path, encoder: TextEncoder) -> None:
    (tmp_path / "a.conll").write_text("Saint-Denis B-LOC\n")
    given = read(tmp_path / "a.conll")
    assert fit_spans(given, encoder, "data") == (given, [])
