"""What a server tells about its models; the fields are those of the API's messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trunkline import Model
    from trunkline_serve.settings import Settings


@dataclass(frozen=True)
class ModelId:
    """Name and version of a model."""

    name: str
    version: int


@dataclass(frozen=True)
class Task:
    """One task: its name, kind, labels in the order of the logits, and if it reads two texts."""

    name: str
    kind: str
    labels: tuple[str, ...]
    pair: bool


@dataclass(frozen=True)
class Limits:
    """What the server accepts; sizes in bytes of UTF-8 and of the encoded message.

    `max_stream_requests` are the unanswered requests of one stream.
    """

    max_text_bytes: int
    max_documents: int
    max_questions: int
    max_question_tokens: int
    max_message_bytes: int
    max_stream_requests: int


@dataclass(frozen=True)
class Graph:
    """One ONNX graph; `serving` is true for the one that answers on this server."""

    file: str
    layout: str
    precision: str
    providers: tuple[str, ...]
    sha256: str
    serving: bool


@dataclass(frozen=True)
class Gate:
    """One task's metric through a graph and through the trained model, in points (0 to 100).

    Attributes:
        graph: The graph's file.
        task, metric: What was measured.
        reference, value: Through the trained model, and through the graph.
        low, high: 95 % interval of the value minus the reference.
        agreement: Percentage of examples with the same annotations through both.
        examples: Number of examples.
        passed: Whether the drop was within bounds.
    """

    graph: str
    task: str
    metric: str
    reference: float
    value: float
    low: float
    high: float
    agreement: float
    examples: int
    passed: bool


@dataclass(frozen=True)
class Description:
    """All about one model."""

    id: ModelId
    tasks: tuple[Task, ...]
    limits: Limits
    graphs: tuple[Graph, ...]
    gates: tuple[Gate, ...]


def describe(model: Model, settings: Settings) -> Description:
    """Returns the description of a model on a server with these settings."""
    manifest = model.manifest
    return Description(
        id=identify(model),
        tasks=tuple(Task(one.name, one.kind, one.labels, one.pair) for one in manifest.tasks),
        limits=_limits(model, settings),
        graphs=_graphs(model),
        gates=_gates(model),
    )


def identify(model: Model) -> ModelId:
    """Returns a model's name and version."""
    return ModelId(model.manifest.name, model.manifest.version)


def _graphs(model: Model) -> tuple[Graph, ...]:
    serving = model.graph.file
    return tuple(
        Graph(g.file, g.layout, g.precision, g.providers, g.sha256, g.file == serving)
        for g in model.manifest.graphs
    )


def _gates(model: Model) -> tuple[Gate, ...]:
    return tuple(
        Gate(
            graph=one.graph,
            task=one.task,
            metric=one.metric,
            reference=one.reference,
            value=one.value,
            low=one.low,
            high=one.high,
            agreement=one.agreement,
            examples=one.n,
            passed=one.passed,
        )
        for one in model.manifest.gates
    )


def _limits(model: Model, settings: Settings) -> Limits:
    limits = settings.limits
    return Limits(
        max_text_bytes=limits.max_text_bytes,
        max_documents=limits.max_documents,
        max_questions=limits.max_questions,
        max_question_tokens=model.pipeline.encoder.max_question_tokens,
        max_message_bytes=limits.max_message_bytes,
        max_stream_requests=limits.max_stream_requests,
    )
