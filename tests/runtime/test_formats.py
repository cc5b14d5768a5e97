import copy
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.samples import texts
from trunkline.errors import InvalidInput, NotFound, TrunklineError
from trunkline.formats.classified import is_classified, read_classified
from trunkline.formats.marked import Mark, Marked, longest, overlapping
from trunkline.formats.notes import Notes
from trunkline.formats.rows import Reading, as_row, holds_text, read_row
from trunkline.formats.schemes import as_iob2
from trunkline.formats.words import covering, iob2_tags, plain_words
from trunkline.formats.writers import FORMATS, written
from trunkline.offsets import OffsetMap, OffsetUnit

_labels = st.text(min_size=1, max_size=4).filter(lambda label: label.isprintable())


@st.composite
def marked(draw: st.DrawFn, *, flat: bool = False) -> Marked:
    """Draws a text with spans that begin and end with something visible."""
    text = draw(texts)
    places = [at for at, one in enumerate(text) if not one.isspace()]
    count = draw(st.integers(0, 4)) if places else 0
    spans = set()
    for _ in range(count):
        first, last = sorted(draw(st.tuples(st.sampled_from(places), st.sampled_from(places))))
        spans.add(Mark(first, last + 1, draw(_labels)))
    found = tuple(sorted(spans))
    return Marked(text, longest(found) if flat else found)


def read(lines: Iterable[str], how: Reading) -> list[Marked]:
    """Reads what was written: an array, or a value a line."""
    joined = list(lines)
    values = json.loads("".join(joined)) if joined[0] == "[" else map(json.loads, joined)
    notes = Notes("data")
    rows = [as_row(value) for value in values]
    found = [one for row in rows for one in read_row(row or {}, "here", how, notes)]
    notes.check()
    return found


OFFSETS = [form for form in FORMATS if form != "conll"]


@pytest.mark.parametrize("form", OFFSETS)
@settings(max_examples=50)
@given(given=st.lists(marked(), min_size=1, max_size=3))
def test_what_is_written_reads_as_it_was(form: str, given: list[Marked]) -> None:
    assert read(written(given, form), Reading(overlaps="keep")) == given


@given(one=marked(flat=True))
def test_columns_hold_the_words_and_their_spans(one: Marked) -> None:
    (sentence,) = written([one], "conll")
    rows = [line.split("\t") for line in sentence.splitlines()]
    words = plain_words(one.text, one.spans)
    assert [word for word, _ in rows] == [one.text[a:b] for a, b in words]
    assert "".join(word for word, _ in rows) == "".join(one.text.split())
    tags = iob2_tags(words, one.spans)
    begins = [words[at][0] for at, tag in enumerate(tags) if tag.startswith("B-")]
    assert begins == [mark.start for mark in one.spans]
    for mark in one.spans:
        assert covering(words, mark) == mark


@pytest.mark.parametrize("unit", OffsetUnit)
@given(text=texts)
def test_offsets_of_every_unit_go_back(unit: OffsetUnit, text: str) -> None:
    offsets = OffsetMap(text, unit)
    there = [offsets(at) for at in range(len(text) + 1)]
    assert [offsets.back(at) for at in there] == list(range(len(text) + 1))
    inside = set(range(there[-1] + 2)) - set(there) | {-1}
    assert all(offsets.back(at) is None for at in inside)


def test_doccano_counts_in_utf16_and_others_in_code_points() -> None:
    one = Marked("🎉 IBM", (Mark(2, 5, "ORG"),))
    (doccano,) = written([one], "doccano")
    assert json.loads(doccano)["label"] == [[3, 6, "ORG"]]
    (prodigy,) = written([one], "prodigy")
    assert json.loads(prodigy)["spans"] == [{"start": 2, "end": 5, "label": "ORG"}]
    (spacy,) = written([one], "spacy")
    assert json.loads(spacy) == ["🎉 IBM", {"entities": [[2, 5, "ORG"]]}]


def test_predictions_are_what_label_studio_takes_for_such() -> None:
    one = Marked("IBM", (Mark(0, 3, "ORG", 0.98765),))
    (task,) = json.loads("".join(written([one], "label-studio", predicted=True)))
    assert task["data"] == {"text": "IBM"}
    (region,) = task["predictions"][0]["result"]
    assert region["score"] == 0.9877
    assert (region["from_name"], region["to_name"], region["type"]) == ("label", "text", "labels")
    assert region["value"] == {"start": 0, "end": 3, "text": "IBM", "labels": ["ORG"]}


@pytest.mark.parametrize("form", ["label-studio"])
def test_no_texts_are_an_empty_array(form: str) -> None:
    assert json.loads("".join(written([], form))) == []


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(NotFound, match=r"unknown format 'docano' \(did you mean 'doccano'\?\)"):
        list(written([], "docano"))


def test_columns_refuse_overlaps() -> None:
    one = Marked("New York", (Mark(0, 8, "LOC"), Mark(4, 8, "X")), "a:3")
    with pytest.raises(InvalidInput, match="a:3: spans 0-8 and 4-8 overlap"):
        list(written([one], "conll"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"Hi," she said.', ['"', "Hi", ",", '"', "she", "said", "."]),
        ("don't Saint-Denis 3.5 (x)", ["don't", "Saint-Denis", "3.5", "(", "x", ")"]),
        ("#Oslo हिन्दी e\u0301 😀!", ["#", "Oslo", "हिन्दी", "e\u0301", "😀", "!"]),
        ("...", [".", ".", "."]),
        (" \u3000\u00a0", []),
    ],
)
def test_punctuation_around_words_stands_alone(text: str, words: list[str]) -> None:
    assert [text[a:b] for a, b in plain_words(text)] == words


def test_the_longest_of_overlapping_spans_stays() -> None:
    spans = (Mark(0, 4, "A"), Mark(0, 4, "B"), Mark(3, 9, "C"), Mark(9, 10, "D"))
    assert longest(spans) == (Mark(3, 9, "C"), Mark(9, 10, "D"))
    assert overlapping(spans) == [(spans[0], spans[1]), (spans[0], spans[2])]


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ("U-A B-A I-A L-A O", "B-A B-A I-A I-A O"),
        ("S-A B-A I-A E-A O", "B-A B-A I-A I-A O"),
        ("W-A B-A M-A E-A O", "B-A B-A I-A I-A O"),
        ("I-A I-A B-A O I-B", "B-A I-A B-A O B-B"),
    ],
)
def test_every_scheme_is_iob2(tags: str, wanted: str) -> None:
    assert as_iob2(tags.split()) == wanted.split()


GOLDEN = Path(__file__).parents[1] / "golden" / "formats"
CLASSIFIED: list[Any] = [
    {"text": "a", "options": [{"id": "b"}], "accept": ["b"], "answer": "accept"},
    {"text": "a", "cats": {"b": 1.0}},
    {"data": {"text": "a"}, "annotations": [{"result": [{"type": "choices", "value": {}}]}]},
]
ODD: list[Any] = [
    *(None, 0, -1, 1.5, True, "", "x", 1e400, "\ud800", [], {}, [1], ["a"], [None], {"a": 1}),
    *([[0, 1, "X"]], {"start": 0}, {"text": 1}, [[]], {"labels": [1]}),
]


def golden_rows() -> list[Any]:
    rows = list(CLASSIFIED)
    for path in sorted(GOLDEN.iterdir()):
        text = path.read_text()
        whole = json.loads(text) if path.suffix == ".json" else None
        rows += whole if isinstance(whole, list) else [whole]
        rows += [] if whole is not None else [json.loads(line) for line in text.splitlines()]
    return rows


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Returns the way to every value inside a value."""
    keys = value if isinstance(value, dict) else range(len(value) if isinstance(value, list) else 0)
    found = []
    for key in keys:
        found += [(*place, key), *places(value[key], (*place, key))]
    return found


def test_whatever_stands_in_a_row_is_read_or_refused_in_one_line() -> None:
    chosen = random.Random(0)
    rows = golden_rows()
    for _ in range(3000):
        row = copy.deepcopy(chosen.choice(rows))
        for _ in range(chosen.choice([1, 1, 2])):
            damage(row, chosen)
        values = as_row(row)
        for read in (spans_of, labels_of) if values else ():
            try:
                read(values)
            except TrunklineError as error:
                assert len(str(error).splitlines()) == 1


def damage(row: Any, chosen: random.Random) -> None:
    """Takes a value out of a row, or puts an odd one in its place."""
    there = places(row)
    if not there:
        return
    *way, last = chosen.choice(there)
    for key in way:
        row = row[key]
    if isinstance(row, dict) and chosen.random() < 0.3:
        del row[last]
    else:
        row[last] = copy.deepcopy(chosen.choice(ODD))


def spans_of(values: Any) -> None:
    notes = Notes("data")
    if holds_text(values, None):
        list(read_row(values, "here", Reading(), notes))
    notes.check()


def labels_of(values: Any) -> None:
    if is_classified(values):
        read_classified(values, "here", None, None, Notes("data"))
