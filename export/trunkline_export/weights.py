"""Weights of several graphs in one file: an array is stored once, however many graphs have it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import onnx
from onnx import TensorProto
from onnx.external_data_helper import set_external_data

_LEAST = 1024  # bytes; smaller arrays stay in the graph, where shape inference sees them
_PAGE = 4096  # onnxruntime maps weights that begin at a page's start into memory


def save_together(models: Mapping[Path, onnx.ModelProto], weights: Path) -> None:
    """Writes graphs to their files and their weights to `weights`, in the same folder.

    Arrays are equal if their type and bytes are; their shape stands in the graph.
    """
    places: dict[bytes, tuple[int, int]] = {}
    with weights.open("wb") as file:
        for model in models.values():
            for tensor in _large(model.graph.initializer):
                data = tensor.raw_data
                digest = hashlib.sha256(bytes([tensor.data_type]) + data).digest()
                if digest not in places:
                    file.seek(-(-file.tell() // _PAGE) * _PAGE)
                    places[digest] = file.tell(), len(data)
                    file.write(data)
                set_external_data(tensor, weights.name, *places[digest])
                tensor.ClearField("raw_data")
    for path, model in models.items():
        onnx.save(model, path)


def _large(tensors: Iterable[TensorProto]) -> Iterable[TensorProto]:
    for tensor in tensors:
        if tensor.HasField("raw_data") and len(tensor.raw_data) >= _LEAST:
            yield tensor
