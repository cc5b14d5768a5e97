"""Exact match and F1 of answers, by the rules of the official SQuAD evaluation.

Rules: github.com/rajpurkar/SQuAD-explorer, evaluate-v2.0.py, which also reads v1.1 data. Both are
the maximum over all gold answers, averaged over questions; a missing answer counts as empty.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

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
    exact = f1 = 0.0
    for truths, guess in zip(gold, predicted, strict=True):
        # A question whose answers are all empty after normalising counts as unanswerable.
        wanted = [truth for truth in truths if normalize(truth)] or [""]
        exact += max(normalize(truth) == normalize(guess) for truth in wanted)
        f1 += max(token_f1(truth, guess) for truth in wanted)
    n = len(gold)
    return AnswerScores(100.0 * exact / n, 100.0 * f1 / n, n) if n else AnswerScores(0.0, 0.0, 0)


def normalize(text: str) -> str:
    """Lower-cases, drops punctuation and articles, and collapses white space."""
    words = _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION))
    return " ".join(words.split())


def token_f1(gold: str, predicted: str) -> float:
    """Returns the F1 of the bags of words, in [0, 1]."""
    truth, guess = normalize(gold).split(), normalize(predicted).split()
    if not truth or not guess:
        return float(truth == guess)
    same = (Counter(truth) & Counter(guess)).total()
    return 2.0 * same / (len(truth) + len(guess)) if same else 0.0
