"""Results, as frozen values.

Offsets are end-exclusive, into the original text, in Unicode code points:
`text[span.start:span.end] == span.text` always holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trunkline.terminal import printable

_DIGITS = 4  # of a printed probability
_KEPT = "\n\t"  # of control characters, where a person reads
_SHOWN = 0.005  # a label that would be shown as (0.00) says nothing to a person


@dataclass(frozen=True)
class Span:
    """A labelled piece of the text: an entity, a chunk or a tagged word.

    `score` is the mean probability of the labels the span was read from, in [0, 1].
    """

    start: int
    end: int
    text: str
    label: str
    score: float

    def __str__(self) -> str:
        """Returns label, piece and score, for a person."""
        return printable(f"{self.label:<8} {self.text}  ({self.score:.2f})", _KEPT)

    def to_dict(self) -> dict[str, object]:
        """Returns the JSON form."""
        return {
            "start": self.start,
            "end": self.end,
            "text": self.text,
            "label": self.label,
            "score": round(self.score, _DIGITS),
        }


@dataclass(frozen=True)
class Label:
    """What a whole text, or pair of texts, is; `score` is the label's probability, in [0, 1]."""

    label: str
    score: float

    def __str__(self) -> str:
        """Returns label and score, for a person."""
        return printable(f"{self.label}  ({self.score:.2f})", _KEPT)

    def to_dict(self) -> dict[str, object]:
        """Returns the JSON form."""
        return {"label": self.label, "score": round(self.score, _DIGITS)}


Annotations = tuple[Span, ...] | tuple[Label, ...]
"""What a task found in a text: spans in the order of the text, or labels, best first."""


@dataclass(frozen=True)
class Answer:
    """An answer to a question; `score` is its probability among all admissible answers."""

    start: int
    end: int
    text: str
    score: float

    def __str__(self) -> str:
        """Returns answer and score, for a person."""
        return printable(f"{self.text}  ({self.score:.2f})", _KEPT)

    def to_dict(self) -> dict[str, object]:
        """Returns the JSON form."""
        return {
            "start": self.start,
            "end": self.end,
            "text": self.text,
            "score": round(self.score, _DIGITS),
        }


@dataclass(frozen=True)
class Answers:
    """The n best answers, best first; empty when the text holds none.

    `no_answer_score` is the probability that the text does not hold the answer, in [0, 1].
    """

    best: tuple[Answer, ...]
    no_answer_score: float


@dataclass(frozen=True)
class QuestionResult:
    """A question and what task `task` answered."""

    question: str
    task: str
    answers: tuple[Answer, ...]
    no_answer_score: float

    def to_dict(self) -> dict[str, object]:
        """Returns the JSON form."""
        return {
            "question": self.question,
            "task": self.task,
            "answers": [answer.to_dict() for answer in self.answers],
            "no_answer_score": round(self.no_answer_score, _DIGITS),
        }


@dataclass(frozen=True)
class DocumentResult:
    """Everything one document was asked for: annotations per task, answers per question."""

    text: str
    tasks: Mapping[str, Annotations]
    questions: tuple[QuestionResult, ...]
    text_pair: str | None = None

    def __str__(self) -> str:
        """Returns all of it as lines, for a person."""
        lines = [self.text]
        if self.text_pair is not None:
            lines.append(f"  & {self.text_pair}")
        for task, found in self.tasks.items():
            shown = [one for one in found if isinstance(one, Span) or one.score >= _SHOWN]
            lines += [f"  {task:<8} {one}" for one in shown]
        for question in self.questions:
            lines.append(f"  ? {question.question}")
            lines += [f"    {answer}" for answer in question.answers]
            if not question.answers:
                lines.append("    no answer")
        return printable("\n".join(lines), _KEPT)

    def to_dict(self) -> dict[str, object]:
        """Returns the JSON form, which `trunkline predict --json` prints."""
        pair = {} if self.text_pair is None else {"text_pair": self.text_pair}
        return {
            "text": self.text,
            **pair,
            "tasks": {
                name: [item.to_dict() for item in found] for name, found in self.tasks.items()
            },
            "questions": [question.to_dict() for question in self.questions],
        }
