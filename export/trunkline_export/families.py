"""What encoders of different families need before the exporter can follow them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.onnx import OnnxExporterError
from transformers import PreTrainedModel

from trunkline.errors import TrunklineError


class Unexportable(TrunklineError):
    """An encoder that the exporter cannot follow; the message says which and why."""


def use_plain_attention(encoder: PreTrainedModel) -> None:
    """Makes attention matrix products and a softmax, where the encoder leaves a choice.

    Encoders that have but one attention, and those of transformers 4 that chose it when they were
    built, keep theirs; the graph is then larger, and gives the same.
    """
    if encoder._can_set_attn_implementation():
        encoder.set_attn_implementation("eager")


@contextmanager
def named_failure(kind: str) -> Iterator[None]:
    """Turns pages of the exporter's advice into one line with the encoder's type.

    Raises:
        Unexportable: The exporter failed.
    """
    try:
        yield
    except OnnxExporterError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise Unexportable(
            f"an encoder of type {kind!r} cannot be exported: {reason}; "
            "train one of a family that docs/encoders.md lists"
        ) from error
