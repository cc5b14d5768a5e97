"""The kinds of task: for each its graph outputs, options and decoder. The only list of kinds.

Heads, readers, scorers and messages are registered by kind in their own rooms; a completeness test
names what a kind lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trunkline.annotations import Annotations, Answers
from trunkline.decode.answers import decode_answers
from trunkline.decode.labels import decode_labels
from trunkline.decode.numeric import Floats
from trunkline.decode.spans import decode_spans
from trunkline.encode import Encoded
from trunkline.errors import did_you_mean
from trunkline.structure import parse
from trunkline.tasks import AnswerOptions, Options, TaskSpec, TextOptions, TokenOptions

Decoded = Annotations | Answers


@dataclass(frozen=True)
class Output:
    """One output of a graph.

    Attributes:
        name: `<task>.<suffix>`.
        axes: Symbolic axes: `batch`, then `sequence` if the output is per token, then its own.
    """

    name: str
    axes: tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """What the runtime knows about a kind of task.

    Attributes:
        name: Hugging Face's name of the kind.
        asks: True if each request brings a question, which is encoded before the text.
        suffixes: Graph output suffixes with their axes after batch.
        options: The type of its decode defaults.
        decode: (spec, encoded, one sequence of per-row arrays per output) to annotations.
    """

    name: str
    asks: bool
    suffixes: Mapping[str, tuple[str, ...]]
    options: type[Options]
    decode: Callable[..., Decoded]


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            name="token-classification",
            asks=False,
            suffixes={"logits": ("sequence", "labels")},
            options=TokenOptions,
            decode=decode_spans,
        ),
        Kind(
            name="question-answering",
            asks=True,
            suffixes={"start_logits": ("sequence",), "end_logits": ("sequence",)},
            options=AnswerOptions,
            decode=decode_answers,
        ),
        Kind(
            name="text-classification",
            asks=False,
            suffixes={"logits": ("labels",)},
            options=TextOptions,
            decode=decode_labels,
        ),
    )
}


def find_kind(name: str) -> Kind:
    """Returns the kind; raises ValueError naming the known ones if there is none."""
    if name not in KINDS:
        near = did_you_mean(name, KINDS)
        raise ValueError(f"unknown kind of task {name!r}{near}; known: {', '.join(KINDS)}")
    return KINDS[name]


def task_outputs(spec: TaskSpec) -> tuple[Output, ...]:
    """Returns the graph outputs of a task, in the order its head gives them."""
    return tuple(
        Output(f"{spec.name}.{suffix}", ("batch", *axes))
        for suffix, axes in find_kind(spec.kind).suffixes.items()
    )


def all_outputs(tasks: Iterable[TaskSpec]) -> list[Output]:
    """Returns the outputs of a graph with these tasks, in their order."""
    return [output for spec in tasks for output in task_outputs(spec)]


def decode(spec: TaskSpec, encoded: Encoded, values: Sequence[Mapping[str, Floats]]) -> Decoded:
    """Decodes one task's outputs, given per row by output name."""
    columns = [[row[output.name] for row in values] for output in task_outputs(spec)]
    return find_kind(spec.kind).decode(spec, encoded, *columns)


def parse_task(value: Mapping[str, Any], where: str = "task") -> TaskSpec:
    """Returns the task spec that stands in a manifest or checkpoint.

    Raises:
        ValueError: It does not fit; names the key.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: expected a table, got {value!r}")
    for key in ("name", "kind"):
        if not isinstance(value.get(key), str):
            raise ValueError(f"{where}.{key}: missing or not a string")
    unknown = set(value) - {"name", "kind", "labels", "options"}
    if unknown:
        raise ValueError(f"{where}.{sorted(unknown)[0]}: unknown key")
    labels = parse(_Labels, {"labels": value.get("labels", [])}, where).labels
    options = parse(find_kind(value["kind"]).options, value.get("options", {}), f"{where}.options")
    return TaskSpec(value["name"], value["kind"], labels, options)


@dataclass(frozen=True)
class _Labels:
    labels: tuple[str, ...]
