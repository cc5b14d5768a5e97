"""Accuracy, micro and macro F1 for classes of texts and tags of words.

Macro F1 is the mean over the labels that occur in gold or prediction, as in scikit-learn.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from trunkline_train.scoring.entities import Counts, count_entities
from trunkline_train.scoring.tally import CountTable, Metric, Share, Sums, Tally, points

_Labels = Sequence[Collection[str]]


def tally_labels(gold: _Labels, predicted: _Labels, *, multi_label: bool) -> Tally:
    """Tallies accuracy and macro F1 or, if multi-label, micro F1, macro F1 and exact match.

    Args:
        gold: The gold labels of each text.
        predicted: The predicted labels of each text.
        multi_label: Whether a text may have any number of labels, instead of one.
    """
    labels = sorted({label for given in (*gold, *predicted) for label in given})
    size = len(labels)
    right, macro = Share(-2, -1), _MacroF1(size)
    metrics: dict[str, Metric]
    if multi_label:
        metrics = {"f1": _MicroF1(size), "macro_f1": macro, "exact_match": right}
    else:
        metrics = {"accuracy": right, "macro_f1": macro}
    return Tally(_label_counts(gold, predicted, labels), metrics)


def tally_tags(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Tally:
    """Tallies the accuracy over the words of all texts, given the tags of each text's words."""
    rows = [
        (sum(truth == guess for truth, guess in zip(tags, found, strict=True)), len(tags))
        for tags, found in zip(gold, predicted, strict=True)
    ]
    return Tally(CountTable.of_rows(rows, 2), {"accuracy": Share(0, 1)})


def count_labels(gold: _Labels, predicted: _Labels) -> dict[str, Counts]:
    """Returns the counts of each label, given the labels of every text."""
    # A label is counted as an entity at a fixed position.
    truths, guesses = (
        [[(0, 0, label) for label in labels] for labels in given] for given in (gold, predicted)
    )
    return count_entities(truths, guesses)


def _label_counts(gold: _Labels, predicted: _Labels, labels: Sequence[str]) -> CountTable:
    """Returns [n, 3 L + 2]: correct, predicted and gold per label; exact match; 1."""
    size = len(labels)
    column = {label: at for at, label in enumerate(labels)}

    def cells() -> Iterator[tuple[int, int, float]]:
        for row, (wanted, found) in enumerate(zip(gold, predicted, strict=True)):
            truth, guess = set(wanted), set(found)
            for at, of in enumerate((truth & guess, guess, truth)):
                yield from ((row, at * size + column[label], 1.0) for label in of)
            yield row, 3 * size, float(truth == guess)
            yield row, 3 * size + 1, 1.0

    return CountTable.of((len(gold), 3 * size + 2), cells())


@dataclass(frozen=True)
class _MicroF1:
    """Micro F1 over the given number of labels."""

    labels: int

    def __call__(self, sums: Sums) -> Sums:
        correct, total = _parts(sums, self.labels)
        return points(2.0 * correct.sum(axis=-1), total.sum(axis=-1))


@dataclass(frozen=True)
class _MacroF1:
    """Mean F1 of the labels that occur."""

    labels: int

    def __call__(self, sums: Sums) -> Sums:
        correct, total = _parts(sums, self.labels)
        f1 = points(2.0 * correct, total).sum(axis=-1)
        return points(f1 / 100.0, (total > 0.0).sum(axis=-1).astype(np.float64))


def _parts(sums: Sums, size: int) -> tuple[Sums, Sums]:
    """Returns correct, and predicted + gold, of each label, [..., L] each."""
    correct, predicted, gold = (sums[..., at * size : (at + 1) * size] for at in range(3))
    return correct, predicted + gold
