"""What to analyse: texts, and questions about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trunkline.errors import InvalidInput


@dataclass(frozen=True)
class Question:
    """A question about a document; `task` may stay empty if the model has one such task."""

    text: str
    task: str = ""


@dataclass(frozen=True)
class Document:
    """What to analyse.

    Attributes:
        text: Any length, any Unicode; may be empty.
        questions: Asked of the text.
        tasks: Names of the tasks wanted; None for all.
        text_pair: The second text, for tasks that read a pair (text first); others do not see it.
    """

    text: str
    questions: tuple[Question, ...] = ()
    tasks: tuple[str, ...] | None = None
    text_pair: str | None = None


def as_documents(
    texts: Sequence[str | Document],
    questions: Sequence[str],
    tasks: Sequence[str] | None,
    text_pair: str | Sequence[str] | None,
) -> list[Document]:
    """Returns texts as documents with questions, tasks and second texts.

    Documents stay as they are.

    Args:
        texts: Texts or documents.
        questions: Asked of every text.
        tasks: Names of the tasks wanted; None for all.
        text_pair: The second text of all pairs, or a list with one for each of `texts`.

    Raises:
        InvalidInput: `questions` or `tasks` is a string, where a list is meant; or there are not
            as many second texts as texts.
    """
    for field, value in (("questions", questions), ("tasks", tasks)):
        if isinstance(value, str):
            raise InvalidInput(field, "give a list")
    pairs = [text_pair] * len(texts) if isinstance(text_pair, str | None) else list(text_pair)
    if len(pairs) != len(texts):
        raise InvalidInput("text_pair", f"holds {len(pairs)}; give one, or one per text")
    asked = tuple(Question(question) for question in questions)
    wanted = None if tasks is None else tuple(tasks)
    return [
        one if isinstance(one, Document) else Document(one, asked, wanted, pair)
        for one, pair in zip(texts, pairs, strict=True)
    ]
