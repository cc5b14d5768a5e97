"""Training examples, one type per kind of task, whatever file they came from."""

from __future__ import annotations

from dataclasses import dataclass

from trunkline.formats.marked import Mark
from trunkline_train.data.records import token_place


@dataclass(frozen=True)
class TokenExample:
    """A text with a label on every word.

    Attributes:
        text: The words joined by blanks, or a text with spans, as it is.
        words: (start, end) of each word in the text, end-exclusive.
        tags: One label per word; spans in IOB2.
        where: File and line, for errors.
        split: Whether the data has words, or a tokenizer gave them; else they are ours, to score
            spans of a text by: punctuation stands alone, and a span begins and ends a word.
        lines: Of a sentence in a file, the line of each word.
    """

    text: str
    words: tuple[tuple[int, int], ...]
    tags: tuple[str, ...]
    where: str
    split: bool = True
    lines: tuple[int, ...] = ()

    def place(self, word: int) -> str:
        """Returns where a word stands, for errors."""
        return token_place(self.where, self.lines, word) if self.split else self.where

    @property
    def spans(self) -> list[Mark]:
        """The spans that the tags are of, in the order of the text."""
        spans: list[Mark] = []
        for (start, end), tag in zip(self.words, self.tags, strict=True):
            if tag.startswith("B-"):
                spans.append(Mark(start, end, tag[2:]))
            elif tag.startswith("I-"):
                spans[-1] = spans[-1]._replace(end=end)
        return spans

    @property
    def document(self) -> str:
        """The text that rows are cut from."""
        return self.text

    @property
    def beside(self) -> str | None:
        """What stands in every row beside the text: a question, or the second text of a pair."""
        return None

    @property
    def group(self) -> str:
        """What must not be split between training and held-out data."""
        return self.text


@dataclass(frozen=True)
class AnswerExample:
    """A question about a context, with its gold answers.

    Attributes:
        id: Of the question.
        question: The question.
        context: The text that holds the answers.
        answers: Gold answers; empty if the context holds none (SQuAD v2).
        starts: Where each answer starts in the context.
        where: File and line or id, for errors.
    """

    id: str
    question: str
    context: str
    answers: tuple[str, ...]
    starts: tuple[int, ...]
    where: str

    @property
    def document(self) -> str:
        """The text that rows are cut from."""
        return self.context

    @property
    def beside(self) -> str | None:
        """What stands in every row beside the text: a question, or the second text of a pair."""
        return self.question

    @property
    def group(self) -> str:
        """What must not be split between training and held-out data."""
        return self.context


@dataclass(frozen=True)
class TextExample:
    """A text, or a pair of texts, with the labels of the whole.

    Attributes:
        text: The text.
        text_pair: The second text of a pair; None where the task reads single texts.
        labels: One label; of a multi-label task any number, none included.
        where: File and line, for errors.
    """

    text: str
    text_pair: str | None
    labels: tuple[str, ...]
    where: str

    @property
    def document(self) -> str:
        """The text that rows are cut from."""
        return self.text

    @property
    def beside(self) -> str | None:
        """What stands in every row beside the text: a question, or the second text of a pair."""
        return self.text_pair

    @property
    def group(self) -> str:
        """What must not be split between training and held-out data."""
        return self.text


Example = TokenExample | AnswerExample | TextExample


def token_example(
    words: list[str], tags: list[str], where: str, lines: tuple[int, ...] = ()
) -> TokenExample:
    """Joins words by blanks and notes where each stands."""
    bounds = []
    position = 0
    for word in words:
        bounds.append((position, position + len(word)))
        position += len(word) + 1
    return TokenExample(" ".join(words), tuple(bounds), tuple(tags), where, lines=lines)
