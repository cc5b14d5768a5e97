"""Checks that cost next to nothing, made before any work is spent on a call."""

from __future__ import annotations

from collections.abc import Sequence

from trunkline import Document
from trunkline.errors import InvalidInput
from trunkline_serve.settings import Settings


def check_count(documents: Sequence[Document], settings: Settings) -> None:
    """Raises InvalidInput unless there is at least one document, and not too many."""
    if not documents:
        raise InvalidInput("documents", "is empty; give at least one document")
    if len(documents) > settings.max_documents:
        limit = settings.max_documents
        raise InvalidInput("documents", f"holds {len(documents)}, at most {limit} are accepted")


def check_documents(documents: Sequence[Document], settings: Settings) -> int:
    """Checks the sizes of all texts and questions.

    Returns:
        The bytes to tokenise and decode: each text once, and once more per question and as a pair.

    Raises:
        InvalidInput: A text or question is too long, or there are too many questions.
    """
    return sum(
        _check_document(document, f"documents[{at}]", settings)
        for at, document in enumerate(documents)
    )


def utf8_bytes(text: str) -> int:
    """Returns the length of a text in bytes of UTF-8; a lone surrogate counts three."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _check_document(document: Document, field: str, settings: Settings) -> int:
    questions = document.questions
    if len(questions) > settings.max_questions:
        reason = f"holds {len(questions)}, at most {settings.max_questions} are accepted"
        raise InvalidInput(f"{field}.questions", reason)
    size = _check_text(document.text, f"{field}.text", settings)
    others = [
        _check_text(question.text, f"{field}.questions[{at}].text", settings)
        for at, question in enumerate(questions)
    ]
    if document.text_pair is not None:
        others.append(_check_text(document.text_pair, f"{field}.text_pair", settings))
    return size * (1 + len(others)) + sum(others)


def _check_text(text: str, field: str, settings: Settings) -> int:
    size = utf8_bytes(text)
    if size > settings.max_text_bytes:
        limit = settings.max_text_bytes
        raise InvalidInput(field, f"has {size} bytes of UTF-8, at most {limit} are accepted")
    return size
