"""What all turns of a contender at one point of a curve amount to, as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.serving.contenders import Turn
from benchmarks.serving.load import Latencies, Report

X = int | float | str
_MILLION = 1e6
_HOUR = 3600.0
_MS = 1000.0
_STAGES = {"queue": "queue", "tokenise": "encode", "compute": "compute", "decode": "decode"}


def point(name: str, x: X, turns: Sequence[Turn], price: float | None) -> dict[str, Any]:
    """Returns the JSON form of all turns of a contender at one x; see docs/performance.md.

    There is at least one turn. The price is that of an hour of a CPU.
    """
    good = [turn for turn in turns if turn.counts]
    used = good or turns
    report = _whole(used)
    cpu = sum(turn.server_cpu_seconds or 0.0 for turn in used)
    return {
        "side": name,
        "x": x,
        "counts": bool(good),
        "turns": [_turn(one) for one in turns],
        **_latencies(report.accepted),
        "calls": report.answered,
        "documents_per_second": _rate(report, report.documents_per_second),
        "tokens_per_second": _rate(report, report.tokens_per_second),
        "refused": len(report.refusals),
        "expired": report.expired,
        "errors": dict(report.errors),
        "server_cpu_seconds": round(cpu, 3),
        "cost": _cost(report, cpu, price),
        "generator": _generator(used, report),
        **_server(used, report),
        **_means([turn.more for turn in used]),
    }


def length_points(name: str, turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Returns a point for each group of requests; of those figures that a group has."""
    good = [turn for turn in turns if turn.counts]
    report = _whole(good or turns)
    return [
        {
            "side": name,
            "x": group,
            "counts": bool(good),
            "turns": [_turn(one) for one in turns],
            "calls": len(times),
            **_latencies(times),
        }
        for group, times in sorted(report.groups.items())
    ]


def _whole(turns: Sequence[Turn]) -> Report:
    whole = Report(0.0, turns[0].report.documents)
    for turn in turns:
        whole.follow(turn.report)
    return whole


def _turn(turn: Turn) -> dict[str, Any]:
    return {
        "stolen": turn.stolen,
        "counts": turn.counts,
        "documents_per_second": _rate(turn.report, turn.report.documents_per_second),
    }


def _rate(report: Report, value: float) -> float | None:
    """Returns a rate; None if the turn was too short for any call to end in it."""
    ended = len(report.accepted) + len(report.refusals) + report.errors.total()
    return round(value, 3) if ended else None


def _latencies(times: Latencies) -> dict[str, float | None]:
    names = {"p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "p999_ms": 99.9}
    return {"mean_ms": times.mean_ms()} | {name: times.tail_ms(at) for name, at in names.items()}


def _cost(report: Report, cpu: float, price: float | None) -> dict[str, float | None] | None:
    documents = report.all_answered * report.documents
    if not documents or not report.all_tokens:
        return None
    counted = {"requests": documents, "tokens": report.all_tokens}
    each = {name: cpu / count * _MILLION for name, count in counted.items()}
    money = {
        f"money_per_million_{name}": None if price is None else round(value / _HOUR * price, 6)
        for name, value in each.items()
    }
    return {f"cpu_seconds_per_million_{name}": round(v, 2) for name, v in each.items()} | money


def _generator(turns: Sequence[Turn], report: Report) -> dict[str, Any]:
    return {
        "cpu_share": round(report.cpu_seconds / max(report.wall_seconds, 1e-9), 3),
        "late_p99_ms": report.late.ms(99),
        "lag_p99_ms": report.lag.ms(99),
        "saturated": any(turn.report.saturated for turn in turns),
    }


def _server(turns: Sequence[Turn], report: Report) -> dict[str, Any]:
    """Returns stages and batches by the server's own metrics, None without."""
    sums: Counter[str] = Counter()
    for turn in turns:
        sums.update(turn.server_sums or {})
    return {
        "stages": _stages(sums, report.accepted.mean_ms()) if sums["calls"] else None,
        "batches": _batches(sums) if sums["batches"] else None,
    }


def _stages(sums: Mapping[str, float], seen_ms: float | None) -> dict[str, float]:
    def mean(stage: str) -> float:
        return _MS * sums.get(f"{stage} seconds", 0.0) / sums["calls"]

    found = {f"{name}_ms": mean(stage) for name, stage in _STAGES.items()}
    found["rest_ms"] = max(mean("total") - sum(found.values()), 0.0)
    found["outside_ms"] = max((seen_ms or 0.0) - mean("total"), 0.0)
    return {name: round(value, 4) for name, value in found.items()}


def _batches(sums: Mapping[str, float]) -> dict[str, float]:
    count = sums["batches"]
    return {
        "count": int(count),
        "fill": round(sums["fill"] / count, 4),
        "tokens": round(sums["tokens"] / count, 1),
        "calls": round(sums["sharing"] / count, 2),
        "padding_share": round(1 - sums["tokens"] / max(sums["computed"], 1.0), 4),
    }


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: round(sum(row[name] for row in rows) / len(rows), 3) for name in rows[0]}
