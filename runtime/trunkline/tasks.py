"""What a task is: its name, kind, labels, and how its answers are decoded by default."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from trunkline.ranges import BelowOne, Count, Probability

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")


@dataclass(frozen=True)
class TokenOptions:
    """How token classification is decoded.

    Attributes:
        aggregation: `spans` joins B-/I- labels (IOB2) into entities or chunks; `tags` gives every
            word its own label, as part-of-speech tagging wants it.
    """

    aggregation: Literal["spans", "tags"] = "spans"

    def check_labels(self, labels: tuple[str, ...]) -> None:
        """Refuses labels that could not be decoded."""
        if not labels:
            raise ValueError("has no labels")
        for label in labels if self.aggregation == "spans" else ():
            prefix, _, kind = label.partition("-")
            if label != "O" and not (prefix in ("B", "I") and kind):
                raise ValueError(f"label {label!r} is not O, B-TYPE or I-TYPE; or decode as 'tags'")
            if prefix == "I" and f"B-{kind}" not in labels:
                raise ValueError(f"label {label!r} cannot occur without B-{kind}")


@dataclass(frozen=True)
class AnswerOptions:
    """How extractive question answering is decoded.

    Attributes:
        n_best: Number of answers to return, best first.
        max_answer_tokens: Longest answer, in tokens.
        no_answer_threshold: Probability of "no answer" above which no answer is returned;
            None always answers (SQuAD v1).
    """

    n_best: Count = 1
    max_answer_tokens: Count = 30
    no_answer_threshold: Probability | None = None

    def check_labels(self, labels: tuple[str, ...]) -> None:
        """Refuses labels: an answer has none."""
        if labels:
            raise ValueError("takes no labels")


@dataclass(frozen=True)
class TextOptions:
    """How text classification is decoded.

    Attributes:
        multi_label: Any number of labels fits a text, each by its own probability; else one does.
        pair: The task reads a pair of texts.
        threshold: Probability above which a label of a multi-label task is given.
        n_best: Most labels to return, best first; None for all.
    """

    multi_label: bool = False
    pair: bool = False
    threshold: BelowOne = 0.5
    n_best: Count | None = None

    def check_labels(self, labels: tuple[str, ...]) -> None:
        """Refuses labels that leave nothing to decide, and empty ones."""
        least = 1 if self.multi_label else 2
        if len(labels) < least:
            found = ", ".join(map(repr, labels)) or "none"
            raise ValueError(f"has too few labels ({found}); it needs at least {least}")
        if "" in labels:
            raise ValueError("a label is empty")


Options = TokenOptions | AnswerOptions | TextOptions


@dataclass(frozen=True)
class TaskSpec:
    """One task of a model, as it stands in checkpoints and bundles.

    Attributes:
        name: Unique in the model; lower case, also the prefix of the graph's outputs.
        kind: A key of `trunkline.kinds.KINDS`.
        labels: In the order of the logits; empty where the kind has none.
        options: Decode defaults of the kind's own type.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    options: Options

    def __post_init__(self) -> None:
        """Refuses names that could not prefix a graph output, and labels that do not fit."""
        check_task_name(self.name)
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"task {self.name!r}: labels repeat")
        try:
            self.options.check_labels(self.labels)
        except ValueError as error:
            raise ValueError(f"task {self.name!r}: {error}") from None

    @property
    def pair(self) -> bool:
        """Whether the task reads a pair of texts."""
        return isinstance(self.options, TextOptions) and self.options.pair


def check_task_name(name: str) -> None:
    """Raises ValueError unless `name` can name a task."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"task name {name!r}: use lower-case letters, digits, _ and -, starting with a letter"
        )
