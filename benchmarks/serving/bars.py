"""The bars of the server, beside what one would serve the same weights with, in one run.

    python -m benchmarks.serving.bars BUNDLE --data FOLDER --json benchmarks/results/serving.json

Contenders take turns, one each a round: the graph in this process on rows that are tokenised
already, `trunkline serve` with each packed graph, and the peers on the padded fp32 graph of the
same bundle. Each peer gets an environment of its own in .tools/peers and the best of a few
settings, found by a short run of each; one that cannot be installed or started is reported with its
error. Servers stand still while it is not their turn. Load comes from processes of its own, in a
closed loop; three requests in four ask for the entities of a short sentence, one asks a question
about a text. Rounds with more than a tenth of the CPU time stolen do not count. At the end the last
graph's server is driven at twice its maximum in an open loop. See docs/performance.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.bars import Bar
from benchmarks.record import record
from benchmarks.serving import options
from benchmarks.serving.contenders import InProcess, opened_bench, served_name
from benchmarks.serving.judge import bars, figures, shared, table
from benchmarks.serving.overload import Overload, overload
from benchmarks.serving.peers.registry import PEERS
from benchmarks.serving.rounds import Lineup, Round, kept, opened_lineup
from benchmarks.serving.traffic import workload
from trunkline import Model
from trunkline.cpu import available_cpus
from trunkline.errors import RuntimeFault, TrunklineError

_DOCUMENTS = 512  # of the traffic, sent in turn
_BUSY = 0.5  # of the CPUs, by the load average before the run


@dataclass
class Run:
    """What was measured."""

    source: str  # where the texts are from
    lineup: Lineup  # who took part
    rounds: list[Round] = field(default_factory=list)  # all rounds, also those that do not count
    pushed: Overload | None = None  # the run at twice the maximum


def measure(given: argparse.Namespace, models: Mapping[str, Model]) -> Run:
    """Starts the servers, measures the rounds, then the overload.

    Raises:
        ServerError: Trunkline's own server does not start or answers wrongly.
    """
    first = next(iter(models.values()))
    traffic = workload("mixed", first, given.data, count=_DOCUMENTS)
    with (
        opened_bench(given.bundle, traffic, **options.bench_options(given)) as bench,
        opened_lineup(bench, models, given.peers, given.seconds) as lineup,
    ):
        *_, last = lineup.ours()
        lineup.contenders[:0] = [InProcess(model, traffic) for model in models.values()]
        unloaded = {served_name(graph): model for graph, model in models.items()}
        run = Run(traffic.source, lineup)
        for number in range(1, given.rounds + 1):
            run.rounds.append(lineup.round(bench.load(given.seconds), unloaded))
            stolen = run.rounds[-1].stolen
            options.say(f"round {number} of {given.rounds}, {stolen:.0%} stolen")
        run.pushed = overload(last, given.overload_seconds, given.seconds, given.deadline)
    return run


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes the bars; fails if one is missed.

    Raises:
        RuntimeFault: No round was measured on an undisturbed machine.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    given = options.parsed(_parser(), arguments)
    given.load = _machine_load()
    models = options.models(given)
    run = measure(given, models)
    good = kept(run.rounds)
    if not good:
        raise RuntimeFault("too much CPU time was stolen in every round; try again later")
    precisions = {graph: model.graph.precision for graph, model in models.items()}
    found = bars(good, precisions, given.peers, run.pushed)
    print(table(found, shared(good, precisions), figures(good)))
    for name, reason in run.lineup.failed.items():
        print(f"{name}: took no part, or not to the end: {reason}")
    print(f"{len(good)} of {len(run.rounds)} rounds count")
    head = record("benchmarks.serving.bars", arguments)
    options.write(given.json, head, _body(given, run, good, found, head["command"]))
    return 0 if all(bar.met for bar in found) else 1


def _machine_load() -> float:
    """Returns the machine's load average, and warns if others are at work."""
    found = os.getloadavg()[0]
    if found > _BUSY * available_cpus():
        options.say(f"the machine is busy (load {found:.1f}): figures will mean little")
    return round(found, 2)


def _parser() -> argparse.ArgumentParser:
    parser = options.parser(__doc__, rounds=5, seconds=10.0, peers=list(PEERS))
    help_text = "at twice the maximum (default: 60); --deadline is then twice p99 at the maximum"
    parser.add_argument("--overload-seconds", type=options.positive, default=60.0, help=help_text)
    return parser


def _body(
    given: argparse.Namespace, run: Run, good: Sequence[Round], found: Sequence[Bar], command: str
) -> dict[str, Any]:
    about = run.lineup.described()
    return {
        "note": given.note,
        "settings": {
            "threads": given.threads,
            "concurrency": given.callers,
            "seconds": given.seconds,
            "generators": given.generators,
            "load_cpus": given.load_cpus,
            "documents": _DOCUMENTS,
            "texts": run.source,
            "load_before": given.load,
        },
        "rounds": {"counted": len(good), "left_out": len(run.rounds) - len(good)},
        "bars": [bar.to_dict(command) for bar in found],
        "shared": shared(good, given.graphs),
        "figures": figures(good),
        "peers": {name: one for name, one in about.items() if one["kind"] == "peer"},
        "failed": {name: why for name, why in run.lineup.failed.items() if name not in PEERS},
        "same_answers": {g: about[served_name(g)]["same_answers"] for g in given.graphs},
        "overload": run.pushed,
        "detail": [one.to_dict() for one in run.rounds],
    }


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except TrunklineError as error:
        raise SystemExit(f"{error}") from None
