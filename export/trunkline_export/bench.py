"""`trunkline bench graph`: how fast a bundle's graphs are here, and where their time goes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from trunkline.bundle import Bundle, Graph, open_bundle
from trunkline.cpu import MOST_STOLEN, available_cpus
from trunkline.device import CPU
from trunkline.encode import Row
from trunkline.errors import RuntimeFault
from trunkline.kinds import Output, all_outputs
from trunkline.options import count, path
from trunkline.runner import Runner, open_runner
from trunkline_export.speed import (
    Times,
    Work,
    arithmetic,
    in_turn,
    matrix_peak,
    mixed_rows,
    operator_times,
    padding_share,
    peak_of,
    tokens_of,
)

_SHOWN = 8  # operators


def bench_graph(argv: Sequence[str]) -> int:
    """Runs `trunkline bench graph`; returns the exit status.

    Raises:
        BundleError: The bundle is broken.
        RuntimeFault: No round was measured on an undisturbed machine.
    """
    parser = argparse.ArgumentParser(
        "trunkline bench graph", description="Measure the graphs of a bundle, without a server."
    )
    parser.add_argument("bundle", type=path)
    parser.add_argument("--rounds", type=count, default=5, help="all take turns (default: 5)")
    parser.add_argument("--threads", type=count, help="default: the CPUs")
    given = parser.parse_args(argv)
    bundle, threads = open_bundle(given.bundle), given.threads or available_cpus()
    batches = mixed_rows(bundle.manifest.encoder)
    works = matrix_peak(threads) | graph_works(bundle, batches, threads)
    times = in_turn(works, given.rounds)
    if not all(times.seconds.values()):
        stolen = f"more than {MOST_STOLEN:.0%} of the CPU time was stolen in every round"
        raise RuntimeFault(f"{stolen}; try again later")
    print("\n".join(_speeds(bundle, batches, times, threads)))
    for graph in graphs_for_cpus(bundle):
        if graph.layout == "packed":
            print("\n".join(_operators(bundle, graph, batches)))
    return 0


def graph_works(bundle: Bundle, batches: Sequence[Sequence[Row]], threads: int) -> dict[str, Work]:
    """Returns work by name of the CPU's graphs: run all batches, one after the other."""
    pad_id, outputs = bundle.manifest.encoder.pad_id, all_outputs(bundle.manifest.tasks)
    works: dict[str, Work] = {}
    for graph in graphs_for_cpus(bundle):
        runner = open_runner(bundle.path / graph.file, graph.layout, pad_id, outputs, threads)
        works[graph.name] = partial(run_all, runner, batches, outputs)
    return works


def graphs_for_cpus(bundle: Bundle) -> list[Graph]:
    """Returns the graphs that are not for another device; `make gpu-check` measures those."""
    return [graph for graph in bundle.manifest.graphs if graph.provider == CPU]


def run_all(runner: Runner, batches: Sequence[Sequence[Row]], outputs: Sequence[Output]) -> None:
    """Runs batches one after the other."""
    for batch in batches:
        runner.run(batch, outputs)


def _speeds(
    bundle: Bundle, batches: Sequence[Sequence[Row]], times: Times, threads: int
) -> list[str]:
    tokens = tokens_of(batches)
    names = [graph.name for graph in graphs_for_cpus(bundle)]
    first = names[0]
    peak = peak_of(times, threads)
    operations = arithmetic(bundle.manifest.encoder, batches)
    saved = sum(map(padding_share, batches)) / len(batches)
    lines = [
        f"{len(batches)} batches, {sum(map(len, batches))} rows, {tokens:,} real tokens;"
        f" padded to the longest row {saved:.0%} would be padding",
        f"{threads} threads multiply fp32 matrices at {peak / 1e9:,.0f} GFLOP/s",
        f"{'':24}{'tokens/s':>10}{'over ' + first:>24}{'of that peak':>16}",
    ]
    lines += [
        f"{name:24}{tokens / times.best(name):10,.0f}{times.ratio(name, first):23.2f}x"
        f"{operations / times.best(name) / peak:16.0%}"
        for name in names
    ]
    return [*lines, f"{times.left_out} rounds left out, with more than {MOST_STOLEN:.0%} stolen"]


def _operators(bundle: Bundle, graph: Graph, batches: Sequence[Sequence[Row]]) -> list[str]:
    rows = [row for batch in batches for row in batch]
    times = operator_times(bundle.path / graph.file, rows)
    whole = sum(times.values())
    shown = list(times.items())[:_SHOWN]
    lines = [f"\n{graph.name}, share of time by operator, one thread:"]
    lines += [f"  {name:24}{seconds / whole:7.1%}" for name, seconds in shown]
    rest = whole - sum(seconds for _, seconds in shown)
    return [*lines, f"  {'all others':24}{rest / whole:7.1%}"]
