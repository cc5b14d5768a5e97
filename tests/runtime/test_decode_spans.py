from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from tests.runtime.samples import ENCODERS, cut, noise, seeds, texts
from trunkline.decode.numeric import log_softmax
from trunkline.decode.spans import best_path, decode_spans, join_tags
from trunkline.encode import Encoded
from trunkline.errors import RuntimeFault
from trunkline.tasks import TaskSpec, TokenOptions

LABELS = ("O", "B-A", "I-A", "B-B", "I-B")
SPANS = TaskSpec("ner", "token-classification", LABELS, TokenOptions("spans"))
TAGS = TaskSpec("pos", "token-classification", LABELS, TokenOptions("tags"))
LONG = "xyz IBM opened an abc office in Bern . " * 5

Logits = NDArray[np.float32]


def logits(units: st.SearchStrategy[int]) -> st.SearchStrategy[Logits]:
    numbers = st.integers(-4, 4) | st.floats(-20, 20, width=32, allow_subnormal=False)
    return units.flatmap(lambda count: arrays(np.float32, (count, len(LABELS)), elements=numbers))


def well_formed(tags: list[str]) -> bool:
    before = ["O", *tags]
    return all(
        tag[0] != "I" or previous[2:] == tag[2:]
        for previous, tag in zip(before, tags, strict=False)
    )


def named(path: NDArray[np.intp]) -> list[str]:
    return [LABELS[label] for label in path]


def decoded(tags: str) -> list[tuple[str, str]]:
    """Decodes `a b c ...` with logits that want the tags; gives (text, label)."""
    wanted = tags.split()
    encoded = cut(" ".join("abcdefgh"[: len(wanted)]))
    (row,) = encoded.rows
    values = np.zeros((len(row), len(LABELS)), np.float32)
    values[row.context] = 9 * np.eye(len(LABELS))[[LABELS.index(tag) for tag in wanted]]
    return [(span.text, span.label) for span in decode_spans(SPANS, encoded, [values])]


@given(logits(st.integers(1, 4)))
def test_the_path_is_the_best_of_all_well_formed_ones(values: Logits) -> None:
    scores = log_softmax(values)
    paths = [list(path) for path in product(range(len(LABELS)), repeat=len(values))]
    sums = [
        sum(float(scores[at, label]) for at, label in enumerate(path))
        for path in paths
        if well_formed([LABELS[label] for label in path])
    ]
    found = best_path(scores, LABELS)
    assert well_formed(named(found))
    total = sum(float(scores[at, label]) for at, label in enumerate(found))
    assert total == pytest.approx(max(sums), abs=1e-4)


@given(logits(st.integers(1, 30)))
def test_the_path_is_well_formed_and_the_argmax_where_that_is(values: Logits) -> None:
    scores = log_softmax(values)
    found = named(best_path(scores, LABELS))
    assert well_formed(found)
    greedy = named(scores.argmax(axis=-1))
    if well_formed(greedy):
        assert found == greedy


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ("O B-A I-A O", [("b c", "A")]),
        ("B-A B-A I-A", [("a", "A"), ("b c", "A")]),
        ("B-A I-A B-B I-B", [("a b", "A"), ("c d", "B")]),
        ("O O", []),
        ("B-A", [("a", "A")]),
    ],
)
def test_well_formed_tags_are_joined(tags: str, wanted: list[tuple[str, str]]) -> None:
    assert decoded(tags) == wanted


@pytest.mark.parametrize("tags", ["I-A I-A", "O I-A I-A", "B-A I-B I-B", "I-A I-B"])
def test_ill_formed_tags_are_repaired(tags: str) -> None:
    wanted = tags.split()
    found = [label for _, label in decoded(tags)]
    assert found
    assert set(found) <= {tag[2:] for tag in wanted if tag != "O"}


def test_an_inside_tag_alone_opens_its_entity_when_that_is_next_best() -> None:
    values = np.full((3, len(LABELS)), -9, np.float32)
    values[:, 0] = 0
    values[1, 2], values[1, 1] = 5, 4  # I-A a little over B-A
    assert named(best_path(log_softmax(values), LABELS)) == ["O", "B-A", "O"]


def test_an_inside_tag_makes_its_opening_worth_while() -> None:
    values = np.full((2, len(LABELS)), -9, np.float32)
    values[0, 0], values[0, 1] = 1, 0  # O a little over B-A
    values[1, 2], values[1, 0] = 9, 0
    assert named(best_path(log_softmax(values), LABELS)) == ["B-A", "I-A"]


def test_labels_in_any_order_decode_alike() -> None:
    encoded = cut(LONG)
    values = noise(encoded, 5, len(LABELS))
    turned = replace(SPANS, labels=LABELS[::-1])
    spans = decode_spans(SPANS, encoded, values)
    again = decode_spans(turned, encoded, [value[:, ::-1] for value in values])
    assert [(span.start, span.end, span.label) for span in spans] == [
        (span.start, span.end, span.label) for span in again
    ]


def test_tags_keep_every_words_own_argmax() -> None:
    encoded = cut(LONG)
    values = noise(encoded, 1, len(LABELS))
    spans = decode_spans(TAGS, encoded, values)
    assert [span.text for span in spans] == LONG.split()
    joined = np.concatenate(
        [value[row.owned] for row, value in zip(encoded.rows, values, strict=True)]
    )
    firsts = encoded.tokens.words.firsts
    assert [span.label for span in spans] == named(joined[firsts].argmax(axis=-1))


def test_a_score_is_the_mean_probability_of_the_words() -> None:
    encoded = cut("a b")
    values = np.zeros((4, len(LABELS)), np.float32)
    values[1, 1], values[2, 2] = np.log(12), np.log(4)  # 12 / 16 and 4 / 8
    (span,) = decode_spans(SPANS, encoded, [values])
    assert (span.text, span.label) == ("a b", "A")
    assert span.score == pytest.approx((0.75 + 0.5) / 2)


@pytest.mark.parametrize("spec", [SPANS, TAGS], ids=["spans", "tags"])
@pytest.mark.parametrize("name", ENCODERS)
@given(text=texts, seed=seeds)
@settings(max_examples=30)
def test_spans_are_pieces_of_the_text_in_order(
    name: str, spec: TaskSpec, text: str, seed: int
) -> None:
    encoder = ENCODERS[name]
    tokens = encoder.tokenize(text)
    encoded = Encoded(tokens, encoder.rows(tokens))
    spans = decode_spans(spec, encoded, noise(encoded, seed, len(LABELS)))
    for span in spans:
        assert span.text == text[span.start : span.end]
        assert span.text == span.text.strip() != ""
        assert 0 <= span.score <= 1
    firsts = [span.start for span in spans]
    assert firsts == sorted(firsts)


@pytest.mark.parametrize("spec", [SPANS, TAGS], ids=["spans", "tags"])
@given(seed=seeds, other=seeds)
@settings(max_examples=30)
def test_pieces_after_a_words_first_never_matter(spec: TaskSpec, seed: int, other: int) -> None:
    encoded = cut(LONG)
    values, changed = noise(encoded, seed, len(LABELS)), noise(encoded, other, len(LABELS))
    firsts = encoded.tokens.words.firsts
    for row, value, change in zip(encoded.rows, values, changed, strict=True):
        for token in firsts[(firsts >= row.begin) & (firsts < row.end)]:
            change[row.offset + token - row.begin] = value[row.offset + token - row.begin]
    assert decode_spans(spec, encoded, values) == decode_spans(spec, encoded, changed)


def test_a_word_takes_the_label_of_the_window_that_owns_it() -> None:
    encoded = cut("a " * 100, overlap=8)
    spec = replace(TAGS, labels=tuple(f"row-{number}" for number in range(len(encoded.rows))))
    values = [
        np.tile(np.eye(len(encoded.rows), dtype=np.float32)[number], (len(row), 1))
        for number, row in enumerate(encoded.rows)
    ]
    labels = [span.label for span in decode_spans(spec, encoded, values)]
    assert labels == [
        f"row-{number}"
        for number, row in enumerate(encoded.rows)
        for _ in range(row.own_begin, row.own_end)
    ]


def test_a_span_goes_on_over_a_window_border() -> None:
    encoded = cut("a " * 50)
    assert len(encoded.rows) > 2
    inside = [np.tile(np.float32([0, 0, 9, 0, 0]), (len(row), 1)) for row in encoded.rows]
    inside[0][encoded.rows[0].offset] = [0, 9, 0, 0, 0]
    (span,) = decode_spans(SPANS, encoded, inside)
    assert (span.start, span.end) == (0, 99)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 3, -1])
def test_logits_that_are_not_finite_are_a_fault(bad: float, place: int) -> None:
    encoded = cut(LONG)
    values = noise(encoded, 0, len(LABELS))
    values[1][place, 2] = bad
    with pytest.raises(RuntimeFault, match=r"^ner: "):
        decode_spans(SPANS, encoded, values)


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_logits_far_apart_give_scores_all_the_same(size: float) -> None:
    encoded = cut("a b c")
    values = noise(encoded, 0, len(LABELS))
    spans = decode_spans(TAGS, encoded, [value * np.float32(size) for value in values])
    assert [span.score for span in spans] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("text", ["", "  ", "\0"])
def test_an_empty_text_has_no_spans(text: str) -> None:
    assert decode_spans(SPANS, cut(text), []) == ()
    assert decode_spans(TAGS, cut(text), []) == ()


@given(st.lists(st.sampled_from(LABELS), max_size=20))
def test_joined_tags_give_the_tags_back(tags: list[str]) -> None:
    if not well_formed(tags):
        return
    again = ["O"] * len(tags)
    for begin, end, label in join_tags(tags):
        again[begin:end] = [f"B-{label}", *[f"I-{label}"] * (end - begin - 1)]
    assert again == tags
