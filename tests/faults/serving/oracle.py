"""What the models answer in this process: the measure of every answer of a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

import trunkline
from trunkline import Document, Model
from trunkline.errors import InvalidInput, NotFound
from trunkline.v1 import analysis_service_pb2 as pb
from trunkline_serve.bench.texts import load_texts
from trunkline_serve.engine import Analysis
from trunkline_serve.events import Timing
from trunkline_serve.rpc.converters import documents_from_pb, response_to_pb, unit_from_pb
from trunkline_serve.rpc.requests import request_to_pb

_QUESTIONS = "question-answering"
_NO_TIME = Timing(0, 0, 0, 0, 0, 0)
_TOLERANCE = 0.01  # of a score: padded graphs sum in another order in other company
_REQUESTS = 60
_MOST_DOCUMENTS = 3

Expected = Sequence[pb.DocumentResult]


class Oracle:
    """Versions of one model in this process, and requests whose answers by them are known.

    Args:
        bundles: One per version; all with the same tasks.
        graph: The graph to run, the same as the server's.
        seed: Decides on the requests.

    Attributes:
        name: Of the model.
        graph: Name of the graph.
        tasks: Of the model.
        documents: Texts with questions, each by itself.
        requests: Of one to three documents, for the newest version.
    """

    def __init__(self, bundles: Sequence[Path], graph: str = "auto", seed: int = 0) -> None:
        models = [trunkline.load(bundle, 1, graph=graph) for bundle in bundles]
        self._models = {model.manifest.version: model for model in models}
        self.name = models[0].manifest.name
        self.graph = models[0].graph.name
        self.tasks = models[0].manifest.tasks
        self.documents = _documents(models[0])
        self.requests = tuple(
            request_to_pb(documents, self.name, 0)
            for documents in _chosen(self.documents, np.random.default_rng(seed))
        )
        self._expected = {
            version: [self._answer(model, request) for request in self.requests]
            for version, model in self._models.items()
        }

    @property
    def versions(self) -> list[int]:
        """The versions known here, oldest first."""
        return sorted(self._models)

    def complaint(self, index: int, response: pb.AnalyzeResponse) -> str:
        """Returns what is wrong with the answer to a request; empty if nothing is."""
        if response.model != self.name or response.model_version not in self._expected:
            return f"answered by {response.model} version {response.model_version}"
        return difference(self._expected[response.model_version][index], response.results)

    def verdict(self, data: bytes, version: int) -> grpc.StatusCode | Expected:
        """Returns what a server of one version must say to the bytes of a request.

        Nothing but the model decides: its own answer, or the status of the error that it raises.
        """
        try:
            request = pb.AnalyzeRequest.FromString(data)
        except DecodeError:
            return grpc.StatusCode.INVALID_ARGUMENT
        try:
            unit_from_pb(request.offset_unit)
            if not request.documents:
                return grpc.StatusCode.INVALID_ARGUMENT
            return self._answer(self._find(request, version), request)
        except InvalidInput:
            return grpc.StatusCode.INVALID_ARGUMENT
        except NotFound:
            return grpc.StatusCode.NOT_FOUND

    def annotations(
        self, texts: Sequence[str], tasks: Sequence[str], version: int
    ) -> dict[str, Any]:
        """Returns the JSON form of what a version finds in texts, by task."""
        model = self._models[version]
        results = model.analyze([Document(text, tasks=tuple(tasks)) for text in texts])
        return {
            task: [[item.to_dict() for item in result.tasks[task]] for result in results]
            for task in tasks
        }

    def _find(self, request: pb.AnalyzeRequest, version: int) -> Model:
        if request.model not in ("", self.name):
            raise NotFound("model", request.model)
        if request.model_version not in (0, version):
            raise NotFound("version", str(request.model_version))
        return self._models[version]

    @staticmethod
    def _answer(model: Model, request: pb.AnalyzeRequest) -> Expected:
        results = model.analyze(documents_from_pb(request))
        analysis = Analysis(model, results, _NO_TIME)
        return response_to_pb(analysis, unit_from_pb(request.offset_unit)).results


def difference(expected: Expected, found: Expected) -> str:
    """Returns where answers differ by more than rounding; empty if they do not."""
    if len(expected) != len(found):
        return f"{len(expected)} results became {len(found)}"
    for at, (want, got) in enumerate(zip(expected, found, strict=True)):
        if want != got:
            complaint = apart(MessageToDict(want), MessageToDict(got), f"results[{at}]")
            if complaint:
                return complaint
    return ""


def apart(want: Any, got: Any, where: str) -> str:
    """Returns where two JSON values differ by more than rounding; empty if they do not."""
    if isinstance(want, float) and isinstance(got, float):
        return "" if abs(want - got) <= _TOLERANCE else f"{where}: {want} became {got}"
    if isinstance(want, Mapping) and isinstance(got, Mapping) and want.keys() == got.keys():
        pairs = [(want[key], got[key], f"{where}.{key}") for key in want]
    elif isinstance(want, list) and isinstance(got, list) and len(want) == len(got):
        pairs = [(a, b, f"{where}[{at}]") for at, (a, b) in enumerate(zip(want, got, strict=True))]
    else:
        return "" if want == got else f"{where}: {want!r} became {got!r}"
    return next((found for a, b, at in pairs if (found := apart(a, b, at))), "")


def _documents(model: Model) -> list[Document]:
    asks = any(spec.kind == _QUESTIONS for spec in model.manifest.tasks)
    return load_texts(None, ask=asks)


def _chosen(documents: Sequence[Document], random: np.random.Generator) -> list[list[Document]]:
    """Returns a few documents for each request."""
    counts = random.integers(1, _MOST_DOCUMENTS + 1, _REQUESTS)
    return [[documents[at] for at in random.integers(0, len(documents), n)] for n in counts]
