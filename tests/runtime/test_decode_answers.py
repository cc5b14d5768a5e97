from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.runtime.samples import ENCODERS, cut, noise, seeds, texts
from trunkline.annotations import Answers
from trunkline.decode.answers import decode_answers
from trunkline.encode import Encoded
from trunkline.errors import RuntimeFault
from trunkline.tasks import AnswerOptions, TaskSpec

QA = TaskSpec("qa", "question-answering", (), AnswerOptions())
QUESTION = "where is IBM ?"
LONG = "IBM opened an office in Bern . xyz and abc "
EVERYTHING = 10_000

Logits = Sequence[NDArray[np.float32]]


def asking(**options: int | float | None) -> TaskSpec:
    return replace(QA, options=AnswerOptions(**options))  # type: ignore[arg-type]


@st.composite
def asked(draw: st.DrawFn) -> tuple[Encoded, Logits, Logits]:
    """Draws a document of one window or several, and logits that often tie."""
    text = " ".join(LONG.split()[: draw(st.integers(1, 10))] * draw(st.integers(1, 4)))
    encoded = cut(text, QUESTION, overlap=draw(st.integers(0, 8)))
    whole = draw(st.booleans())
    starts, ends = (noise(encoded, draw(seeds), whole=whole) for _ in range(2))
    return encoded, starts, ends


def candidates(
    encoded: Encoded, starts: Logits, ends: Logits, longest: int
) -> dict[tuple[int, int], float]:
    """Scores every admissible pair of document tokens, the slow way."""
    found: dict[tuple[int, int], float] = {}
    for row, start, end in zip(encoded.rows, starts, ends, strict=True):
        for i in range(row.begin, row.end):
            for j in range(i, min(row.end, i + longest)):
                at = row.offset - row.begin
                score = float(start[at + i]) + float(end[at + j])
                found[i, j] = max(score, found.get((i, j), -np.inf))
    return found


def nulls(starts: Logits, ends: Logits) -> list[float]:
    return [float(s[0]) + float(e[0]) for s, e in zip(starts, ends, strict=True)]


@given(asked(), st.integers(1, 6), st.integers(1, 12))
def test_answers_are_the_best_of_all_pairs(
    given_: tuple[Encoded, Logits, Logits], n_best: int, longest: int
) -> None:
    encoded, starts, ends = given_
    scores = candidates(encoded, starts, ends, longest)
    # Ties go to the earlier, then to the shorter.
    order = sorted(scores, key=lambda pair: (-scores[pair], pair))[:n_best]
    spec = asking(n_best=n_best, max_answer_tokens=longest)
    answers = decode_answers(spec, encoded, starts, ends)
    tokens = encoded.tokens
    assert [(a.start, a.end) for a in answers.best] == [
        (tokens.starts[i], tokens.ends[j]) for i, j in order
    ]
    null = min(nulls(starts, ends))
    total = np.exp(null) + sum(np.exp(score) for score in scores.values())
    assert [a.score for a in answers.best] == pytest.approx(
        [np.exp(scores[pair]) / total for pair in order]
    )
    assert answers.no_answer_score == pytest.approx(np.exp(null) / total)


@given(asked(), st.integers(1, 8))
def test_probabilities_add_up_to_one_over_all_answers_and_to_less_over_some(
    given_: tuple[Encoded, Logits, Logits], n_best: int
) -> None:
    def mass(answers: Answers) -> float:
        return sum(answer.score for answer in answers.best) + answers.no_answer_score

    encoded, starts, ends = given_
    assert mass(decode_answers(asking(n_best=n_best), encoded, starts, ends)) <= 1 + 1e-9
    everything = decode_answers(asking(n_best=EVERYTHING), encoded, starts, ends)
    assert mass(everything) == pytest.approx(1)
    scores = [answer.score for answer in everything.best]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


@given(asked())
def test_no_answer_is_listed_twice(given_: tuple[Encoded, Logits, Logits]) -> None:
    answers = decode_answers(asking(n_best=EVERYTHING), *given_)
    places = [(answer.start, answer.end) for answer in answers.best]
    assert len(set(places)) == len(places)


@given(asked(), seeds)
def test_question_and_special_tokens_never_matter_but_for_the_first(
    given_: tuple[Encoded, Logits, Logits], seed: int
) -> None:
    encoded, starts, ends = given_
    changed = []
    for values in (starts, ends):
        loud = [value + 50 for value in noise(encoded, seed)]
        for row, value, kept in zip(encoded.rows, loud, values, strict=True):
            value[0], value[row.context] = kept[0], kept[row.context]
        changed.append(loud)
    spec = asking(n_best=3)
    assert decode_answers(spec, encoded, starts, ends) == decode_answers(spec, encoded, *changed)


def official(encoded: Encoded, starts: Logits, ends: Logits) -> str:
    """The first answer by the well-known post-processing of SQuAD features, written plainly.

    After `postprocess_qa_predictions` of Hugging Face's examples, with as many starts and ends as
    there are.
    """
    best = (-np.inf, "")
    for row, start, end in zip(encoded.rows, starts, ends, strict=True):
        offsets: list[tuple[int, int] | None] = [None] * len(row)
        for token in range(row.begin, row.end):
            bounds = (encoded.tokens.starts[token], encoded.tokens.ends[token])
            offsets[row.offset + token - row.begin] = bounds
        for first in np.argsort(start)[::-1]:
            for last in np.argsort(end)[::-1]:
                head, tail = offsets[first], offsets[last]
                if head is None or tail is None or last < first or last - first + 1 > 30:
                    continue
                text = encoded.tokens.text[head[0] : tail[1]]
                best = max(best, (float(start[first]) + float(end[last]), text))
    return best[1]


@given(seeds, st.integers(1, 4))
@settings(max_examples=50)
def test_the_first_answer_is_that_of_the_official_post_processing(seed: int, times: int) -> None:
    encoded = cut(LONG * times, QUESTION)
    starts, ends = noise(encoded, seed), noise(encoded, seed + 1)
    (answer,) = decode_answers(QA, encoded, starts, ends).best
    assert answer.text == official(encoded, starts, ends)


def test_no_answer_is_as_probable_as_in_the_window_that_least_believes_it() -> None:
    encoded = cut(LONG * 4, QUESTION)
    starts, ends = ([np.zeros(len(row), np.float32) for row in encoded.rows] for _ in range(2))
    before = decode_answers(QA, encoded, starts, ends).no_answer_score
    starts[0][0] = ends[0][0] = 9
    assert decode_answers(QA, encoded, starts, ends).no_answer_score == before
    starts[1][0] = -9
    assert decode_answers(QA, encoded, starts, ends).no_answer_score < before


@given(asked(), st.floats(0, 1, allow_subnormal=False))
def test_above_the_threshold_there_is_no_answer(
    given_: tuple[Encoded, Logits, Logits], threshold: float
) -> None:
    always = decode_answers(QA, *given_)
    found = decode_answers(asking(no_answer_threshold=threshold), *given_)
    assert found.no_answer_score == always.no_answer_score
    assert found.best == (() if always.no_answer_score > threshold else always.best)


def test_at_the_threshold_there_still_is_an_answer() -> None:
    encoded = cut("a", QUESTION)
    (row,) = encoded.rows
    nothing = [np.zeros(len(row), np.float32)]
    answers = decode_answers(asking(no_answer_threshold=0.5), encoded, nothing, nothing)
    assert answers.no_answer_score == 0.5
    assert len(answers.best) == 1


def test_without_a_threshold_there_is_always_an_answer() -> None:
    encoded = cut(LONG, QUESTION)
    starts, ends = noise(encoded, 1), noise(encoded, 2)
    starts[0][0] = ends[0][0] = 80
    answers = decode_answers(QA, encoded, starts, ends)
    assert len(answers.best) == 1
    assert answers.no_answer_score == pytest.approx(1)


def test_an_answer_of_the_overlap_keeps_its_best_window() -> None:
    encoded = cut(LONG * 4, QUESTION, overlap=8)
    starts, ends = ([np.zeros(len(row), np.float32) for row in encoded.rows] for _ in range(2))
    first, second = encoded.rows[:2]
    shared = second.begin
    for row, height in ((first, 3), (second, 5)):
        at = row.offset + shared - row.begin
        starts[row is second][at] = ends[row is second][at] = height
    everything = decode_answers(asking(n_best=EVERYTHING), encoded, starts, ends)
    top = everything.best[0]
    assert (top.start, top.end) == (encoded.tokens.starts[shared], encoded.tokens.ends[shared])
    assert top.score / everything.no_answer_score == pytest.approx(np.exp(10))


def test_answers_are_no_longer_than_asked() -> None:
    encoded = cut(LONG, QUESTION)
    starts, ends = noise(encoded, 3), noise(encoded, 4)
    spec = asking(n_best=EVERYTHING, max_answer_tokens=1)
    answers = decode_answers(spec, encoded, starts, ends).best
    assert len(answers) == len(encoded.tokens)
    assert all(" " not in answer.text for answer in answers)


@pytest.mark.parametrize("name", ENCODERS)
@given(text=texts, seed=seeds)
@settings(max_examples=30)
def test_answers_are_pieces_of_the_text_that_neither_start_nor_end_blank(
    name: str, text: str, seed: int
) -> None:
    encoder = ENCODERS[name]
    tokens = encoder.tokenize(text)
    encoded = Encoded(tokens, encoder.rows(tokens, encoder.tokenize(QUESTION)))
    spec = asking(n_best=EVERYTHING)
    answers = decode_answers(spec, encoded, noise(encoded, seed), noise(encoded, seed + 1))
    for answer in answers.best:
        assert answer.text == text[answer.start : answer.end]
        assert answer.text == answer.text.strip() != ""


@pytest.mark.parametrize("text", ["", "  ", "\0"])
def test_an_empty_text_surely_holds_no_answer(text: str) -> None:
    assert decode_answers(QA, cut(text, QUESTION), [], []) == Answers((), 1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_logits_that_are_not_finite_are_a_fault(bad: float, side: int) -> None:
    encoded = cut(LONG * 3, QUESTION)
    values = noise(encoded, 0), noise(encoded, 1)
    values[side][1][2] = bad
    with pytest.raises(RuntimeFault, match=r"^qa: "):
        decode_answers(QA, encoded, *values)


@pytest.mark.parametrize("size", [1e4, 1e37])
def test_logits_far_apart_give_probabilities_all_the_same(size: float) -> None:
    encoded = cut(LONG, QUESTION)
    starts, ends = ([value * np.float32(size) for value in noise(encoded, at)] for at in (0, 1))
    answers = decode_answers(QA, encoded, starts, ends)
    assert answers.best[0].score + answers.no_answer_score == pytest.approx(1)
