"""Requests of the protocol, made by hand."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import numpy as np
from google.protobuf.message_factory import GetMessageClass
from numpy.typing import NDArray

from tests.serve.hosting import PATIENCE
from trunkline.encode import Row, bare_row
from trunkline.kinds import all_outputs
from trunkline.model import Model
from trunkline.runner import RowOutputs
from trunkline_serve.oip.servicer import NAME
from trunkline_serve.oip.tensors import BYTES
from trunkline_serve.oip.v1 import open_inference_pb2 as pb

Padded = Mapping[str, NDArray[np.int64]]


class Stub:
    """Calls the service by the name that the protocol gives it."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def __getattr__(self, method: str) -> Any:
        described = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name[method]
        kind = (
            self._channel.stream_stream if described.client_streaming else self._channel.unary_unary
        )
        call = kind(
            f"/{NAME}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(described.output_type).FromString,
        )
        return lambda request: call(request, timeout=PATIENCE)


def tensor(
    name: str, datatype: str, shape: Sequence[int], **contents: Any
) -> pb.ModelInferRequest.InferInputTensor:
    held = pb.InferTensorContents(**contents) if contents else None
    return pb.ModelInferRequest.InferInputTensor(
        name=name, datatype=datatype, shape=shape, contents=held
    )


def strings(*texts: str | bytes) -> bytes:
    """Returns byte strings as the protocol has them raw."""
    values = np.array([t.encode() if isinstance(t, str) else t for t in texts], object)
    return BYTES.write(values)


def asking(
    *texts: str, questions: Sequence[str] = (), tasks: str = "", outputs: Sequence[str] = ()
) -> pb.ModelInferRequest:
    """Returns a raw request for annotations."""
    given = {"TEXT": texts, **({"QUESTION": questions} if questions else {})}
    request = pb.ModelInferRequest(
        model_name="tiny",
        inputs=[tensor(name, "BYTES", [len(values)]) for name, values in given.items()],
        outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs],
        raw_input_contents=[strings(*values) for values in given.values()],
    )
    if tasks:
        request.parameters["tasks"].string_param = tasks
    return request


def read_texts(response: pb.ModelInferResponse) -> dict[str, list[Any]]:
    """Returns what raw outputs say, by task."""
    return {
        output.name: [json.loads(one) for one in BYTES.read(data, output.shape[0])]
        for output, data in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def padded(rows: Sequence[NDArray[np.int64]]) -> Padded:
    width = max(map(len, rows))
    ids = np.zeros((len(rows), width), np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = row
        mask[at, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def computing(arrays: Padded) -> pb.ModelInferRequest:
    """Returns a raw request for outputs of the graph."""
    return pb.ModelInferRequest(
        model_name="tiny.tensors",
        inputs=[tensor(name, "INT64", value.shape) for name, value in arrays.items()],
        raw_input_contents=[value.astype("<i8").tobytes() for value in arrays.values()],
    )


def in_process(model: Model, arrays: Padded) -> dict[str, NDArray[np.float32]]:
    """Returns all outputs of padded rows as the model's own runner gives them, padded alike."""
    lengths = arrays["attention_mask"].sum(axis=1)
    rows: list[Row] = [
        bare_row(ids[:length]) for ids, length in zip(arrays["input_ids"], lengths, strict=True)
    ]
    outputs = all_outputs(model.manifest.tasks)
    values: Sequence[RowOutputs] = model.runner.run(rows, outputs)
    found = {}
    for output in outputs:
        own = [row[output.name] for row in values]
        if "sequence" in output.axes:
            width = arrays["input_ids"].shape[1]
            own = [np.pad(one, [(0, width - len(one)), *[(0, 0)] * (one.ndim - 1)]) for one in own]
        found[output.name] = np.stack(own)
    return found
