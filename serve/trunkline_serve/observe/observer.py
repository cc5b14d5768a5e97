"""Everything that watches one server, as its settings ask for it."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from trunkline_serve.engine import Engine
from trunkline_serve.observe.calls import Calls, Ended
from trunkline_serve.observe.tracing import Traces

if TYPE_CHECKING:
    from trunkline_serve.observe.metrics import Gauge

_log = logging.getLogger("trunkline_serve")


class Observer:
    """Watches an engine and the calls of its server, until it is closed.

    Args:
        engine: Its events are listened to.

    Attributes:
        calls: Follows gRPC calls: each handler does its work within `calls.call`.
        metrics_address: `host:port` where metrics are served; None if they are not.

    Raises:
        ConfigError: The metrics' address cannot be listened on, or a setting makes no sense.
        MissingExtra: Traces are asked for, and OpenTelemetry is not installed.
    """

    def __init__(self, engine: Engine) -> None:
        settings = engine.settings
        self.metrics_address: str | None = None
        with contextlib.ExitStack() as stack:
            ended = self._serve_metrics(engine, stack)
            traces = None
            if settings.tracing.endpoint is not None:
                traces = Traces(settings.tracing)
                stack.callback(traces.close)
            self.calls = Calls(log=settings.log.calls, traces=traces, ended=ended)
            engine.events.add(self.calls)
            self._closing = stack.pop_all()

    def close(self) -> None:
        """Stops serving metrics, and sends the traces that wait."""
        self._closing.close()

    def _serve_metrics(self, engine: Engine, stack: contextlib.ExitStack) -> Ended | None:
        """Returns what counts ended calls."""
        host, port = engine.settings.metrics.host, engine.settings.metrics.port
        if port is None:
            return None
        from trunkline_serve.observe.http import MetricsServer
        from trunkline_serve.observe.metrics import Metrics

        metrics = Metrics(engine.models, _gauges(engine))
        server = MetricsServer(metrics.registry, host, port)
        stack.callback(server.close)
        engine.events.add(metrics)
        self.metrics_address = server.address
        _log.info("metrics on http://%s/metrics", server.address)
        return metrics.ended


def _gauges(engine: Engine) -> list[Gauge]:
    from trunkline_serve.observe.metrics import Gauge

    return [
        Gauge("documents_in_flight", "Documents without an answer yet.", lambda: engine.in_flight),
        Gauge("draining", "1 while new requests are refused.", lambda: engine.draining),
        Gauge("queued_tokens", "Tokens that wait to be computed.", lambda: engine.queued_tokens),
        Gauge("expected_wait_seconds", "Wait of a request made now.", engine.expected_wait),
    ]
