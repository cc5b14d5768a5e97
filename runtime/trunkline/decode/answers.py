"""Extractive question answering: start and end logits [S] per row to the n best answers.

All windows are pooled. A candidate is a pair of document tokens i <= j with at most
`max_answer_tokens` tokens, neither of them white space, scored start[i] + end[j]; probabilities are
taken over all candidates and "no answer", whose score is the lowest first-token start + end of any
window, as in the official SQuAD v2 post-processing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trunkline.annotations import Answer, Answers
from trunkline.decode.numeric import Floats, check_finite, exp
from trunkline.encode import Encoded, Tokens
from trunkline.tasks import AnswerOptions, TaskSpec


def decode_answers(
    spec: TaskSpec, encoded: Encoded, starts: Sequence[Floats], ends: Sequence[Floats]
) -> Answers:
    """Returns the n best answers in the document.

    Args:
        spec: A question-answering task.
        encoded: The rows of one question over one document.
        starts: One [S] array of start logits per row.
        ends: One [S] array of end logits per row.

    Raises:
        RuntimeFault: The logits are not finite.
    """
    if not encoded.rows:
        return Answers((), 1.0)
    check_finite(spec.name, [*starts, *ends])
    options = spec.options
    assert isinstance(options, AnswerOptions)
    scores = _pool(encoded, starts, ends, options.max_answer_tokens)
    null = min(float(start[0]) + float(end[0]) for start, end in zip(starts, ends, strict=True))
    top = max(float(scores.max()), null)
    weights = exp(scores - top)
    total = float(weights.sum()) + float(np.exp(null - top))
    no_answer = float(np.exp(null - top)) / total
    threshold = options.no_answer_threshold
    if threshold is not None and no_answer > threshold:
        return Answers((), no_answer)
    best = _best(scores, options.n_best)
    answers = (_answer(encoded.tokens, i, j, float(weights[i, j - i]) / total) for i, j in best)
    return Answers(tuple(answers), no_answer)


def _pool(
    encoded: Encoded, starts: Sequence[Floats], ends: Sequence[Floats], longest: int
) -> NDArray[np.float64]:
    """Returns [N, longest]: the score of the candidate from token i over k + 1 tokens, else -inf.

    A candidate seen by several windows keeps its highest score.
    """
    tokens = encoded.tokens
    pooled = np.full((len(tokens), min(longest, len(tokens))), -np.inf)
    # Byte-level tokenizers make tokens of white space too.
    barred = np.where(tokens.starts < tokens.ends, 0.0, -np.inf)
    for row, start, end in zip(encoded.rows, starts, ends, strict=True):
        part = slice(row.begin, row.end)
        heads, tails = (
            values[row.context].astype(np.float64) + barred[part] for values in (start, end)
        )
        window = _window_scores(heads, tails, pooled.shape[1])
        np.maximum(pooled[part], window, out=pooled[part])
    return pooled


def _window_scores(
    heads: NDArray[np.float64], tails: NDArray[np.float64], longest: int
) -> NDArray[np.float64]:
    padded = np.append(tails, np.full(longest - 1, -np.inf))
    scores: NDArray[np.float64] = heads[:, None] + np.lib.stride_tricks.sliding_window_view(
        padded, longest
    )
    return scores


def _best(scores: NDArray[np.float64], count: int) -> list[tuple[int, int]]:
    """Returns the `count` highest candidates as (first, last) token; ties go to the earlier."""
    flat = scores.ravel()
    count = min(count, int(np.isfinite(flat).sum()))
    order = [flat.argmax()] if count == 1 else np.argsort(-flat, kind="stable")[:count]
    firsts, lengths = np.divmod(order, scores.shape[1])
    return [(int(i), int(i + k)) for i, k in zip(firsts, lengths, strict=True)]


def _answer(tokens: Tokens, first: int, last: int, score: float) -> Answer:
    start, end = int(tokens.starts[first]), int(tokens.ends[last])
    return Answer(start, end, tokens.text[start:end], score)
