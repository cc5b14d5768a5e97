"""Prometheus metrics of what the engine tells, in a registry of their own.

Labels are bounded: models, versions and tasks are those that are or were served, all other values
come from lists in the code. A model asked for that was never served counts under "".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

import trunkline
from trunkline_serve.description import ModelId
from trunkline_serve.events import Answered, BatchRan, Failed, Listener
from trunkline_serve.models import Registry
from trunkline_serve.observe.logs import lost_lines
from trunkline_serve.observe.series import Counts, Spread

# From 0.1 ms to 30 s, near enough to each other for percentiles.
_SECONDS = [
    *(round(step * 10.0**power, 6) for power in range(-5, 0) for step in (10, 15, 20, 30, 50, 70)),
    *(10.0, 15.0, 20.0, 30.0),
]
_TOKENS = [2.0**power for power in range(4, 17)]
_SHARES = [step / 20 for step in range(1, 21)]
_CALLS = [2.0**power for power in range(9)]


@dataclass(frozen=True)
class Gauge:
    """A figure that is asked for whenever the metrics are read, on any thread."""

    name: str
    about: str
    read: Callable[[], float]


class Metrics(Listener):
    """Counts what happens. Calls are told on one event loop, the rest on any thread.

    Args:
        models: Those that are served.
        gauges: The state of whatever computes or answers.

    Attributes:
        registry: What to read; on any thread.
    """

    def __init__(self, models: Registry, gauges: Sequence[Gauge]) -> None:
        self.registry = CollectorRegistry()
        self._state = _State(models, gauges)
        self._calls = _Calls(self.registry)
        self._batches = _Batches(self.registry)
        self._lock = Lock()
        self.registry.register(self._state)
        ProcessCollector(registry=self.registry)

    def batch_ran(self, batch: BatchRan) -> None:
        """Counts a batch."""
        with self._lock:
            self._batches.ran(batch)

    def answered(self, call: Answered) -> None:
        """Counts a request, and where its time went."""
        self._calls.answered(call)

    def failed(self, call: Failed) -> None:
        """Counts a failure, by its reason."""
        self._calls.failed(call, self._state.known(call.model))

    def dropped(self, model: str, reason: str, rows: int) -> None:
        """Counts rows that were not computed."""
        with self._lock:
            self._batches.dropped.add((model, reason), rows)

    def lane_failed(self) -> None:
        """Counts an error that computing did not expect."""
        with self._lock:
            self._batches.broken.add(())

    def ended(self, method: str, code: str) -> None:
        """Counts a gRPC call, by the name of its status code."""
        self._calls.rpcs.add((method, code))


class _Group:
    """Makes metrics of a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counts(self, name: str, about: str, *labels: str) -> Counts:
        made = Counts(f"trunkline_{name}", about, labels)
        self._registry.register(made)
        return made

    def spread(self, name: str, about: str, bounds: Sequence[float], *labels: str) -> Spread:
        made = Spread(f"trunkline_{name}", about, labels, bounds)
        self._registry.register(made)
        return made


class _Calls(_Group):
    """What is counted by call."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        model, task = ("model", "version"), ("model", "version", "task")
        self.rpcs = self.counts("rpcs", "gRPC calls that ended.", "method", "code")
        self._calls = self.counts("calls", "Requests answered.", *model)
        self._documents = self.counts("documents", "Documents of answered requests.", *model)
        self._task_calls = self.counts("task_calls", "Requests answered, by task.", *task)
        self._task_documents = self.counts(
            "task_documents", "Documents and questions answered, by task.", *task
        )
        self._stages = self.spread(
            "stage_seconds", "Time of an answered request, by stage.", _SECONDS, "model", "stage"
        )
        self._failures = self.counts(
            "failures", "Requests refused, failed or cancelled.", "model", "reason", "stage"
        )
        self._failing = self.spread(
            "failure_seconds", "Time until a request failed.", _SECONDS, "reason"
        )

    def answered(self, call: Answered) -> None:
        labels = model, version = call.model, str(call.version)
        self._calls.add(labels)
        self._documents.add(labels, call.documents)
        for task, documents in call.tasks.items():
            self._task_calls.add((model, version, task))
            self._task_documents.add((model, version, task), documents)
        timing, stages = call.timing, self._stages
        stages.add((model, "encode"), timing.encode_ns / 1e9)
        stages.add((model, "queue"), timing.queue_ns / 1e9)
        stages.add((model, "compute"), timing.compute_ns / 1e9)
        stages.add((model, "decode"), timing.decode_ns / 1e9)
        stages.add((model, "total"), timing.total_ns / 1e9)

    def failed(self, call: Failed, model: str) -> None:
        self._failures.add((model, call.reason, call.stage))
        self._failing.add((call.reason,), call.spent_ns / 1e9)


class _Batches(_Group):
    """What is counted by batch."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        model = "model"
        self.dropped = self.counts(
            "dropped_rows", "Rows that waited and were not computed.", model, "reason"
        )
        self.broken = self.counts("lane_failures", "Errors that computing did not expect.")
        self.broken.add((), 0)  # an alert wants to see the first one rise
        self._batches = self.counts(
            "batches", "Batches computed, by why they were cut.", model, "released"
        )
        self._rows = self.counts("rows", "Rows computed.", model)
        self._tokens = self.counts("tokens", "Real tokens computed.", model)
        self._computed = self.counts("computed_tokens", "Tokens computed, padding included.", model)
        self._size = self.spread("batch_tokens", "Real tokens of a batch.", _TOKENS, model)
        self._fill = self.spread(
            "batch_fill", "Real tokens of a batch over what it could have had.", _SHARES, model
        )
        self._calls = self.spread("batch_calls", "Requests that shared a batch.", _CALLS, model)
        self._age = self.spread(
            "batch_queue_age_seconds", "Longest wait of a row in a batch.", _SECONDS, model
        )
        self._run = self.spread("batch_run_seconds", "Time to run a batch.", _SECONDS, model)

    def ran(self, batch: BatchRan) -> None:
        model = (batch.model,)
        self._batches.add((batch.model, batch.released))
        self._rows.add(model, batch.rows)
        self._tokens.add(model, batch.tokens)
        self._computed.add(model, batch.computed_tokens)
        self._size.add(model, batch.tokens)
        self._fill.add(model, min(1.0, batch.tokens / batch.budget))
        self._calls.add(model, batch.calls)
        self._age.add(model, batch.oldest_ns / 1e9)
        self._run.add(model, batch.run_ns / 1e9)


class _State(Collector):
    """What is asked for only when the metrics are read."""

    def __init__(self, models: Registry, gauges: Sequence[Gauge]) -> None:
        self._models = models
        self._gauges = gauges
        self._ids: list[ModelId] = []
        self._names: set[str] = set()
        models.on_change(self._follow)

    def known(self, model: str) -> str:
        """Returns the name of a model if it is or was served, else an empty one."""
        return model if model in self._names else ""

    def collect(self) -> Iterator[Metric]:
        """Yields the gauges."""
        for one in self._gauges:
            yield GaugeMetricFamily(f"trunkline_{one.name}", one.about, one.read())
        served = [(one.name, str(one.version)) for one in self._ids]
        yield _ones("model_served", "1 for each model served.", ("model", "version"), served)
        built = [(trunkline.__version__,)]
        yield _ones("build_info", "The server's version.", ("version",), built)
        lost = "Log lines that could not be written."
        yield CounterMetricFamily("trunkline_log_lines_lost", lost, lost_lines())

    def _follow(self) -> None:
        # Replaced whole, so that a thread that reads it meanwhile sees the one or the other.
        self._ids = self._models.ids()
        self._names |= {one.name for one in self._ids}


def _ones(
    name: str, about: str, labels: Sequence[str], values: Sequence[tuple[str, ...]]
) -> Metric:
    family = GaugeMetricFamily(f"trunkline_{name}", about, labels=labels)
    for one in values:
        family.add_metric(one, 1)
    return family
