"""How large the channels get that int8 products read: seen on real rows, through the fp32 graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx

from trunkline.cpu import available_cpus
from trunkline.encode import Row
from trunkline.packing import PACKED_INPUTS, cells, pack
from trunkline.session import Session
from trunkline_export.nodes import Nodes, real
from trunkline_export.packed import packed_model
from trunkline_export.products import EVEN, Fp32Products, Reach
from trunkline_export.trunk import Array, Linear
from trunkline_train.model.multitask import MultitaskModel

Sizes = Mapping[str, Array]  # by product, the largest size of each channel [K] that it reads
_BUDGET = 512  # tokens at once
_SMOOTHED = (".attention.qkv", ".up")  # what reads normalised hidden states


class _Watched(Fp32Products):
    """Also writes the largest size of every channel that a product reads, as an output [K]."""

    def __init__(self, nodes: Nodes) -> None:
        super().__init__(nodes)
        self.watched: list[onnx.ValueInfoProto] = []

    def linear(self, name: str, x: str, parts: tuple[Linear, ...], reach: Reach = EVEN) -> str:
        self._watch(name, x, parts)
        return super().linear(name, x, parts, reach)

    def _watch(self, name: str, x: str, parts: tuple[Linear, ...]) -> None:
        if name.endswith(_SMOOTHED):
            add, constant = self._nodes.add, self._nodes.constant
            self._nodes.rename(add("ReduceMax", add("Abs", x), constant([0]), keepdims=0), name)
            self.watched.append(real(name, len(parts[0].weight)))


def channel_sizes(model: MultitaskModel, rows: Sequence[Row]) -> dict[str, Array]:
    """Returns by product the largest size [K] of each channel it reads, over some rows.

    Raises:
        Unpackable: The encoder's architecture has no packed form.
    """
    writers: list[_Watched] = []

    def watched(nodes: Nodes) -> _Watched:
        writers.append(_Watched(nodes))
        return writers[0]

    graph = packed_model(model, watched)
    del graph.graph.output[:]
    graph.graph.output.extend(writers[0].watched)
    sizes: dict[str, Array] = {}
    for name, found in _run(graph, rows):
        sizes[name] = np.maximum(sizes.get(name, np.zeros_like(found)), found)
    return sizes


def _run(graph: onnx.ModelProto, rows: Sequence[Row]) -> list[tuple[str, Array]]:
    names = [output.name for output in graph.graph.output]
    found: list[tuple[str, Array]] = []
    with TemporaryDirectory() as aside:
        path = Path(aside) / "watched.onnx"
        onnx.save(graph, path)
        session = Session(path, PACKED_INPUTS, (), available_cpus())
        for cell in cells([len(row) for row in rows], _BUDGET):
            packed = pack([rows[index] for index in cell.rows], cell.width)
            found += zip(names, session.run(names, packed.feed), strict=True)
    return found
