"""The curves of the server: latency, throughput, stages, batches and cost, peers beside it.

    python -m benchmarks.serving.curves BUNDLE [--data FOLDER] [--small] [--peers plain,mosec] \
        --json benchmarks/results/curves.json

`trunkline serve` with each packed graph takes turns with its peers (see benchmarks.serving.bars) at
each point of each curve, so that a machine that is slow for a minute is slow for all. Every turn
records the CPU time stolen meanwhile; turns with more than a tenth of it do not count. Load comes
from processes of its own. `--small` takes about three minutes, the whole about fifteen. Plots:
`python -m benchmarks.plots.curves FILE FOLDER`, or the functions of that module.

The file has what `benchmarks.record` writes (date, commit, command, machine, versions), and

    note         What a reader must know.
    settings     threads, generators, rounds, seconds (of a turn; those of long texts, of large
                 calls and by length are three times as long), callers (of the closed loop that
                 finds the maximum), deadline_seconds (of a call in the open loop), small,
                 price_per_cpu_hour (null if none was given), texts (where they are from),
                 most_stolen (0.1)
    traffic      By workload: about, source, documents, documents_per_call, callers, tokens {"mean",
                 "p50", "p99", "most"} of a document, questions and special ones included
    sides        By name: kind ("trunkline" or "peer"), graph, precision, setting (of a peer),
                 same_answers (share of answers that are the model's), error (null, or why it took
                 no part or stopped)
    concurrency  Points of `mixed` in a closed loop; x: number of callers
    load         Points of `mixed` in an open loop; x: offered documents per second as share of the
                 side's own maximum, found by a closed loop in the same round. More fields: offered
                 and maximum, in documents per second
    length       Points with one caller; x: tokens of a text, asked for its entities
    workloads    Points in a closed loop; x: name of the workload. `bulk` goes through one
                 AnalyzeStream to Trunkline and through single calls to peers, `bulk-calls` through
                 calls of many documents, to Trunkline only
    protocols    Points of `mixed` in a closed loop, Trunkline only; x: analyze, stream,
                 open-inference, open-inference-tensors

Any list of points may be empty. A point is one side at one x, all its counted turns together:

    side, x
    counts       Whether any turn counts. If not, the figures are of turns on a throttled machine:
                 show them marked or not at all. The plots leave them out
    turns        One entry a turn: stolen (share of CPU time), counts, documents_per_second
    calls        Calls answered; what the percentiles are made of
    documents_per_second, tokens_per_second
                 Answered in time; real tokens, special ones included. null if the turns were too
                 short for any call to end in them
    mean_ms, p50_ms, p90_ms, p99_ms, p999_ms
                 Latency, in the open loop from the intended start, expired calls included. null if
                 there were too few calls for that percentile (100 for p99, 1,000 for p999)
    refused, expired, errors
                 Calls refused, not answered in time, and failed by code
    server_cpu_seconds
                 CPU time of all of the server's processes in the turns, warm-up included
    cost         cpu_seconds_per_million_requests (a request is a document) and
                 cpu_seconds_per_million_tokens, and with a price money_per_million_requests and
                 money_per_million_tokens (else null). null if nothing was answered
    generator    cpu_share (of one core), late_p99_ms, lag_p99_ms, saturated (it may have been the
                 limit, not the server)
    stages       Means per call by the server's metrics: queue_ms, tokenise_ms, compute_ms,
                 decode_ms, rest_ms (else in the server), outside_ms (the caller's latency beyond
                 the server's: gRPC, loopback, a late generator). null for peers
    batches      By the server's metrics: count, fill (mean share of the token budget), tokens (mean
                 real ones), calls (mean number that shared one), padding_share (of computed
                 tokens). null for peers
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import record
from benchmarks.serving import options
from benchmarks.serving.curves_sides import installed_peers, serving
from benchmarks.serving.curves_turns import CALLERS_TOGETHER, SMALL, TOGETHER, Curves, Extent
from benchmarks.serving.peers.registry import PEERS
from benchmarks.serving.sides import opened_bench
from benchmarks.serving.traffic import WORKLOADS, Traffic, by_length, workload
from trunkline import Model, load
from trunkline.bundle import open_bundle
from trunkline.cpu import available_cpus
from trunkline.errors import TrunklineError
from trunkline.files import write_whole
from trunkline_serve.bench.rounds import MOST_STOLEN

CURVES = ("concurrency", "load", "length", "workloads", "protocols")


def measure(given: argparse.Namespace, models: Mapping[str, Model]) -> Curves:
    """Starts the servers and measures all curves.

    Raises:
        ConfigError: The model lacks a task that a workload needs.
        ServerError: Trunkline's own server does not start or answers wrongly.
    """
    traffic = dict(_traffic(given, next(iter(models.values()))))
    with (
        opened_bench(
            given.bundle,
            traffic["mixed"],
            concurrency=given.callers,
            threads=given.threads,
            generators=given.generators,
            run=given.run,
        ) as bench,
        serving(bench, models, given.peers, given.extent.seconds) as sides,
    ):
        curves = Curves(
            sides=sides,
            generators=bench.generators,
            traffic=traffic,
            extent=given.extent,
            callers=given.callers,
            deadline=given.deadline,
            say=_say,
        )
        curves.measure()
    return curves


def _traffic(given: argparse.Namespace, model: Model) -> Iterator[tuple[str, Traffic]]:
    for name in WORKLOADS:
        yield name, workload(name, model.manifest, model.pipeline, given.data)
    lengths = given.extent.lengths
    yield "length", by_length(model.manifest, model.pipeline, lengths, given.data)


def _load(given: argparse.Namespace, graph: str) -> Model:
    return load(given.bundle, given.threads, graph=graph, allow_ungated=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures the curves, prints what they say and writes the file.

    Raises:
        TrunklineError: The bundle or the data cannot be used, or its server does not start.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    given = _parser().parse_args(arguments)
    given.threads = given.threads or available_cpus()
    given.peers = installed_peers() if given.peers is None else given.peers
    given.extent = _extent(given)
    curves = measure(given, {graph: _load(given, graph) for graph in _graphs(given)})
    body = _body(given, curves)
    for line in _lines(body):
        print(line)
    if given.json is not None:
        head = record("benchmarks.serving.curves", arguments)
        write_whole(given.json, json.dumps(head | body, indent=1) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("bundle", type=Path)
    add("--data", type=Path, help="folder of benchmarks.prepare; default: generated texts")
    add("--small", action="store_true", help="fewer points, a round of short turns")
    add(
        "--peers",
        type=options.peers,
        help=f"of {','.join(PEERS)}, or none; default: plain, and one "
        "that batches if its environment is there already",
    )
    add(
        "--graphs",
        type=options.names,
        help="default: the bundle's packed ones, or all if there are none",
    )
    add("--run", type=Path, help="the checkpoint of the bundle, for peers that need it")
    add("--seconds", type=_positive, help="of each turn (default: 4; small: 1.5)")
    add("--rounds", type=int, choices=range(1, 101), metavar="N", help="default: 2; small: 1")
    add("--callers", type=int, default=64, help="that find the maximum (default: 64)")
    add("--deadline", type=_positive, default=10.0, help="seconds of calls at a rate (default: 10)")
    add("--threads", type=int, help="of each server (default: the CPUs)")
    add("--generators", type=int, default=1, help="processes that make load (default: 1)")
    add("--price-per-cpu-hour", type=_positive, help="in any currency; default: none, no money")
    add("--json", type=Path, help="write everything there too")
    add("--note", default="", help="what a reader must know")
    return parser


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number above 0")
    return number


def _extent(given: argparse.Namespace) -> Extent:
    chosen = SMALL if given.small else Extent()
    seconds = chosen.seconds if given.seconds is None else given.seconds
    rounds = chosen.rounds if given.rounds is None else given.rounds
    return replace(chosen, seconds=seconds, rounds=rounds)


def _graphs(given: argparse.Namespace) -> list[str]:
    if given.graphs:
        return list(given.graphs)
    graphs = open_bundle(given.bundle).manifest.graphs
    packed = [one.name for one in graphs if one.layout == "packed"]
    return packed or [one.name for one in graphs]


def _body(given: argparse.Namespace, curves: Curves) -> dict[str, Any]:
    points = {name: curves.points(name, given.price_per_cpu_hour) for name in CURVES}
    return {
        "note": given.note,
        "settings": {
            "threads": given.threads,
            "generators": given.generators,
            "rounds": given.extent.rounds,
            "seconds": given.extent.seconds,
            "warm_seconds": given.extent.warm_seconds,
            "callers": given.callers,
            "deadline_seconds": given.deadline,
            "small": given.small,
            "price_per_cpu_hour": given.price_per_cpu_hour,
            "texts": curves.traffic["mixed"].source,
            "most_stolen": MOST_STOLEN,
        },
        "traffic": dict(_described(curves.traffic)),
        "sides": curves.sides.about,
        **points,
    }


def _described(traffic: Mapping[str, Traffic]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, wanted in WORKLOADS.items():
        one = traffic[name]
        described = {
            "about": wanted.about,
            "source": one.source,
            "documents": len(one.documents),
            "documents_per_call": 1,
            "callers": wanted.callers,
            "tokens": _spread(one.tokens),
        }
        yield name, described
        if name == "bulk":
            together = {"documents_per_call": TOGETHER, "callers": CALLERS_TOGETHER}
            yield "bulk-calls", described | together


def _spread(tokens: Sequence[int]) -> dict[str, float]:
    p50, p99 = np.percentile(tokens, [50, 99])
    return {
        "mean": round(float(np.mean(tokens)), 1),
        "p50": float(p50),
        "p99": round(float(p99), 1),
        "most": max(tokens),
    }


def _lines(body: Mapping[str, Any]) -> Iterator[str]:
    """Yields the workloads as a table, what failed, and how many points count."""
    columns = f"{'documents/s':>13}{'p50 ms':>10}{'p99 ms':>10}{'CPU s/1M docs':>15}"
    yield f"{'workload':16}{'side':24}{columns}"
    for one in body["workloads"]:
        cost = one["cost"] or {}
        cells = (
            (one["documents_per_second"], 13),
            (one["p50_ms"], 10),
            (one["p99_ms"], 10),
            (cost.get("cpu_seconds_per_million_requests"), 15),
        )
        row = "".join(f"{'':>{w}}" if v is None else f"{v:>{w},.1f}" for v, w in cells)
        yield f"{one['x']:16}{one['side']:24}{row}{'' if one['counts'] else '  throttled'}"
    for name, about in body["sides"].items():
        if about["error"] is not None:
            yield f"{name}: took no part, or not to the end: {about['error']}"
    points = [one for name in CURVES for one in body[name]]
    yield f"{sum(one['counts'] for one in points)} of {len(points)} points count"


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except TrunklineError as error:
        raise SystemExit(f"{error}") from None
