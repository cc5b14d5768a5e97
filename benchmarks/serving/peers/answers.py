"""Whether a peer's results are the model's: what counts is what was found, not with what score."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Likeness = Callable[[Mapping[str, Any], Mapping[str, Any]], float]
"""(result, result) to how alike they are, from 0 to 1."""


def same(found: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    """Returns 1 if two results are the same but for scores, else 0.

    Scores differ in the last digit from graph to graph.
    """
    return float(_bare(found) == _bare(expected))


def shared(found: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    """Returns the share of annotations that two results have in common: F1 of one over the other.

    For code that does not decode as Trunkline does: where labels break off (I-X behind O), and
    where windows of a long text overlap, both have rules of their own, and a span or two differ.
    """
    ours, theirs = Counter(_annotations(found)), Counter(_annotations(expected))
    everything = ours.total() + theirs.total()
    return 2 * (ours & theirs).total() / everything if everything else 1.0


def _annotations(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields each span, answer and text's best label, with its task and question."""
    for task, found in result["tasks"].items():
        # All labels of a text are in its list: only their order says anything.
        spans = [one for one in found if "start" in one] or found[:1]
        yield from ((task, _text(one)) for one in spans)
    for asked in result["questions"]:
        place = f"{asked['task']} {asked['question']}"
        yield from ((place, _text(one)) for one in asked["answers"])


def _text(annotation: Mapping[str, Any]) -> str:
    return json.dumps(_bare(annotation), sort_keys=True)


def _bare(value: Any) -> Any:
    """Returns results without scores."""
    if isinstance(value, Mapping):
        return {k: _bare(v) for k, v in value.items() if not k.endswith("score")}
    if isinstance(value, list | tuple):
        return [_bare(one) for one in value]
    return value
