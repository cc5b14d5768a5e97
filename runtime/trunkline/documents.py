"""What to analyse: texts, and questions about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
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
    texts: Iterable[str | Document],
    questions: Sequence[str] = (),
    tasks: Sequence[str] | None = None,
    text_pair: str | Sequence[str] | None = None,
) -> list[Document]:
    """Returns texts as documents with questions, tasks and second texts.

    Documents stay as they are.

    Args:
        texts: Texts or documents.
        questions: Asked of every text.
        tasks: Names of the tasks wanted; None for all.
        text_pair: The second text of all pairs, or a list with one for each of `texts`.

    Raises:
        InvalidInput: Something is of another type; there are not as many second texts as texts;
            or there is a `Document`, which brings its own, beside questions, tasks or a second
            text.
    """
    given = _listed("text", texts, "give a text, a Document, or a list of them")
    asked = tuple(
        Question(_text(f"questions[{at}]", one))
        for at, one in enumerate(_listed("questions", questions, "give a list"))
    )
    wanted = None if tasks is None else _tasks("tasks", tasks)
    pairs = _pairs(text_pair, len(given))
    documents = []
    for at, (one, pair) in enumerate(zip(given, pairs, strict=True)):
        if isinstance(one, Document):
            _refuse_beside(at, questions=bool(asked), tasks=tasks is not None, text_pair=pair)
        documents.append(as_document(one, f"documents[{at}]", asked, wanted, pair))
    return documents


def as_document(
    given: object,
    field: str = "document",
    questions: tuple[Question, ...] = (),
    tasks: tuple[str, ...] | None = None,
    text_pair: str | None = None,
) -> Document:
    """Returns a text as a document, and a document as it is.

    Raises:
        InvalidInput: It is neither, or something in it is of another type; named below `field`.
    """
    if not isinstance(given, Document):
        return Document(_text(f"{field}.text", given), questions, tasks, text_pair)
    _text(f"{field}.text", given.text)
    if not isinstance(given.questions, tuple | list):
        raise _unfit(f"{field}.questions", given.questions, "give a tuple of Question")
    for at, question in enumerate(given.questions):
        if not isinstance(question, Question):
            raise _unfit(f"{field}.questions[{at}]", question, "give a Question")
        _text(f"{field}.questions[{at}].text", question.text)
        _text(f"{field}.questions[{at}].task", question.task)
    if not isinstance(given.tasks, tuple | list | None):
        raise _unfit(f"{field}.tasks", given.tasks, "give a tuple of names, or None for all")
    if given.tasks is not None:
        _tasks(f"{field}.tasks", given.tasks)
    if given.text_pair is not None:
        _text(f"{field}.text_pair", given.text_pair)
    return given


def _refuse_beside(at: int, **beside: object) -> None:
    for name, value in beside.items():
        if value not in (None, False):
            raise InvalidInput(name, f"would not reach documents[{at}]; put it into the Document")


def _pairs(given: object, count: int) -> list[str | None]:
    """Returns the second text of each of `count` texts."""
    if given is None or isinstance(given, str):
        return [given] * count
    pairs = _listed("text_pair", given, "give a text, or a list with one per text")
    if len(pairs) != count:
        raise InvalidInput("text_pair", f"holds {len(pairs)}; give one, or one per text")
    return [_text(f"text_pair[{at}]", one) for at, one in enumerate(pairs)]


def _tasks(field: str, given: object) -> tuple[str, ...]:
    names = _listed(field, given, "give a list")
    if not names:
        raise InvalidInput(field, "is empty; name the tasks, or give None for all")
    return tuple(_text(f"{field}[{at}]", name) for at, name in enumerate(names))


def _listed(field: str, given: object, mend: str) -> list[object]:
    """Returns the items of a list or the like: not of a string, nor of what has no order."""
    unfit = isinstance(given, str | bytes | bytearray | Mapping | Set | Document | Question)
    if unfit or not isinstance(given, Iterable):
        raise _unfit(field, given, mend)
    return list(given)


def _text(field: str, given: object) -> str:
    if not isinstance(given, str):
        raise _unfit(field, given, "give a string")
    return given


def _unfit(field: str, given: object, mend: str) -> InvalidInput:
    return InvalidInput(field, f"is of type {type(given).__name__}; {mend}")
