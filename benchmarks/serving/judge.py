"""Rounds to bars, and bars to a table."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.bars import Bar, show
from benchmarks.serving.overload import Overload
from benchmarks.serving.peers.registry import PEERS
from benchmarks.serving.rounds import Round, names_of, ratios, tail_ratios, turns_of
from benchmarks.serving.sides import Turn, in_process_name, served_name

OVER_IN_PROCESS = 0.90
OVERHEAD_MS = 0.5
OVER_BATCHING = {"fp32": 3.0, "int8": 5.0}  # by precision
OVER_PLAIN = {"fp32": 1.4, "int8": 3.0}
GOODPUT = 0.95
REFUSAL_MS = 20.0
MEMORY_GROWTH = 1.05  # what resident memory may differ by between two looks at a server at work
HEALTH_MS = 50.0
_PLAIN, _PER_TASK = "plain", "one-per-task"


def bars(
    rounds: Sequence[Round],
    precisions: Mapping[str, str],
    peers: Sequence[str],
    pushed: Overload | None,
) -> list[Bar]:
    """Returns all bars.

    Args:
        rounds: Those that count.
        precisions: Of the graphs that were served, by name.
        peers: Names of those that were asked for, also of those that failed.
        pushed: The run at twice the maximum, if there was one.
    """
    found = [bar for graph in precisions for bar in _own(rounds, graph)]
    found += [
        bar
        for graph, precision in precisions.items()
        for bar in _beside(rounds, served_name(graph), precision, peers)
    ]
    return found + ([] if pushed is None else _pushed(pushed))


def _own(rounds: Sequence[Round], graph: str) -> Iterator[Bar]:
    name = served_name(graph)
    shares = ratios(rounds, name, in_process_name(graph))
    yield Bar(f"{graph}: served over the graph in process", OVER_IN_PROCESS, shares)
    added = [one.overhead_ms[name] for one in rounds if name in one.overhead_ms]
    yield Bar(f"{graph}: unloaded over in process and empty RPC, ms", OVERHEAD_MS, added, True)


def _beside(
    rounds: Sequence[Round], name: str, precision: str, peers: Sequence[str]
) -> Iterator[Bar]:
    if any(PEERS[peer].batches for peer in peers):
        best = best_batching(rounds) or "batching peer"
        what = f"{name} over {best}, the best padded batching peer"
        yield Bar(what, OVER_BATCHING[precision], ratios(rounds, name, best))
        tails = tail_ratios(rounds, name, best)
        yield Bar(f"{name}: p99 over that of {best}", 1.0, tails, True)
    if _PLAIN in peers:
        what = f"{name} over the plain server without batching"
        yield Bar(what, OVER_PLAIN[precision], ratios(rounds, name, _PLAIN))


def best_batching(rounds: Sequence[Round]) -> str | None:
    """Returns the batching peer that did most, by its median; None if there is none."""
    names = [name for name in names_of(rounds) if name in PEERS and PEERS[name].batches]
    return max(names, key=lambda name: _median(rounds, name), default=None)


def _median(rounds: Sequence[Round], name: str) -> float:
    return statistics.median(turn.tokens_per_second for turn in turns_of(rounds, name))


def _pushed(run: Overload) -> list[Bar]:
    def value(given: float | None) -> list[float]:
        return [given] if given is not None and run.counts else []

    tail = None if run.accepted_p99_ms is None else run.accepted_p99_ms / run.deadline_ms
    return [
        Bar("2x overload: goodput over the maximum", GOODPUT, value(run.goodput)),
        Bar("2x overload: accepted p99 over the deadline", 1.0, value(tail), True),
        Bar("2x overload: refusals, p50, ms", REFUSAL_MS, value(run.refusal_p50_ms), True),
        Bar("2x overload: memory growth", MEMORY_GROWTH, value(run.memory_growth), True),
        Bar("2x overload: health checks, p99, ms", HEALTH_MS, value(run.health_p99_ms), True),
    ]


def shared(rounds: Sequence[Round], graphs: Iterable[str]) -> dict[str, list[float]]:
    """Returns how many times the tokens of a server per task one for all did, round by round.

    There is no bar for that: a server per task computes the encoder once for each.
    """
    named = {f"{served_name(graph)} over a server per task": served_name(graph) for graph in graphs}
    found = {what: ratios(rounds, name, _PER_TASK) for what, name in named.items()}
    return {what: values for what, values in found.items() if values}


def figures(rounds: Sequence[Round]) -> dict[str, dict[str, Any]]:
    """Returns what each side did: medians over rounds, and the range of its throughput."""
    return {name: _figures(turns_of(rounds, name)) for name in names_of(rounds)}


def _figures(turns: Sequence[Turn]) -> dict[str, Any]:
    tokens = [turn.tokens_per_second for turn in turns]
    return {
        "tokens_per_second": round(statistics.median(tokens), 1),
        "range": [round(min(tokens), 1), round(max(tokens), 1)],
        "documents_per_second": _middle([turn.documents_per_second for turn in turns]),
        "p50_ms": _middle([turn.p50_ms for turn in turns]),
        "p99_ms": _middle([turn.p99_ms for turn in turns]),
        "generator_saturated": sum(turn.generator_saturated for turn in turns),
    }


def _middle(values: Sequence[float | None]) -> float | None:
    there = [one for one in values if one is not None]
    return round(statistics.median(there), 2) if there else None


def table(
    found: Sequence[Bar],
    others: Mapping[str, Sequence[float]],
    sides: Mapping[str, Mapping[str, Any]],
) -> str:
    """Returns bars, ratios without a bar, and sides as lines of text."""
    lines = [show(bar.to_dict()) for bar in found]
    lines += [_without_bar(name, values) for name, values in others.items()]
    lines += ["", f"{'':28}{'tokens/s':>10}{'docs/s':>10}{'p50 ms':>10}{'p99 ms':>10}"]
    return "\n".join([*lines, *(_line(name, row) for name, row in sides.items())])


def _without_bar(name: str, values: Sequence[float]) -> str:
    spread = f"{min(values):.3g} - {max(values):.3g}"
    return f"{name:68}{statistics.median(values):8.4g}{spread:>16}  no bar"


def _line(name: str, row: Mapping[str, Any]) -> str:
    columns = ("tokens_per_second", "documents_per_second", "p50_ms", "p99_ms")
    cells = "".join(f"{'' if row[one] is None else format(row[one], '.1f'):>10}" for one in columns)
    warning = "  load generator saturated" if row["generator_saturated"] else ""
    return f"{name:28}{cells}{warning}"
