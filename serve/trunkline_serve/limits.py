"""Checks that cost next to nothing, made before any work is spent on a call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trunkline import Document
from trunkline.errors import InvalidInput
from trunkline_serve.settings import Limits

_TEXT_BYTES = 100  # bytes that take as long as a text does whatever its length


LONGEST_ID = 1024
"""Characters of the longest id of a request in a stream: a refusal bears it too."""


def check_id(name: str) -> None:
    """Raises InvalidInput if the id of a request is too long to be given back with every reply."""
    if len(name) > LONGEST_ID:
        raise InvalidInput("id", f"has {len(name)} characters, at most {LONGEST_ID} are accepted")


def check_count(items: Sequence[object], limits: Limits, field: str = "documents") -> None:
    """Raises InvalidInput unless there is at least one document or row, and not too many."""
    if not items:
        raise InvalidInput(field, "is empty; give at least one")
    if len(items) > limits.max_documents:
        limit = limits.max_documents
        raise InvalidInput(field, f"holds {len(items)}, at most {limit} are accepted")


def check_questions(count: int, limits: Limits, field: str) -> None:
    """Raises InvalidInput if a document has too many questions."""
    if count > limits.max_questions:
        limit = limits.max_questions
        raise InvalidInput(f"{field}.questions", f"holds {count}, at most {limit} are accepted")


def check_tokens(tokens: int, limits: Limits, field: str = "documents") -> None:
    """Raises InvalidInput if a call alone would take more tokens than may wait."""
    if tokens > limits.max_queue_tokens:
        limit = limits.max_queue_tokens
        raise InvalidInput(field, f"would take some {tokens} tokens, one call may take {limit}")


@dataclass(frozen=True)
class Size:
    """How much there is to do for some documents.

    Attributes:
        tokenised: Bytes to tokenise: each text once, and once more per question and as a pair.
        work: Of each document, bytes that take as long to tokenise or to decode: a text takes some
            time in itself.
    """

    tokenised: int
    work: Sequence[int]


def check_documents(documents: Sequence[Document], limits: Limits) -> Size:
    """Checks the sizes of all texts and questions, and returns how much there is to do.

    Raises:
        InvalidInput: A text or question is too long, or there are too many questions.
    """
    tokenised, work = 0, []
    for at, document in enumerate(documents):
        check_questions(len(document.questions), limits, f"documents[{at}]")
        sizes = _sizes(document)
        if max(sizes) > limits.max_text_bytes:
            raise _too_long(f"documents[{at}]", document, sizes, limits)
        first, *others = sizes
        own = first * len(sizes) + sum(others)
        tokenised += own
        work.append(own + _TEXT_BYTES * len(sizes))
    return Size(tokenised, work)


def utf8_bytes(text: str) -> int:
    """Returns the length of a text in bytes of UTF-8; a lone surrogate counts three."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _sizes(document: Document) -> list[int]:
    """Returns the sizes of its text, its questions and its second text, if there is one."""
    sizes = [utf8_bytes(document.text), *(utf8_bytes(one.text) for one in document.questions)]
    if document.text_pair is not None:
        sizes.append(utf8_bytes(document.text_pair))
    return sizes


def _too_long(field: str, document: Document, sizes: list[int], limits: Limits) -> InvalidInput:
    questions = [f"questions[{at}].text" for at in range(len(document.questions))]
    at = next(at for at, size in enumerate(sizes) if size > limits.max_text_bytes)
    name = ("text", *questions, "text_pair")[at]
    reason = f"has {sizes[at]} bytes of UTF-8, at most {limits.max_text_bytes} are accepted"
    return InvalidInput(f"{field}.{name}", reason)
