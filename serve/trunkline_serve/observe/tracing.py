"""OpenTelemetry traces: a span per call, with a child for each stage of it.

Needs the extra `otel`. Spans never hold texts. They are sent in the background; while the collector
is away or slow, the oldest that wait are dropped.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from time import time_ns
from typing import TYPE_CHECKING, Any

import trunkline
from trunkline.errors import ConfigError
from trunkline.extras import explained, missing
from trunkline_serve import settings
from trunkline_serve.events import Timing

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import SpanProcessor

_WAITING = 16_384  # spans
_EXPORT_SECONDS = 5.0
_CLOSE_SECONDS = 2.0
# As OpenTelemetry's conventions for RPC servers have it: the caller's faults are not the server's.
_FAULTS = {
    "UNKNOWN",
    "DEADLINE_EXCEEDED",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
}


class Span:
    """The span of one call that is traced."""

    def __init__(self, tracer: trace.Tracer, span: trace.Span) -> None:
        self._tracer = tracer
        self._span = span

    def answered(self, timing: Timing) -> None:
        """Adds the stages of a request that was answered just now."""
        from opentelemetry.trace import set_span_in_context

        context, end = set_span_in_context(self._span), time_ns()
        for name, begin_ns, end_ns in _stages(timing, end):
            self._tracer.start_span(name, context, start_time=begin_ns).end(end_ns)

    def end(self, status: str, attributes: Mapping[str, Any]) -> None:
        """Ends it.

        Args:
            status: Name of the call's status code.
            attributes: Said of it.
        """
        import grpc
        from opentelemetry.trace import StatusCode

        self._span.set_attributes(attributes)
        self._span.set_attribute("rpc.grpc.status_code", grpc.StatusCode[status].value[0])
        if status in _FAULTS:
            self._span.set_status(StatusCode.ERROR, status)
        self._span.end()


def check_installed() -> None:
    """Raises MissingExtra unless OpenTelemetry is installed."""
    for module in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.grpc"):
        try:
            found = find_spec(module)
        except ModuleNotFoundError:  # of a package around it
            found = None
        if found is None:
            raise missing(module, "otel")


class Traces:
    """Starts spans and sends them to a collector.

    Args:
        tracing: The settings; with an endpoint. `https://HOST:PORT` is called over TLS.

    Raises:
        MissingExtra: OpenTelemetry is not installed.
        ConfigError: The share is not one.
    """

    def __init__(self, tracing: settings.Tracing) -> None:
        if not 0 <= tracing.share <= 1:
            raise ConfigError(f"tracing.share: {tracing.share} is not a share; give 0 to 1")
        try:
            processor = _processor(tracing.endpoint or "")
        except ModuleNotFoundError as error:
            raise explained(error, "otel") from None
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        ours = Resource({"service.name": "trunkline", "service.version": trunkline.__version__})
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(tracing.share)),
            resource=ours.merge(OTELResourceDetector().detect()),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("trunkline_serve", trunkline.__version__)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> Span | None:
        """Starts the span of a call; None if it is not among those that are traced.

        Args:
            method: As `package.Service/Method`.
            metadata: The caller's; a W3C `traceparent` in it is continued.
        """
        from opentelemetry.trace import SpanKind

        carrier = {key: value for key, value in metadata if isinstance(value, str)}
        span = self._tracer.start_span(
            method, self._propagator.extract(carrier), kind=SpanKind.SERVER
        )
        if not span.is_recording():
            return None
        service, _, name = method.partition("/")
        span.set_attributes({"rpc.system": "grpc", "rpc.service": service, "rpc.method": name})
        return Span(self._tracer, span)

    def close(self) -> None:
        """Sends what waits, or gives up after two seconds."""
        last = threading.Thread(target=self._provider.shutdown, daemon=True)
        last.start()
        last.join(_CLOSE_SECONDS)


def _processor(endpoint: str) -> SpanProcessor:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    exporter = OTLPSpanExporter(
        endpoint, insecure=not endpoint.startswith("https://"), timeout=_EXPORT_SECONDS
    )
    return BatchSpanProcessor(exporter, max_queue_size=_WAITING, schedule_delay_millis=1000)


def _stages(timing: Timing, end: int) -> Iterable[tuple[str, int, int]]:
    """Yields name, begin and end of each stage, in nanoseconds of wall-clock time."""
    encoded = end - timing.total_ns + timing.encode_ns
    decoding = end - timing.decode_ns
    queued = encoded + timing.queue_ns
    yield "encode", encoded - timing.encode_ns, encoded
    yield "queue", encoded, queued
    yield "compute", queued, queued + timing.compute_ns
    yield "decode", decoding, end
