"""The work of every peer: texts in, entities and answers out, on the padded graph.

Tokenising and decoding are Trunkline's own, so that all do the same; what differs is the batch. It
is padded to its longest row and run at once, in a session as onnxruntime makes it, but for the
number of threads. Runs in the peer's environment: numpy, tokenizers and onnxruntime are there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime

from benchmarks.serving.peers.options import Options
from trunkline import Document, Question
from trunkline.batching import pad, unpad
from trunkline.bundle import Bundle, open_bundle
from trunkline.encode import Row
from trunkline.kinds import Output
from trunkline.pipeline import Pipeline, Prepared
from trunkline.runner import RowOutputs


class OneBatch:
    """Runs all rows it is given as one padded batch."""

    def __init__(self, graph: str | bytes, pad_id: int, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )
        self._inputs = [one.name for one in self._session.get_inputs()]
        self._pad_id = pad_id

    def run(self, rows: Sequence[Row], outputs: Sequence[Output]) -> list[RowOutputs]:
        """Returns for each row its outputs by name, without padding."""
        feed = pad(rows, self._pad_id)
        names = [output.name for output in outputs]
        values = self._session.run(names, {name: feed[name] for name in self._inputs})
        return unpad(rows, outputs, values)


class Work:
    """Answers documents, given as `to_json` has them and answered as `trunkline predict --json`.

    Args:
        options: Say which bundle, and the number of threads.
        graph: A padded graph's file as bytes; None takes the bundle's.
    """

    def __init__(self, options: Options, graph: bytes | None = None) -> None:
        bundle = open_bundle(options.bundle)
        manifest = bundle.manifest
        file = str(bundle.path / padded_graph(bundle))
        runner = OneBatch(graph or file, manifest.encoder.pad_id, options.setting.threads)
        self._pipeline = Pipeline(manifest.tasks, bundle.encoder(), runner)

    def answer(self, documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Returns the results of a batch of documents, in order."""
        found = self._pipeline.analyze([_document(one) for one in documents])
        return [one.to_dict() for one in found]


def padded_graph(bundle: Bundle) -> str:
    """Returns the file of the bundle's padded graph in fp32."""
    graphs = bundle.manifest.graphs
    return next(one.file for one in graphs if (one.layout, one.precision) == ("padded", "fp32"))


def to_json(prepared: Prepared) -> dict[str, Any]:
    """Returns a document as peers take it: all its tasks are named."""
    return {
        "text": prepared.document.text,
        "tasks": [spec.name for spec in prepared.specs],
        "questions": [{"question": one.question, "task": one.spec.name} for one in prepared.asked],
    }


def _document(given: Mapping[str, Any]) -> Document:
    questions = tuple(Question(one["question"], one["task"]) for one in given["questions"])
    return Document(given["text"], questions, tuple(given["tasks"]))
