"""Checks that cost next to nothing, made before any work is spent on a call."""

from __future__ import annotations

from collections.abc import Sequence

from trunkline import Document
from trunkline.errors import InvalidInput
from trunkline_serve.settings import Limits


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


def check_documents(documents: Sequence[Document], limits: Limits) -> int:
    """Checks the sizes of all texts and questions.

    Returns:
        The bytes to tokenise and decode: each text once, and once more per question and as a pair.

    Raises:
        InvalidInput: A text or question is too long, or there are too many questions.
    """
    return sum(
        _check_document(document, f"documents[{at}]", limits)
        for at, document in enumerate(documents)
    )


def utf8_bytes(text: str) -> int:
    """Returns the length of a text in bytes of UTF-8; a lone surrogate counts three."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _check_document(document: Document, field: str, limits: Limits) -> int:
    questions = document.questions
    check_questions(len(questions), limits, field)
    size = _check_text(document.text, f"{field}.text", limits)
    others = [
        _check_text(question.text, f"{field}.questions[{at}].text", limits)
        for at, question in enumerate(questions)
    ]
    if document.text_pair is not None:
        others.append(_check_text(document.text_pair, f"{field}.text_pair", limits))
    return size * (1 + len(others)) + sum(others)


def _check_text(text: str, field: str, limits: Limits) -> int:
    size = utf8_bytes(text)
    if size > limits.max_text_bytes:
        limit = limits.max_text_bytes
        raise InvalidInput(field, f"has {size} bytes of UTF-8, at most {limit} are accepted")
    return size
