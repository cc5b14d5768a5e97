"""Changes to an exported graph."""

from collections.abc import Callable

import onnx
from onnx import numpy_helper

Change = Callable[[onnx.ModelProto], None]


def weight(proto: onnx.ModelProto, part: str) -> onnx.TensorProto:
    return next(one for one in proto.graph.initializer if part in one.name)


def add(part: str, value: float) -> Change:
    """Adds to the last number of a weight."""

    def change(proto: onnx.ModelProto) -> None:
        tensor = weight(proto, part)
        array = numpy_helper.to_array(tensor).copy()
        array.flat[-1] += value
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))

    return change


def rename(old: str, new: str) -> Change:
    def change(proto: onnx.ModelProto) -> None:
        for node in proto.graph.node:
            node.output[:] = [new if name == old else name for name in node.output]
            node.input[:] = [new if name == old else name for name in node.input]
        for value in (*proto.graph.output, *proto.graph.value_info):
            value.name = new if value.name == old else value.name

    return change


def drop(name: str) -> Change:
    def change(proto: onnx.ModelProto) -> None:
        kept = [output for output in proto.graph.output if output.name != name]
        del proto.graph.output[:]
        proto.graph.output.extend(kept)

    return change
