"""Training examples: one type per kind of task, independent of the file format."""

from __future__ import annotations

from dataclasses import dataclass

from trunkline.formats.marked import Mark
from trunkline_train.data.records import token_place


@dataclass(frozen=True)
class TokenExample:
    """A text with a label on every word.

    Attributes:
        text: The words joined by blanks, or the original text if the data has spans.
        words: (start, end) of each word in the text, end-exclusive.
        tags: One label per word; spans in IOB2.
        where: File and line, for errors.
        split: Whether the words come from the data or a tokenizer. Otherwise `plain_words` made
            them for scoring: punctuation is separate, and spans begin and end at word bounds.
        lines: Line number of each word of a sentence in a file; else empty.
    """

    text: str
    words: tuple[tuple[int, int], ...]
    tags: tuple[str, ...]
    where: str
    split: bool = True
    lines: tuple[int, ...] = ()

    def place(self, word: int) -> str:
        """Returns the location of a word, for errors."""
        return token_place(self.where, self.lines, word) if self.split else self.where

    @property
    def spans(self) -> list[Mark]:
        """The spans that the tags encode, in text order."""
        spans: list[Mark] = []
        for (start, end), tag in zip(self.words, self.tags, strict=True):
            if tag.startswith("B-"):
                spans.append(Mark(start, end, tag[2:]))
            elif tag.startswith("I-"):
                spans[-1] = spans[-1]._replace(end=end)
        return spans

    @property
    def document(self) -> str:
        """The text that is split into rows."""
        return self.text

    @property
    def beside(self) -> str | None:
        """The question or second text that each row contains besides the text, if any."""
        return None

    @property
    def group(self) -> str:
        """Examples with the same group are never split between training and held-out data."""
        return self.text


@dataclass(frozen=True)
class AnswerExample:
    """A question about a context, with its gold answers.

    Attributes:
        id: Id of the question.
        question: The question.
        context: The text that holds the answers.
        answers: Gold answers; empty if the context holds none (SQuAD v2).
        starts: Start of each answer in the context, in characters.
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
        """The text that is split into rows."""
        return self.context

    @property
    def beside(self) -> str | None:
        """The question or second text that each row contains besides the text, if any."""
        return self.question

    @property
    def group(self) -> str:
        """Examples with the same group are never split between training and held-out data."""
        return self.context


@dataclass(frozen=True)
class TextExample:
    """A text or pair of texts with its labels.

    Attributes:
        text: The text.
        text_pair: The second text of a pair; None if the task reads single texts.
        labels: One label; any number, including none, in a multi-label task.
        where: File and line, for errors.
    """

    text: str
    text_pair: str | None
    labels: tuple[str, ...]
    where: str

    @property
    def document(self) -> str:
        """The text that is split into rows."""
        return self.text

    @property
    def beside(self) -> str | None:
        """The question or second text that each row contains besides the text, if any."""
        return self.text_pair

    @property
    def group(self) -> str:
        """Examples with the same group are never split between training and held-out data."""
        return self.text


Example = TokenExample | AnswerExample | TextExample


def token_example(
    words: list[str], tags: list[str], where: str, lines: tuple[int, ...] = ()
) -> TokenExample:
    """Joins words with blanks and records their offsets."""
    bounds = []
    position = 0
    for word in words:
        bounds.append((position, position + len(word)))
        position += len(word) + 1
    return TokenExample(" ".join(words), tuple(bounds), tuple(tags), where, lines=lines)
