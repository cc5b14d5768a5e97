"""What a model found in texts, as texts with spans."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trunkline.annotations import DocumentResult, Span
from trunkline.encode import TextEncoder
from trunkline.errors import InvalidInput, NotFound
from trunkline.formats.marked import Mark, Marked
from trunkline.tasks import TaskSpec, TokenOptions


def span_task(specs: Iterable[TaskSpec], names: Sequence[str] | None) -> str:
    """Returns the name of the one task that marks spans.

    Args:
        specs: The tasks of a model.
        names: Those to choose from; None for all.

    Raises:
        NotFound: A name is unknown.
        InvalidInput: There is no such task among them, or several.
    """
    known = {spec.name: spec for spec in specs}
    for name in names or ():
        if name not in known:
            raise NotFound("task", name, known)
    spans = [name for name, spec in known.items() if spec.options == TokenOptions("spans")]
    chosen = [name for name in spans if names is None or name in names]
    if len(chosen) != 1 or len(names or chosen) != 1:
        there = ", ".join(spans) or "none"
        raise InvalidInput("task", f"choose one task that marks spans; there are: {there}")
    return chosen[0]


def predicted(result: DocumentResult, task: str, encoder: TextEncoder) -> Marked:
    """Returns what a task found in a text, with the model's own words."""
    spans = [found for found in result.tasks[task] if isinstance(found, Span)]
    marks = tuple(Mark(one.start, one.end, one.label, one.score) for one in spans)
    tokens = encoder.tokenize(result.text)
    words = zip(tokens.words.starts, tokens.words.ends, strict=True) if len(tokens) else ()
    return Marked(result.text, marks, words=tuple(words))
