"""What a model answers a request with, whatever it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from trunkline_serve.oip.tensors import Array, Spec, check_known, refuse_parameters
from trunkline_serve.oip.v1 import open_inference_pb2 as pb

Answered = list[tuple[Spec, Array]]
"""Outputs in the order asked for."""


class Answering(Protocol):
    """A model by one of its names.

    Attributes:
        name, version: What it is called.
        platform: What runs it.
        inputs, outputs: What it takes and gives.
    """

    name: str
    version: int
    platform: str
    inputs: tuple[Spec, ...]
    outputs: tuple[Spec, ...]

    async def infer(self, request: pb.ModelInferRequest, deadline: float | None) -> Answered:
        """Returns the outputs that a request wants.

        Raises:
            TrunklineError: The request is at fault, or cannot be answered now.
        """
        ...


def requested(request: pb.ModelInferRequest, outputs: Sequence[Spec]) -> list[str]:
    """Returns the names of the outputs that a request names; none if it leaves them to the model.

    Raises:
        InvalidInput: One is unknown, named twice, or has parameters.
    """
    known = [spec.name for spec in outputs]
    names: list[str] = []
    for at, wanted in enumerate(request.outputs):
        check_known(wanted.name, known, names, f"outputs[{at}].name")
        refuse_parameters(wanted.parameters, f"outputs[{at}]")
        names.append(wanted.name)
    return names
