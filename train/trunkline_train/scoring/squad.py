"""Exact match and F1 of answers, by the rules of the official SQuAD evaluation.

Rules: github.com/rajpurkar/SQuAD-explorer, evaluate-v2.0.py, which also reads v1.1 data. Both
metrics take the maximum over gold answers and average over questions; no answer is "". The
official `HasAns_exact`, `HasAns_f1` and `NoAns_exact` (which equals `NoAns_f1`) are here
`has_answer_exact_match`, `has_answer_f1` and `no_answer_accuracy`.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trunkline_train.scoring.tally import CountTable, Metric, Share, Tally

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class AnswerScores:
    """Exact match and F1 in points, over `n` questions."""

    exact_match: float
    f1: float
    n: int


def score_answers(gold: Sequence[Sequence[str]], predicted: Sequence[str]) -> AnswerScores:
    """Scores one predicted answer per question against all its gold answers."""
    values = tally_answers(gold, predicted).values()
    return AnswerScores(values["exact_match"], values["f1"], len(gold))


def tally_answers(gold: Sequence[Sequence[str]], predicted: Sequence[str]) -> Tally:
    """Tallies exact match and F1 over all questions, and over those with and without answers.

    Args:
        gold: All gold answers of each question; empty if the text has none (v2).
        predicted: One answer per question; empty for "no answer".
    """
    rows = []
    for truths, guess in zip(gold, predicted, strict=True):
        exact, f1 = score_answer(truths, guess)
        has, no = float(bool(truths)), float(not truths)
        rows.append((1.0, exact, f1, has, has * exact, has * f1, no, no * exact))
    metrics: dict[str, Metric] = {"exact_match": Share(1, 0), "f1": Share(2, 0)}
    if not all(gold):
        metrics["no_answer_accuracy"] = Share(7, 6)
        if any(gold):
            metrics |= {"has_answer_exact_match": Share(4, 3), "has_answer_f1": Share(5, 3)}
    return Tally(CountTable.of_rows(rows, 8), metrics)


def score_answer(truths: Sequence[str], guess: str) -> tuple[float, float]:
    """Returns exact match and F1 of one answer, in [0, 1], against the best-matching gold."""
    # If all answers of a question are empty after normalising, it counts as unanswerable.
    wanted = [truth for truth in truths if normalize(truth)] or [""]
    exact = max(normalize(truth) == normalize(guess) for truth in wanted)
    return float(exact), max(token_f1(truth, guess) for truth in wanted)


def best_threshold(
    no_answer_scores: Sequence[float], gold: Sequence[Sequence[str]], predicted: Sequence[str]
) -> float:
    """Returns the threshold for "no answer" with the highest F1 on these questions.

    A question gets no answer if its no-answer score is above the threshold. The threshold is
    half-way between two neighbouring scores, the lowest best pair, so that slightly different
    arithmetic, such as int8, gives the same decisions.

    Args:
        no_answer_scores: No-answer score of each question, in [0, 1].
        gold: All gold answers of each question.
        predicted: The best answer to each question, used if its score is below the threshold.
    """
    scores = np.asarray(no_answer_scores, np.float64)
    kept = np.array([score_answer(*pair)[1] for pair in zip(gold, predicted, strict=True)])
    dropped = np.array([score_answer(truths, "")[1] for truths in gold])
    levels = np.unique(scores)
    gains = np.bincount(np.searchsorted(levels, scores), kept - dropped, len(levels))
    best = int(np.argmax(np.concatenate([[0.0], np.cumsum(gains)])))
    edges = np.concatenate([[0.0], levels, [1.0]])
    return 1.0 if best == len(levels) else float(edges[best] + edges[best + 1]) / 2.0


def normalize(text: str) -> str:
    """Lower-cases, drops punctuation and articles, and collapses white space."""
    words = _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION))
    return " ".join(words.split())


def token_f1(gold: str, predicted: str) -> float:
    """Returns the F1 of two answers as bags of words, in [0, 1]."""
    truth, guess = normalize(gold).split(), normalize(predicted).split()
    if not truth or not guess:
        return float(truth == guess)
    same = (Counter(truth) & Counter(guess)).total()
    return 2.0 * same / (len(truth) + len(guess)) if same else 0.0
