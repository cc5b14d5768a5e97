"""How the annotations of each kind of task travel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trunkline import Label, Span
from trunkline.annotations import Annotations
from trunkline.v1 import analysis_service_pb2 as pb

Offsets = Callable[[int], int]
"""From code points to another unit."""


@dataclass(frozen=True)
class Codec:
    """How the annotations of one kind of text task travel.

    Attributes:
        field: Their field in the `annotations` oneof of TaskResult.
        fill: (the field's message, annotations, offsets) writes the annotations.
        read: (the field's message) to annotations, for offsets in code points.
    """

    field: str
    fill: Callable[[Any, Sequence[Any], Offsets], None]
    read: Callable[[Any], Annotations]


def _fill_spans(message: pb.SpanList, spans: Sequence[Span], at: Offsets) -> None:
    for span in spans:
        message.spans.add(
            start=at(span.start),
            end=at(span.end),
            text=span.text,
            label=span.label,
            score=span.score,
        )


def _read_spans(message: pb.SpanList) -> tuple[Span, ...]:
    return tuple(Span(one.start, one.end, one.text, one.label, one.score) for one in message.spans)


def _fill_labels(message: pb.LabelList, labels: Sequence[Label], at: Offsets) -> None:
    for one in labels:
        message.labels.add(label=one.label, score=one.score)


def _read_labels(message: pb.LabelList) -> tuple[Label, ...]:
    return tuple(Label(one.label, one.score) for one in message.labels)


ANNOTATIONS: dict[str, Codec] = {
    "token-classification": Codec("spans", _fill_spans, _read_spans),
    "text-classification": Codec("labels", _fill_labels, _read_labels),
}
"""By kind of task; the only place that knows which message a kind's annotations become."""

BY_FIELD = {codec.field: codec for codec in ANNOTATIONS.values()}
