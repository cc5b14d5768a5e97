"""Rounds to bars, and bars to a table."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.bars import Bar, show
from benchmarks.serving.contenders import in_process_name, served_name
from benchmarks.serving.load import Report
from benchmarks.serving.overload import Overload, overload_bars
from benchmarks.serving.peers.registry import PEERS
from benchmarks.serving.rounds import Round, ratios

OVER_IN_PROCESS = 0.90
OVERHEAD_MS = 0.5
OVER_BATCHING = {"fp32": 3.0, "int8": 5.0}  # by precision
OVER_PLAIN = {"fp32": 1.4, "int8": 3.0}
_PLAIN, _PER_TASK = "plain", "one-per-task"


def bars(
    rounds: Sequence[Round],
    precisions: Mapping[str, str],
    peers: Sequence[str],
    pushed: Overload | None,
) -> list[Bar]:
    """Returns all bars.

    Precisions are by graph, peers those that were asked for, also those that failed.
    """
    found = [bar for graph in precisions for bar in _own(rounds, graph)]
    for graph, precision in precisions.items():
        found += _beside(rounds, served_name(graph), precision, peers)
    return found + ([] if pushed is None else overload_bars(pushed))


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
        tails = ratios(rounds, name, best, lambda report: report.accepted.at(99))
        yield Bar(f"{name}: p99 over that of {best}", 1.0, tails, True)
    if _PLAIN in peers:
        what = f"{name} over the plain server without batching"
        yield Bar(what, OVER_PLAIN[precision], ratios(rounds, name, _PLAIN))


def best_batching(rounds: Sequence[Round]) -> str | None:
    """Returns the batching peer that did most, by its median; None if there is none."""
    found = figures(rounds)
    names = [name for name in found if name in PEERS and PEERS[name].batches]
    return max(names, key=lambda name: found[name]["tokens_per_second"], default=None)


def shared(rounds: Sequence[Round], graphs: Iterable[str]) -> dict[str, list[float]]:
    """Returns how many times the tokens of a server per task one for all did, round by round.

    There is no bar for that: a server per task computes the encoder once for each.
    """
    named = {f"{served_name(graph)} over a server per task": served_name(graph) for graph in graphs}
    found = {what: ratios(rounds, name, _PER_TASK) for what, name in named.items()}
    return {what: values for what, values in found.items() if values}


def figures(rounds: Sequence[Round]) -> dict[str, dict[str, Any]]:
    """Returns what each contender did: medians over rounds, and the range of its throughput."""
    names = dict.fromkeys(name for one in rounds for name in one.turns)
    return {
        name: _figures([one.turns[name].report for one in rounds if name in one.turns])
        for name in names
    }


def _figures(reports: Sequence[Report]) -> dict[str, Any]:
    tokens = [one.tokens_per_second for one in reports]
    return {
        "tokens_per_second": round(statistics.median(tokens), 1),
        "range": [round(min(tokens), 1), round(max(tokens), 1)],
        "documents_per_second": _middle([one.documents_per_second for one in reports]),
        "p50_ms": _middle([one.accepted.ms(50) for one in reports]),
        "p99_ms": _middle([one.accepted.ms(99) for one in reports]),
        "generator_saturated": sum(one.saturated for one in reports),
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
