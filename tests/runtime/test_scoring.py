import string
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.scheme import IOB2

from trunkline.decode.spans import join_tags
from trunkline.scoring.entities import Counts, Entity, score_entities, to_iob2
from trunkline.scoring.squad import normalize, score_answers, token_f1

TAGS = ("O", "B-A", "I-A", "B-B", "I-B", "B-C-D", "I-C-D")
TAG = st.sampled_from(TAGS)

# Texts of two annotators: (gold, predicted) tags of each.
pairs = st.lists(st.lists(st.tuples(TAG, TAG), min_size=1, max_size=12), min_size=1, max_size=6)

words = st.sampled_from(
    [
        *("the", "The", "a", "an", "THE", "a.", "(a)", "the-end", "the_end", "", "\u00a0"),
        *("Bern", "bern", "U.S.", "it's", "its", "'s", "–", "-", "!", "1,000", "1000"),
        *("İ", "ß", "ﬁ", "東京", "٣"),
    ]
)
phrases = st.lists(words | st.text(max_size=6), max_size=6).map(" ".join)


def iob1(tags: list[str]) -> list[str]:
    """Writes well-formed IOB2 in IOB1: B- only where a neighbour of the same type goes before."""
    before = ["O", *tags]
    return [
        f"I-{tag[2:]}" if tag[0] == "B" and previous[2:] != tag[2:] else tag
        for previous, tag in zip(before, tags, strict=False)
    ]


def conlleval(tags: list[str]) -> list[Entity]:
    """Returns the chunks that the rules of conlleval.pl (startOfChunk, endOfChunk) find."""
    found: list[Entity] = []
    begin = -1
    for at, (last, tag) in enumerate(zip(["O", *tags], [*tags, "O"], strict=True)):
        other = last[2:] != tag[2:]
        if begin >= 0 and (tag[0] in "BO" or other):
            found.append((begin, at, last[2:]))
            begin = -1
        if tag[0] == "B" or (tag[0] == "I" and (last[0] == "O" or other)):
            begin = at
    return found


@given(pairs)
def test_entity_scores_are_seqevals(given_: list[list[tuple[str, str]]]) -> None:
    gold = [to_iob2([tag for tag, _ in text]) for text in given_]
    guess = [to_iob2([tag for _, tag in text]) for text in given_]
    scores = score_entities([join_tags(tags) for tags in gold], [join_tags(tags) for tags in guess])
    found = scores.overall
    for strict in ({}, {"mode": "strict", "scheme": IOB2}):
        wanted = [
            100 * metric(gold, guess, zero_division=0, **strict)
            for metric in (f1_score, precision_score, recall_score)
        ]
        assert [found.f1, found.precision, found.recall] == pytest.approx(wanted)
    per_type = f1_score(gold, guess, average=None, zero_division=0)
    assert [counts.f1 for counts in scores.by_type.values()] == pytest.approx(
        [100 * value for value in per_type]
    )


@given(st.lists(TAG, max_size=20))
def test_entities_of_any_tags_are_those_conlleval_sees(tags: list[str]) -> None:
    assert join_tags(to_iob2(tags)) == conlleval(tags)


@given(st.lists(TAG, max_size=20))
def test_iob1_is_read_as_the_iob2_it_stands_for(tags: list[str]) -> None:
    wanted = to_iob2(tags)
    assert to_iob2(iob1(wanted)) == wanted
    assert to_iob2(wanted) == wanted


def test_an_entity_is_right_if_begin_end_and_type_are() -> None:
    gold: list[Entity] = [(0, 3, "A"), (4, 6, "B"), (7, 9, "B")]
    guess: list[Entity] = [(0, 3, "A"), (4, 6, "A"), (7, 8, "B"), (7, 9, "B")]
    scores = score_entities([gold, []], [guess, [(0, 1, "C")]])
    assert scores.overall == Counts(correct=2, predicted=5, gold=3)
    assert scores.by_type == {"A": Counts(1, 2, 1), "B": Counts(1, 2, 2), "C": Counts(0, 1, 0)}


def test_scores_of_nothing_are_zero() -> None:
    nothing = score_entities([], []).overall
    assert (nothing.f1, nothing.precision, nothing.recall) == (0.0, 0.0, 0.0)
    empty = score_answers([], [])
    assert (empty.exact_match, empty.f1, empty.n) == (0.0, 0.0, 0)


def test_texts_of_unequal_number_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        score_entities([[]], [])
    with pytest.raises(ValueError, match="shorter"):
        score_answers([["a"]], [])


def is_word_sign(sign: str) -> bool:
    return sign.isalnum() or sign == "_"


def official_normal(text: str) -> str:
    """Normalises as evaluate-v2.0.py does, without regular expressions."""
    kept = "".join(sign for sign in text.lower() if sign not in string.punctuation)
    runs = ["".join(run) for _, run in groupby(kept, key=is_word_sign)]
    return " ".join("".join(" " if run in ("a", "an", "the") else run for run in runs).split())


def official_f1(gold: str, guess: str) -> float:
    truth, found = official_normal(gold).split(), official_normal(guess).split()
    if not truth or not found:
        return float(truth == found)
    left = list(truth)
    same = 0
    for word in found:
        if word in left:
            left.remove(word)
            same += 1
    if same == 0:
        return 0.0
    precision, recall = same / len(found), same / len(truth)
    return 2 * precision * recall / (precision + recall)


@given(phrases)
def test_normalising_is_the_official_one(text: str) -> None:
    assert normalize(text) == official_normal(text)
    assert normalize(normalize(text)) == normalize(text)


@given(phrases, phrases)
def test_f1_is_the_official_one(gold: str, guess: str) -> None:
    assert token_f1(gold, guess) == pytest.approx(official_f1(gold, guess))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The Cat.", "cat"),
        ("an  a\tthe", ""),
        ("U.S.A.", "usa"),
        ("it's 1,000", "its 1000"),
        ("a.b the-end", "ab theend"),
        ("theatre another", "theatre another"),
        ("« Bern »", "« bern »"),
        ("", ""),
        ("!?", ""),
    ],
)
def test_answers_are_normalised(text: str, wanted: str) -> None:
    assert normalize(text) == wanted


@given(st.lists(st.tuples(st.lists(phrases, max_size=3), phrases), min_size=1, max_size=5))
def test_answers_are_scored_against_their_best_gold(
    given_: list[tuple[list[str], str]],
) -> None:
    exact = f1 = 0.0
    for golds, guess in given_:
        golds = [gold for gold in golds if official_normal(gold)] or [""]  # noqa: PLW2901
        exact += max(official_normal(gold) == official_normal(guess) for gold in golds)
        f1 += max(official_f1(gold, guess) for gold in golds)
    scores = score_answers([golds for golds, _ in given_], [guess for _, guess in given_])
    assert scores.exact_match == pytest.approx(100 * exact / len(given_))
    assert scores.f1 == pytest.approx(100 * f1 / len(given_))
    assert scores.n == len(given_)


def test_no_answer_is_right_where_there_is_none_and_only_there() -> None:
    scores = score_answers([[], ["the"], ["Bern"]], ["", "", ""])
    assert scores.exact_match == pytest.approx(200 / 3)
    assert score_answers([[]], ["Bern"]).f1 == 0.0
