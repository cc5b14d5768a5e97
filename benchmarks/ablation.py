"""What each idea of the server is worth, alone and together, on mixed traffic.

    python -m benchmarks.ablation BUNDLE [--data FOLDER] --json benchmarks/results/ablation.json

The base pads, computes in fp32 and runs a row at a time on all threads; the whole is the server as
it is. Each idea is added alone to the base, and taken alone from the whole; the ladder goes from
the one to the other, an idea at a time. Variants are put together from the server's own parts in
this process: texts are tokenised, queued, run and decoded, without gRPC. All take turns, a turn of
each a round; ratios of real tokens per second are taken within a round, and rounds with more than a
tenth of the CPU time stolen do not count. Fused heads are measured on texts that are asked for all
that reads them. `trunkline serve` with more fronts takes turns too, over gRPC.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.ablation_ideas import (
    BASE,
    FUSED,
    IDEAS,
    LADDER,
    WHOLE,
    Idea,
    Ideas,
    fused_variants,
    variants,
)
from benchmarks.ablation_runners import Workshop
from benchmarks.ablation_turns import Variant
from benchmarks.record import record
from benchmarks.serving.generators import Generators
from benchmarks.serving.judge import figures
from benchmarks.serving.rounds import Round, Sides, kept, ratios
from benchmarks.serving.sides import Bench, Served, expected_of, trunkline_served
from benchmarks.serving.traffic import Traffic, workload
from trunkline import Model
from trunkline.bundle import open_bundle
from trunkline.cpu import available_cpus
from trunkline.errors import RuntimeFault, TrunklineError
from trunkline.files import write_whole
from trunkline_serve.process import set_up_interpreter

_DOCUMENTS = 512
_FUSED_TRAFFIC = "bulk"
_NO_FRONT = "served, 0 fronts"


class Ablation:
    """Everything that takes turns; use it in a `with` block of `prepared`.

    Attributes:
        variants: By name.
        served: Servers with more or fewer fronts.
        same_answers: Share of annotations that the fp32 model has too, by variant.
    """

    def __init__(self, found: Sequence[Variant], served: Sequence[Served]) -> None:
        self.variants = {one.name: one for one in found}
        self.served = list(served)
        self.same_answers: dict[str, float] = {}

    def rounds(self, count: int, seconds: float) -> list[Round]:
        """Returns all rounds, also those that do not count."""
        sides = Sides([*self.variants.values(), *self.served], [])
        found = []
        for number in range(1, count + 1):
            found.append(sides.round(seconds))
            said = f"round {number} of {count}, {found[-1].stolen:.0%} stolen"
            print(said, file=sys.stderr, flush=True)
        if sides.failed:
            raise RuntimeFault("; ".join(sides.failed.values()))
        return found


@contextmanager
def prepared(given: argparse.Namespace) -> Iterator[Ablation]:
    """Loads all variants, checks what they answer, and starts the servers.

    Raises:
        ConfigError: The bundle lacks a graph or a task.
        ServerError: A server does not start.
    """
    bundle = open_bundle(given.bundle)
    workshop = Workshop(bundle, given.threads)
    model = workshop.model(_as_expected())
    asked = [
        (
            workload("mixed", bundle.manifest, model.pipeline, given.data, count=_DOCUMENTS),
            variants(),
        ),
        (workload(_FUSED_TRAFFIC, bundle.manifest, model.pipeline, given.data), fused_variants()),
    ]
    with ExitStack() as stack:
        found, answers = [], {}
        for traffic, wanted in asked:
            expected = expected_of(model, traffic)
            for ideas, name in wanted.items():
                one = Variant(name, ideas, workshop, traffic=traffic, callers=given.callers)
                stack.callback(one.close)
                found.append(one)
                answers[name] = one.likeness(expected)
        servers = _servers(given, model, asked[0][0], stack)
        ablation = Ablation(found, servers)
        ablation.same_answers = answers
        yield ablation


def _as_expected() -> Ideas:
    """Returns the variant whose answers all others are compared with: packed fp32."""
    return LADDER["+ lanes"]


def _servers(
    given: argparse.Namespace, model: Model, traffic: Traffic, stack: ExitStack
) -> list[Served]:
    """Starts a server with each number of fronts; they stand still until their turns."""
    if not given.fronts:
        return []
    bench = Bench(
        bundle=given.bundle,
        traffic=traffic,
        expected=(),
        generators=stack.enter_context(Generators(1)),
        concurrency=given.callers,
        threads=given.threads,
        logs=Path(stack.enter_context(TemporaryDirectory())),
    )
    graph = next(
        one.name
        for one in model.manifest.graphs
        if (one.layout, one.precision) == ("packed", "int8")
    )
    found = []
    for count in given.fronts:
        server = stack.enter_context(trunkline_served(bench, graph, "--fronts", str(count)))
        server.name = _fronts_name(count)
        found.append(server)
    return found


def _fronts_name(count: int) -> str:
    return f"served, {count} front{'' if count == 1 else 's'}"


def worth(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """Returns what each idea is worth: throughput with it over throughput without it.

    Args:
        rounds: Those that count.
    """
    names, fused = variants(), fused_variants()
    rows = [
        _worth(
            one,
            ratios(rounds, names[one.alone], names[BASE]) if one.alone else [],
            ratios(rounds, names[WHOLE], names[one.without]),
        )
        for one in IDEAS
    ]
    apart = Ideas(heads=False)
    rows.append(
        _worth(
            FUSED,
            ratios(rounds, fused[BASE], fused[apart]),
            ratios(rounds, fused[WHOLE], fused[FUSED.without]),
        )
    )
    return rows


def _worth(idea: Idea, alone: Sequence[float], taken: Sequence[float]) -> dict[str, Any]:
    return {
        "idea": idea.name,
        "about": idea.about,
        "added_to_base": ranged(alone),
        "taken_from_whole": ranged(taken),
    }


def ladder(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """Returns how many times the base each step of the ladder does."""
    names = variants()
    return [
        {"name": step, **(ranged(ratios(rounds, names[ideas], names[BASE])) or {})}
        for step, ideas in LADDER.items()
    ]


def fronts(rounds: Sequence[Round], counts: Sequence[int]) -> list[dict[str, Any]]:
    """Returns what gRPC leaves of the whole in process, and what fronts give over none."""
    names, found = variants(), []
    if 0 in counts:
        share = ranged(ratios(rounds, _NO_FRONT, names[WHOLE]))
        found.append({"name": "served over the whole in process", **(share or {})})
    for count in counts:
        if count and 0 in counts:
            ratio = ranged(ratios(rounds, _fronts_name(count), _NO_FRONT))
            found.append({"name": f"{_fronts_name(count)} over 0 fronts", **(ratio or {})})
    return found


def ranged(values: Sequence[float]) -> dict[str, Any] | None:
    """Returns the median and the range; None for no values."""
    if not values:
        return None
    low, high = round(min(values), 4), round(max(values), 4)
    return {"value": round(statistics.median(values), 4), "range": [low, high]}


def table(body: Mapping[str, Any]) -> str:
    """Returns the result as lines of text."""
    lines = [f"{'':28}{'added to the base':>26}{'taken from the whole':>26}"]
    for row in body["worth"]:
        cells = (_cell(row[key]) for key in ("added_to_base", "taken_from_whole"))
        lines.append(f"{row['idea']:28}" + "".join(f"{cell:>26}" for cell in cells))
    lines += ["", "over the base:"]
    lines += [f"  {row['name']:34}{_cell(row):>26}" for row in body["ladder"]]
    lines += [f"{row['name']:36}{_cell(row):>26}" for row in body["fronts"]]
    lines += ["", f"{'':40}{'tokens/s':>10}{'p50 ms':>9}{'rows/run':>10}{'padding':>9}{'same':>7}"]
    return "\n".join([*lines, *(_side(name, row) for name, row in body["figures"].items())])


def _cell(row: Mapping[str, Any] | None) -> str:
    if not row or "value" not in row:
        return "-"
    low, high = row["range"]
    return f"{row['value']:.2f}x ({low:.2f} - {high:.2f})"


def _side(name: str, row: Mapping[str, Any]) -> str:
    rows, padding, alike = (row.get(key) for key in ("rows_a_run", "padding_share", "same_answers"))
    cells = (
        f"{row['tokens_per_second']:10.0f}",
        f"{'' if row['p50_ms'] is None else format(row['p50_ms'], '.1f'):>9}",
        f"{'' if rows is None else format(rows, '.1f'):>10}",
        f"{'' if padding is None else format(padding, '.1%'):>9}",
        f"{'' if alike is None else format(alike, '.0%'):>7}",
    )
    return f"{name:40}{''.join(cells)}"


def _figures(rounds: Sequence[Round], ablation: Ablation) -> dict[str, dict[str, Any]]:
    found = figures(rounds)
    for name, variant in ablation.variants.items():
        found[name] |= variant.runs.to_dict()
        found[name]["same_answers"] = ablation.same_answers[name]
    return found


def _counts(text: str) -> list[int]:
    try:
        return [] if text == "none" else sorted({int(one) for one in text.split(",")})
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give numbers like 0,1,2, or none") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("bundle", type=Path)
    add("--data", type=Path, help="folder of benchmarks.prepare; default: generated texts")
    add("--rounds", type=int, default=5)
    add("--seconds", type=float, default=2.0, help="of each turn, at least (default: 2)")
    add("--callers", type=int, default=64, help="of the closed loop (default: 64)")
    add("--threads", type=int, help="to compute with (default: the CPUs)")
    add("--fronts", type=_counts, default=[0, 1, 2], help="default: 0,1,2; or none")
    add("--json", type=Path, help="write everything there too")
    add("--note", default="", help="what a reader must know")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes.

    Raises:
        RuntimeFault: No round was measured on an undisturbed machine, or a server failed.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    given = _parser().parse_args(arguments)
    given.threads = given.threads or available_cpus()
    set_up_interpreter()  # as the server's process does
    with prepared(given) as ablation:
        rounds = ablation.rounds(given.rounds, given.seconds)
        good = kept(rounds)
        if not good:
            raise RuntimeFault("too much CPU time was stolen in every round; try again later")
        source = next(iter(ablation.variants.values())).source
        found = _figures(good, ablation)
    body = {
        "note": given.note,
        "settings": {
            "threads": given.threads,
            "callers": given.callers,
            "seconds": given.seconds,
            "documents": _DOCUMENTS,
            "texts": source,
        },
        "rounds": {"counted": len(good), "left_out": len(rounds) - len(good)},
        "worth": worth(good),
        "ladder": ladder(good),
        "fronts": fronts(good, given.fronts),
        "figures": found,
        "detail": [asdict(one) for one in rounds],
    }
    print(table(body))
    print(f"{len(good)} of {len(rounds)} rounds count")
    if given.json is not None:
        head = record("benchmarks.ablation", arguments)
        write_whole(given.json, json.dumps(head | body, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except TrunklineError as error:
        raise SystemExit(f"{error}") from None
