"""Rounds to figures, and figures to a table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trunkline_serve.bench.load import Sample
from trunkline_serve.bench.rounds import Round

_MS = 1000.0


def kept(rounds: Sequence[Round]) -> list[Round]:
    """Returns the rounds in which the machine was ours."""
    return [one for one in rounds if one.counts]


def figures(rounds: Sequence[Round], documents: int) -> dict[str, Any]:
    """Returns what the rounds amount to; latencies in ms.

    Args:
        rounds: At least one.
        documents: Number of documents that `in process together` analyses at once.
    """
    pooled = {name: _pool(rounds, name) for name in rounds[0].samples}
    together = pooled.pop("in process together", None)
    found: dict[str, Any] = {name: _figures(sample) for name, sample in pooled.items()}
    if together is not None:
        count = documents * len(together.latencies)
        found["in process together"] = {"documents_per_second": count / together.seconds}
        found["overhead_ms"] = _overhead(rounds)
    return found


def table(found: Mapping[str, Any]) -> str:
    """Returns the figures as lines of text."""
    lines = [
        f"{'':22}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'docs/s':>10}{'tokens/s':>10}  errors"
    ]
    lines += [_line(name, row) for name, row in found.items() if isinstance(row, dict)]
    if "overhead_ms" in found:
        value = found["overhead_ms"]
        lines.append(
            f"overhead, p50(grpc short) - p50(in process short) - p50(empty): {value:.3f} ms"
        )
    return "\n".join(lines)


def _pool(rounds: Sequence[Round], name: str) -> Sample:
    pooled = Sample()
    for one in rounds:
        pooled.add(one.samples[name])
    return pooled


def _figures(sample: Sample) -> dict[str, Any]:
    p50, p95, p99 = _percentiles(sample)
    return {
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "calls": len(sample.latencies),
        "documents_per_second": len(sample.latencies) / sample.seconds,
        "tokens_per_second": sample.tokens / sample.seconds if sample.tokens else None,
        "errors": dict(sample.errors),
    }


def _percentiles(sample: Sample) -> tuple[float | None, ...]:
    if not sample.latencies:
        return None, None, None
    return tuple(float(value) * _MS for value in np.percentile(sample.latencies, [50, 95, 99]))


def _overhead(rounds: Sequence[Round]) -> float:
    """Returns the median over rounds of what gRPC and the server add, beyond an empty call."""

    def p50(one: Round, name: str) -> float:
        return statistics.median(one.samples[name].latencies) * _MS

    return statistics.median(
        p50(one, "grpc short") - p50(one, "in process short") - p50(one, "empty") for one in rounds
    )


def _line(name: str, row: Mapping[str, Any]) -> str:
    columns = (
        (row.get("p50_ms"), 9, 2),
        (row.get("p95_ms"), 9, 2),
        (row.get("p99_ms"), 9, 2),
        (row["documents_per_second"], 10, 1),
        (row.get("tokens_per_second"), 10, 0),
    )
    cells = "".join(
        f"{'':>{width}}" if value is None else f"{value:{width}.{digits}f}"
        for value, width, digits in columns
    )
    errors = ", ".join(f"{code} {count}" for code, count in row.get("errors", {}).items())
    return f"{name:22}{cells}  {errors}".rstrip()
