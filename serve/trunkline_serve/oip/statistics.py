"""Counts per model, as Triton keeps them."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass
from time import time_ns

from trunkline.naming import TENSORS
from trunkline_serve.events import Answered, BatchRan, Listener
from trunkline_serve.oip.v1 import open_inference_pb2 as pb

_MILLISECOND = 1_000_000


@dataclass
class _Counts:
    """Of one model by one name, since the start; times in nanoseconds."""

    answered: int = 0
    failed: int = 0
    items: int = 0
    total_ns: int = 0
    failed_ns: int = 0
    queue_ns: int = 0
    encode_ns: int = 0
    compute_ns: int = 0
    decode_ns: int = 0
    last_ms: int = 0


class Statistics(Listener):
    """Counts answers of all services, and failures of this one."""

    def __init__(self) -> None:
        # Batches are told of on other threads than the rest.
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, int], _Counts] = defaultdict(_Counts)
        self._batches: dict[tuple[str, int], int] = defaultdict(int)

    def batch_ran(self, batch: BatchRan) -> None:
        """Counts it."""
        with self._lock:
            self._batches[batch.model, batch.version] += 1

    def answered(self, call: Answered) -> None:
        """Counts it and where its time went."""
        name = call.model if call.tasks else call.model + TENSORS
        counts, timing = self._counts[name, call.version], call.timing
        counts.answered += 1
        counts.items += call.documents
        counts.total_ns += timing.total_ns
        counts.queue_ns += timing.queue_ns
        counts.encode_ns += timing.encode_ns
        counts.compute_ns += timing.compute_ns
        counts.decode_ns += timing.decode_ns
        counts.last_ms = time_ns() // _MILLISECOND

    def refused(self, name: str, version: int, spent_ns: int) -> None:
        """Counts a request to a model by one of its names that was not answered."""
        counts = self._counts[name, version]
        counts.failed += 1
        counts.failed_ns += spent_ns

    def of(self, name: str, version: int) -> pb.ModelStatistics:
        """Returns what was counted of a model by one of its names.

        Batches are those of the model by both names, since they share them.
        """
        counts = self._counts.get((name, version), _Counts())
        with self._lock:
            batches = self._batches.get((name.removesuffix(TENSORS), version), 0)

        def answers(nanoseconds: int) -> pb.StatisticDuration:
            # Clients refuse stages whose counts differ.
            return pb.StatisticDuration(count=counts.answered, ns=nanoseconds)

        return pb.ModelStatistics(
            name=name,
            version=str(version),
            last_inference=counts.last_ms,
            inference_count=counts.items,
            execution_count=batches,
            inference_stats=pb.InferStatistics(
                success=answers(counts.total_ns),
                fail=pb.StatisticDuration(count=counts.failed, ns=counts.failed_ns),
                queue=answers(counts.queue_ns),
                compute_input=answers(counts.encode_ns),
                compute_infer=answers(counts.compute_ns),
                compute_output=answers(counts.decode_ns),
            ),
        )
