"""A small writer of ONNX graphs: nodes get names by themselves, equal constants are stored once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

CONTRIB = "com.microsoft"
_IR_VERSION = 10  # of ONNX 1.16; onnxruntime reads it since 1.18


class Nodes:
    """Collects the nodes and weights of one graph, in order.

    Args:
        opset: Of the default ONNX domain.
    """

    def __init__(self, opset: int) -> None:
        self._opset = opset
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}
        self._count = 0

    def add(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Adds a node; returns the name of its output."""
        self._count += 1
        name = f"{op.lower()}_{self._count}"
        self._nodes.append(
            helper.make_node(op, list(inputs), [name], name, domain=domain, **attributes)
        )
        return name

    def fused(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Adds one of onnxruntime's own operators; returns the name of its output."""
        return self.add(op, *inputs, domain=CONTRIB, **attributes)

    def rename(self, name: str, wanted: str) -> None:
        """Gives the last node's output the name that the graph's output is to have."""
        assert list(self._nodes[-1].output) == [name]
        self._nodes[-1].output[0] = wanted

    def weight(self, name: str, value: NDArray[Any]) -> str:
        """Stores an array under a name, which must be new; returns the name."""
        assert name not in self._weights, name
        self._weights[name] = numpy_helper.from_array(np.require(value, requirements="C"), name)
        return name

    def constant(self, value: Sequence[int] | int | float | NDArray[Any]) -> str:
        """Returns the name of a small constant: whole numbers as int64, others as float32."""
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        name = f"constant_{array.dtype}_{'_'.join(map(str, np.atleast_1d(array).tolist()))}"
        name += "" if array.ndim else "_scalar"
        if name not in self._weights:
            self.weight(name, array)
        return name

    def model(
        self, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
    ) -> onnx.ModelProto:
        """Returns the graph as a model."""
        graph = helper.make_graph(
            self._nodes, "trunkline", inputs, outputs, list(self._weights.values())
        )
        opsets = [helper.make_opsetid("", self._opset), helper.make_opsetid(CONTRIB, 1)]
        return helper.make_model(
            graph, producer_name="trunkline", opset_imports=opsets, ir_version=_IR_VERSION
        )


def whole(name: str, *axes: str) -> onnx.ValueInfoProto:
    """Returns an int64 input or output."""
    return helper.make_tensor_value_info(name, TensorProto.INT64, list(axes))


def real(name: str, *axes: str | int) -> onnx.ValueInfoProto:
    """Returns a float32 input or output."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(axes))
