"""The bars of the server, beside what one would serve the same weights with, in one run.

    python -m benchmarks.serving.bars BUNDLE --data FOLDER --json benchmarks/results/serving.json

Everything takes turns, a turn of each a round: the graph in this process on rows that are tokenised
already, `trunkline serve` with each packed graph, and the peers on the padded fp32 graph of the
same bundle: one plain gRPC server that does not batch, and servers that batch and pad. Each peer
gets an environment of its own in .tools/peers, and the best of a few settings, found by a short run
of each; one that cannot be installed or started is reported with its error. Servers stand still
while it is not their turn. Load comes from processes of its own, in a closed loop; three requests
in four ask for the entities of a short sentence, one asks a question about a text. Rounds with more
than a tenth of the CPU time stolen do not count. At the end the last graph's server is driven at
twice its maximum in an open loop.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.bars import Bar
from benchmarks.record import record
from benchmarks.serving import options
from benchmarks.serving.generators import set_apart
from benchmarks.serving.judge import bars, figures, shared, table
from benchmarks.serving.overload import Overload, overload
from benchmarks.serving.peers.choose import Choice, choose
from benchmarks.serving.peers.registry import PEERS, described
from benchmarks.serving.rounds import Round, Sides, kept
from benchmarks.serving.sides import (
    Bench,
    InProcess,
    Served,
    expected_of,
    opened_bench,
    peer_served,
    read_trunkline,
    trunkline_served,
)
from benchmarks.serving.traffic import mixed
from trunkline import Model, load
from trunkline.bundle import open_bundle
from trunkline.cpu import available_cpus
from trunkline.errors import RuntimeFault, TrunklineError
from trunkline.files import write_whole

GRAPHS = ("packed-fp32", "packed-int8")
_DOCUMENTS = 512  # of the traffic, sent in turn
_BUSY = 0.5  # of the CPUs, by the load average before the run


@dataclass
class Run:
    """What was measured.

    Attributes:
        source: Where the texts are from.
        rounds: All rounds, also those that do not count.
        choices: Of the peers, by name.
        failed: Why a side stopped on the way, by name.
        pushed: The run at twice the maximum.
        same_answers: Share of Trunkline's answers that are the model's, by graph.
    """

    source: str
    rounds: list[Round] = field(default_factory=list)
    choices: dict[str, Choice] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    pushed: Overload | None = None
    same_answers: dict[str, float] = field(default_factory=dict)


def measure(given: argparse.Namespace, models: Mapping[str, Model]) -> Run:
    """Chooses the peers' settings, measures the rounds, then the overload.

    Raises:
        ServerError: Trunkline's own server does not start or answers wrongly.
    """
    first = next(iter(models.values()))
    traffic = mixed(first.manifest, first.pipeline, given.data, _DOCUMENTS)
    with opened_bench(
        given.bundle,
        traffic,
        concurrency=given.concurrency,
        threads=given.threads,
        generators=given.generators,
        load_cpus=given.apart,
        run=given.run,
    ) as bench:
        run = Run(traffic.source)
        for name in given.peers:
            _say(f"{name}: trying settings")
            run.choices[name] = choose(bench, PEERS[name], given.seconds)
        with ExitStack() as stack:
            served = [stack.enter_context(trunkline_served(bench, graph)) for graph in models]
            run.same_answers = dict(zip(models, _check(bench, models, served), strict=True))
            peers = [
                stack.enter_context(peer_served(bench, one.peer, one.setting))
                for one in run.choices.values()
                if one.error is None
            ]
            ceilings = [InProcess(model, bench.traffic) for model in models.values()]
            sides = Sides(
                [*ceilings, *served, *peers], list(zip(served, models.values(), strict=True))
            )
            run.failed = sides.failed
            for number in range(1, given.rounds + 1):
                run.rounds.append(sides.round(given.seconds))
                stolen = run.rounds[-1].stolen
                _say(f"round {number} of {given.rounds}, {stolen:.0%} stolen")
            run.pushed = overload(served[-1], given.overload_seconds, given.seconds, given.deadline)
    return run


def _check(bench: Bench, models: Mapping[str, Model], served: Sequence[Served]) -> Iterator[float]:
    """Yields the share of each server's answers that are its own model's in this process."""
    read = read_trunkline(bench)
    for one, model in zip(served, models.values(), strict=True):
        yield one.check(read, expected_of(model, bench.traffic))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes the bars; fails if one is missed.

    Raises:
        RuntimeFault: No round was measured on an undisturbed machine, or there are not as many
            CPUs as are to be set apart.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    given = _parser().parse_args(arguments)
    given.apart = set_apart(given.load_cpus)
    given.threads = given.threads or available_cpus()
    given.load = _machine_load()
    run = measure(given, _models(given))
    good = kept(run.rounds)
    if not good:
        raise RuntimeFault("too much CPU time was stolen in every round; try again later")
    precisions = _precisions(given)
    found = bars(good, precisions, given.peers, run.pushed)
    print(table(found, shared(good, precisions), figures(good)))
    for name, reason in _reasons(run).items():
        print(f"{name}: took no part: {reason}")
    print(f"{len(good)} of {len(run.rounds)} rounds count")
    if given.json is not None:
        head = record("benchmarks.serving.bars", arguments)
        body = _body(given, run, good, found, head["command"])
        write_whole(given.json, json.dumps(head | body, indent=1) + "\n")
    return 0 if all(bar.met for bar in found) else 1


def _machine_load() -> float:
    """Returns the machine's load average, and warns if others are at work."""
    found = os.getloadavg()[0]
    if found > _BUSY * available_cpus():
        _say(f"the machine is busy (load {found:.1f}): figures will mean little")
    return round(found, 2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("bundle", type=Path)
    add("--data", type=Path, help="folder of benchmarks.prepare; default: generated texts")
    add("--rounds", type=int, default=5)
    add("--seconds", type=float, default=10.0, help="of each turn (default: 10)")
    add("--overload-seconds", type=float, default=60.0, help="at twice the maximum (default: 60)")
    add("--deadline", type=float, help="seconds of calls then (default: 2 p99 at the maximum)")
    add("--concurrency", type=int, default=64, help="callers of the closed loop (default: 64)")
    add("--threads", type=int, help="of each server, and in process (default: the CPUs)")
    add("--generators", type=int, default=1, help="processes that make load (default: 1)")
    add("--load-cpus", type=int, default=0, help="CPUs that only they use (default: all share all)")
    add("--peers", type=options.peers, default=list(PEERS), help=f"none, or of: {described()}")
    add("--run", type=Path, help="the checkpoint of the bundle, for the peers that need it")
    add("--graphs", type=options.names, default=list(GRAPHS), help=f"default: {','.join(GRAPHS)}")
    add("--json", type=Path, help="write everything there too")
    add("--note", default="", help="what a reader must know")
    return parser


def _models(given: argparse.Namespace) -> dict[str, Model]:
    return {graph: _load(given, graph) for graph in given.graphs}


def _load(given: argparse.Namespace, graph: str) -> Model:
    return load(given.bundle, given.threads, graph=graph, allow_ungated=True)


def _precisions(given: argparse.Namespace) -> dict[str, str]:
    by_name = {one.name: one.precision for one in open_bundle(given.bundle).manifest.graphs}
    return {graph: by_name[graph] for graph in given.graphs}


def _reasons(run: Run) -> dict[str, str]:
    """Returns why sides took no part, or not to the end."""
    errors = {name: one.error for name, one in run.choices.items() if one.error is not None}
    return errors | run.failed


def _body(
    given: argparse.Namespace,
    run: Run,
    good: Sequence[Round],
    found: Sequence[Bar],
    command: str,
) -> dict[str, Any]:
    return {
        "note": given.note,
        "settings": {
            "threads": given.threads,
            "concurrency": given.concurrency,
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
        "peers": {name: one.to_dict() for name, one in run.choices.items()},
        "failed": run.failed,
        "same_answers": run.same_answers,
        "overload": None if run.pushed is None else asdict(run.pushed),
        "detail": [asdict(one) for one in run.rounds],
    }


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except TrunklineError as error:
        raise SystemExit(f"{error}") from None
