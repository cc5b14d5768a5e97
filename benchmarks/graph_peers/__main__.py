"""The packed graphs beside other runtimes on the same weights, without a server, in one run.

    python -m benchmarks.graph_peers RUN BUNDLE --json FILE

RUN is the checkpoint that BUNDLE was made of; torch runs it, the other engines run the bundle's
padded fp32 graph. Each engine has a process of its own, and OpenVINO an environment of its own in
.tools/peers; one that cannot be installed, does not start, wants a GPU where there is none, or ends
on the way is reported with its reason. Before anything is timed, the logits of every engine are
compared with those of onnxruntime. Then all take turns: Trunkline's packed graphs; and each engine
on batches that are padded to their longest row (`padded`), and on one row after the other without
padding (`singly`), since on a CPU that is often the quicker way. OpenVINO's fp32 has
INFERENCE_PRECISION_HINT f32: by itself it rounds to bf16 where the processor multiplies such
matrices, and that takes turns too, as `OpenVINO, its own precision`. Ratios are taken within
rounds; rounds with more than a tenth of the CPU time stolen do not count.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.graph_peers.engine import (
    Answers,
    Difference,
    Engine,
    Running,
    difference,
    running,
)
from benchmarks.graph_peers.turns import Task, read_batches, save_batches
from benchmarks.record import record
from benchmarks.serving.peers.work import padded_graph
from benchmarks.serving.processes import ServerError
from trunkline.batching import pad
from trunkline.bundle import Bundle, open_bundle
from trunkline.cpu import available_cpus
from trunkline.encode import Row
from trunkline.errors import RuntimeFault, TrunklineError
from trunkline.files import write_whole
from trunkline.kinds import Output, all_outputs
from trunkline.runner import PackedRunner
from trunkline_export.bench import run_all
from trunkline_export.speed import Times, Work, in_turn, mixed_rows, tokens_of

_ORT, _OPENVINO, _TORCH = "onnxruntime_engine", "openvino_engine", "torch_engine"
_OPENVINO_IS = ("openvino==2026.4.1",)
_OURS = "trunkline "  # begins the names of our graphs
WAYS = ("padded", "singly")
REFERENCE = Engine("onnxruntime", _ORT, "fp32")
ENGINES = (
    REFERENCE,
    Engine("OpenVINO fp32", _OPENVINO, "fp32", requirements=_OPENVINO_IS),
    Engine(
        "OpenVINO, its own precision",
        _OPENVINO,
        "its own",
        exact=False,
        requirements=_OPENVINO_IS,
    ),
    Engine("torch fp32", _TORCH, "fp32", takes_run=True),
    Engine("torch fp32 flash", _TORCH, "fp32 flash", takes_run=True),
    Engine("torch fp32 compiled", _TORCH, "fp32 compiled", takes_run=True),
    Engine("torch GPU fp16", _TORCH, "GPU fp16", exact=False, takes_run=True),
    Engine("torch GPU fp16 flash", _TORCH, "GPU fp16 flash", exact=False, takes_run=True),
    Engine("torch GPU fp16 compiled", _TORCH, "GPU fp16 compiled", exact=False, takes_run=True),
)


@dataclass
class Found:
    """What became of each side, by name.

    Attributes:
        works: Those that take turns.
        differences: How far logits are from onnxruntime's.
        failed: Why an engine takes no part.
    """

    works: dict[str, Work] = field(default_factory=dict)
    differences: dict[str, Difference] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """What all sides share.

    Attributes:
        run: The checkpoint.
        bundle: What was made of it.
        threads: Of every side.
        batches: The rows.
        folder: For files that go to and fro.
    """

    run: Path
    bundle: Bundle
    threads: int
    batches: Sequence[Sequence[Row]]
    folder: Path

    def task(self, engine: Engine) -> Task:
        """Returns what an engine is told."""
        graph = self.bundle.path / padded_graph(self.bundle)
        return Task(
            path=str((self.run if engine.takes_run else graph).absolute()),
            precision=engine.precision,
            threads=self.threads,
            batches=str(self.folder / "batches.npz"),
            answers=str(self.folder / f"{engine.name}.npz"),
        )

    def save(self) -> None:
        """Writes the batches where engines find them."""
        pad_id = self.bundle.manifest.encoder.pad_id
        padded = [pad(batch, pad_id) for batch in self.batches]
        save_batches(self.task(REFERENCE).batches, list(padded))


def start(bench: Bench, engines: Sequence[Engine], stack: ExitStack) -> Found:
    """Starts all engines, compares what they answer and returns the work of those that are right.

    Raises:
        ServerError: onnxruntime itself, which the others are compared with, does not start.
    """
    bench.save()
    found, expected = Found(), None
    for engine in (REFERENCE, *(one for one in engines if one != REFERENCE)):
        print(f"{engine.name}: starting", file=sys.stderr, flush=True)
        try:
            ready = stack.enter_context(
                running(engine, bench.task(engine), bench.folder / f"{engine.name}.log")
            )
            expected = expected or read_batches(bench.task(REFERENCE).answers)
            outputs = all_outputs(bench.bundle.manifest.tasks)
            apart = difference(bench.task(engine), expected, outputs)
            apart.check(engine.name, engine.exact)
        except ServerError as error:
            if engine == REFERENCE:
                raise
            found.failed[engine.name] = str(error)
            continue
        found.differences[engine.name] = apart
        found.works |= {
            f"{engine.name}, {way}": partial(turn, ready, way, found.failed) for way in WAYS
        }
    assert expected is not None
    _ours(bench, expected, found)
    return found


def turn(engine: Running, way: str, failed: dict[str, str]) -> None:
    """Gives an engine its turn; one that has ended gets no other."""
    if engine.name in failed:
        return
    try:
        engine.tell(way)
    except ServerError as error:
        failed[engine.name] = str(error)
        print(error, file=sys.stderr, flush=True)


def _ours(bench: Bench, expected: Answers, found: Found) -> None:
    """Adds the bundle's packed graphs, or why not."""
    outputs = all_outputs(bench.bundle.manifest.tasks)
    for graph in bench.bundle.manifest.graphs:
        if graph.layout != "packed":
            continue
        name = f"{_OURS}{graph.name}"
        runner = PackedRunner(bench.bundle.path / graph.file, outputs, bench.threads)
        apart = Difference.of(_pairs(runner, bench.batches, outputs, expected))
        try:
            apart.check(name, graph.precision == "fp32")
        except ServerError as error:
            found.failed[name] = str(error)
            continue
        found.differences[name] = apart
        found.works[name] = partial(run_all, runner, bench.batches, outputs)


def _pairs(
    runner: PackedRunner,
    batches: Sequence[Sequence[Row]],
    outputs: Sequence[Output],
    expected: Answers,
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yields each row's outputs with those expected."""
    for batch, right in zip(batches, expected, strict=True):
        for at, values in enumerate(runner.run(batch, outputs)):
            for name, value in values.items():
                yield value, right[name][at][: len(value)]


def timed(found: Found, rounds: int) -> Times:
    """Measures all sides in turn; of an engine that ends on the way there are no times.

    Raises:
        RuntimeFault: No round was measured on an undisturbed machine.
    """
    times = in_turn(found.works, rounds)
    if times.left_out == rounds:
        raise RuntimeFault("too much CPU time was stolen in every round; try again later")
    gone = {f"{name}, {way}" for name in found.failed for way in WAYS}
    seconds = {name: row for name, row in times.seconds.items() if name not in gone}
    return Times(seconds, times.left_out)


def _figures(bench: Bench, found: Found, times: Times) -> dict[str, dict[str, Any]]:
    """Returns speed by side, and how many times quicker each of our graphs is, round by round."""
    tokens = tokens_of(bench.batches)
    ours = [name for name in times.seconds if name.startswith(_OURS)]
    return {
        name: {
            "tokens_per_second": round(tokens / float(np.median(seconds)), 1),
            "range": [round(tokens / max(seconds), 1), round(tokens / min(seconds), 1)],
            **asdict(found.differences[name.partition(", padded")[0].partition(", singly")[0]]),
            "quicker": {
                own: [round(a / b, 3) for a, b in zip(seconds, times.seconds[own], strict=True)]
                for own in ours
            },
        }
        for name, seconds in times.seconds.items()
    }


def _table(figures: Mapping[str, Mapping[str, Any]], failed: Mapping[str, str]) -> str:
    ours = [name for name in figures if name.startswith(_OURS)]
    heads = "".join(f"{name.removeprefix(_OURS) + ' over it':>22}" for name in ours)
    lines = [f"{'':40}{'tokens/s':>10}{'max |d| of logits':>20}{heads}"]
    for name, row in figures.items():
        ratios = "".join(f"{float(np.median(row['quicker'][own])):>21.2f}x" for own in ours)
        speed, difference = row["tokens_per_second"], row["most"]
        lines.append(f"{name:40}{speed:10,.0f}{difference:20.2g}{ratios}")
    lines += [f"{name}: took no part: {reason}" for name, reason in failed.items()]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    given = _parser().parse_args(arguments)
    bundle = open_bundle(given.bundle)
    batches = mixed_rows(bundle.manifest.encoder)[: given.batches]
    engines = [engine for engine in ENGINES if engine.name in given.engines]
    with TemporaryDirectory() as aside, ExitStack() as stack:
        threads = given.threads or available_cpus()
        bench = Bench(given.run, bundle, threads, batches, Path(aside))
        found = start(bench, engines, stack)
        times = timed(found, given.rounds)
    figures = _figures(bench, found, times)
    print(_table(figures, found.failed))
    print(
        f"{len(batches)} batches, {tokens_of(batches):,} tokens; {times.left_out} rounds left out"
    )
    if given.json is not None:
        body = _body(given, bench, times, figures, found.failed)
        head = record("benchmarks.graph_peers", arguments)
        write_whole(given.json, json.dumps(head | body, indent=1) + "\n")
    return 0


def _body(
    given: argparse.Namespace,
    bench: Bench,
    times: Times,
    figures: Mapping[str, Any],
    failed: Mapping[str, str],
) -> dict[str, Any]:
    return {
        "note": given.note,
        "threads": bench.threads,
        "rounds": {"counted": given.rounds - times.left_out, "left_out": times.left_out},
        "tokens": tokens_of(bench.batches),
        "engines": {one.name: list(one.requirements) for one in ENGINES},
        "figures": figures,
        "failed": failed,
        "seconds": {name: [round(one, 5) for one in row] for name, row in times.seconds.items()},
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.graph_peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [engine.name for engine in ENGINES]
    add = parser.add_argument
    add("run", type=Path, help="the checkpoint the bundle was made of")
    add("bundle", type=Path)
    add("--rounds", type=int, default=5)
    add("--batches", type=int, default=4, help="of 16 to 64 rows, at most 4 (default: 4)")
    add("--threads", type=int, help="of each side (default: the CPUs)")
    add("--engines", type=_engines, default=names, help=f"of: {'; '.join(names)} (split by ;)")
    add("--json", type=Path, help="write everything there too")
    add("--note", default="", help="what a reader must know")
    return parser


def _engines(text: str) -> list[str]:
    known = [engine.name for engine in ENGINES]
    names = [one.strip() for one in text.split(";") if one.strip()]
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"no engine {name!r}; known: {'; '.join(known)}")
    return names


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except TrunklineError as error:
        raise SystemExit(f"{error}") from None
