"""Messages of the ModelService to and from descriptions. Fields have the same names in both."""

from __future__ import annotations

from trunkline.v1 import model_service_pb2 as pb
from trunkline_serve.description import Description, Gate, Graph, Limits, ModelId, Task


def id_to_pb(model: ModelId) -> pb.ModelId:
    """Returns the message of a name and version."""
    return pb.ModelId(**vars(model))


def id_from_pb(message: pb.ModelId) -> ModelId:
    """Returns name and version."""
    return ModelId(message.name, message.version)


def description_to_pb(model: Description) -> pb.DescribeModelResponse:
    """Returns the message of a description."""
    return pb.DescribeModelResponse(
        id=id_to_pb(model.id),
        tasks=[pb.Task(**vars(task)) for task in model.tasks],
        limits=pb.Limits(**vars(model.limits)),
        graphs=[pb.Graph(**vars(graph)) for graph in model.graphs],
        gates=[pb.Gate(**vars(gate)) for gate in model.gates],
    )


def description_from_pb(message: pb.DescribeModelResponse) -> Description:
    """Returns the description in a message."""
    limits = message.limits
    return Description(
        id=id_from_pb(message.id),
        tasks=tuple(Task(one.name, one.kind, tuple(one.labels), one.pair) for one in message.tasks),
        limits=Limits(
            max_text_bytes=limits.max_text_bytes,
            max_documents=limits.max_documents,
            max_questions=limits.max_questions,
            max_question_tokens=limits.max_question_tokens,
            max_message_bytes=limits.max_message_bytes,
            max_stream_requests=limits.max_stream_requests,
        ),
        graphs=tuple(_graph_from_pb(graph) for graph in message.graphs),
        gates=tuple(_gate_from_pb(gate) for gate in message.gates),
    )


def _graph_from_pb(graph: pb.Graph) -> Graph:
    return Graph(
        file=graph.file,
        layout=graph.layout,
        precision=graph.precision,
        providers=tuple(graph.providers),
        sha256=graph.sha256,
        serving=graph.serving,
    )


def _gate_from_pb(gate: pb.Gate) -> Gate:
    return Gate(
        graph=gate.graph,
        task=gate.task,
        metric=gate.metric,
        reference=gate.reference,
        value=gate.value,
        low=gate.low,
        high=gate.high,
        agreement=gate.agreement,
        examples=gate.examples,
        passed=gate.passed,
    )
