"""All benchmarks of one bundle, the bars they are held to, and a report.

    make bench                                          # the demo's bundle, about 15 minutes
    python -m benchmarks.run --bundle B --run R --data FOLDER --full

Each benchmark is a command of its own, runs in a process of its own and leaves a JSON in `--out`.
One that fails is named with its last line, and the others go on. At the end come the bars, pass or
short and by how much, in `bars.json`, and `report.md`. What takes hours is not measured again: it
is quoted from the result that was recorded, with that one's date. Peers that are not installed yet
get environments of their own in .tools/peers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bars import read_bars, show
from benchmarks.record import record
from trunkline.errors import DataError, TrunklineError
from trunkline.files import write_whole

RECORDED = Path(__file__).parent / "results"
_DEMO = Path("runs/demo")
_DEMO_CONFIG = Path(__file__).parents[1] / "train/trunkline_train/demo/demo.toml"
_BARS = "bars.json"
_FEW_PEERS = "plain,litserve,mosec"  # each takes half a minute to find its best setting
_HOURS = Path(__file__).parents[1] / "experiments/results/five_tasks.json"  # not measured anew


@dataclass(frozen=True)
class Stage:
    """A benchmark to run.

    Attributes:
        name: Of its result, without the ending.
        words: Module and arguments, but for `--json`.
        own: Whether it writes a result; if not it prepares something.
    """

    name: str
    words: tuple[str, ...]
    own: bool = True


def stages(given: argparse.Namespace) -> Iterator[Stage]:
    """Yields the benchmarks in the order to run them, small or full."""
    bundle, run, edge = str(given.bundle), str(given.run), str(given.out / "edge")
    data = () if given.data is None else ("--data", str(given.data))
    small = () if given.full else ("--small",)

    def at(few: int | float, many: int | float) -> str:
        return str(many if given.full else few)

    yield Stage("answers", ("benchmarks.answers", bundle, *data))
    yield Stage("graphs", ("benchmarks.graphs", run, bundle, "--rounds", at(3, 7)))
    export = ("trunkline", "export", run, "--out", edge, "--precision", "int8", "--no-gate")
    yield Stage("edge bundle", (*export, "--overwrite"), own=False)
    yield Stage("edge", ("benchmarks.edge", edge, "--rounds", at(2, 5)))
    sizes = ("--rounds", at(1, 3))
    yield Stage("graph_sizes", ("benchmarks.graph_sizes", bundle, *sizes))
    yield Stage("graph_peers", ("benchmarks.graph_peers", run, bundle, "--rounds", at(1, 5)))
    turns = ("--rounds", at(2, 5), "--seconds", at(2, 6), "--overload-seconds", at(15, 60))
    peers = () if given.full else ("--peers", _FEW_PEERS)
    serving = ("benchmarks.serving.bars", bundle, "--run", run, *data, *turns, *peers)
    yield Stage("serving", serving)
    yield Stage("curves", ("benchmarks.serving.curves", bundle, "--run", run, *data, *small))
    yield Stage("training_speed", ("experiments.training_speed", *_training(given)))


def _training(given: argparse.Namespace) -> tuple[str, ...]:
    """Returns the arguments of the training benchmark: real data, or the demo's corpus."""
    rounds, seconds = ("3", "20") if given.full else ("1", "8")
    words = ("--rounds", rounds, "--seconds", seconds, "--set", f"encoder={given.encoder}")
    if given.data is not None:
        return (str(given.data), *words)
    return ("--config", str(_DEMO_CONFIG), *words)


def prepare(given: argparse.Namespace) -> None:
    """Trains and exports the demo's bundle if none was given and there is none.

    Raises:
        TrunklineError: That failed.
    """
    if given.bundle is None:
        given.bundle, given.run = _DEMO / "bundle", _DEMO / "run"
        if not (given.bundle / "manifest.json").exists():
            words = ("demo", "--encoder", given.encoder, "--out", str(_DEMO))
            if subprocess.run([sys.executable, "-m", "trunkline", *words], check=False).returncode:
                raise TrunklineError("the demo's bundle could not be made, see above")
    if given.run is None:
        raise TrunklineError("--bundle needs --run too: the checkpoint it was made of")


def run_all(given: argparse.Namespace) -> dict[str, str]:
    """Runs every benchmark; returns what failed, with the reason."""
    failed = {}
    for stage in stages(given):
        if given.only and stage.name not in given.only:
            continue
        begin = time.monotonic()
        print(f"\n== {stage.name}", flush=True)
        reason = _run(stage, given.out)
        print(f"== {stage.name}: {time.monotonic() - begin:.0f} s", flush=True)
        if reason is not None:
            failed[stage.name] = reason
            print(f"== {stage.name}: FAILED: {reason}", flush=True)
    return failed


def _run(stage: Stage, out: Path) -> str | None:
    """Runs one benchmark; returns why it has no result, None if it has. Short bars are a result."""
    result = out / f"{stage.name}.json"
    result.unlink(missing_ok=True)
    wanted = ("--json", str(result)) if stage.own else ()
    command = [sys.executable, "-m", *stage.words, *wanted]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        last = ""
        for line in process.stderr:
            print(line, end="", flush=True)
            last = line.strip() or last
    if process.returncode and not (stage.own and result.exists()):
        return last or f"it ended with status {process.returncode}"
    return None


def all_bars(out: Path) -> list[dict[str, Any]]:
    """Returns the bars of all results of this run, then those that were recorded before."""
    found: list[dict[str, Any]] = []
    results = [file for file in sorted(out.glob("*.json")) if file.name != _BARS]
    for file in (*results, _HOURS):
        try:
            found += [bar | {"recorded": file == _HOURS} for bar in read_bars(file)]
        except DataError:
            continue  # a result without bars
    return found


def table(bars: Sequence[dict[str, Any]]) -> str:
    """Returns bars as text, those quoted from before with their date."""
    lines = [
        show(bar) + (f"  (recorded {bar['from'][:10]})" if bar["recorded"] else "") for bar in bars
    ]
    short = sum(not bar["pass"] for bar in bars)
    return "\n".join([*lines, f"{len(bars) - short} of {len(bars)} bars pass"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--bundle", type=Path, help="default: the demo's, made first if it is not there")
    add("--run", type=Path, help="the checkpoint of the bundle")
    add("--data", type=Path, help="folder of experiments.prepare; default: generated texts")
    add("--encoder", default="sentence-transformers/all-MiniLM-L6-v2", help="of training runs")
    add("--full", action="store_true", help="longer turns, more rounds: an hour or more")
    add("--only", action="append", default=[], metavar="NAME", help="only this benchmark")
    add("--out", type=Path, default=Path("runs/bench"), help="folder of the results")
    add("--bars", type=Path, default=RECORDED / _BARS, help="file of the table of bars")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs everything and prints the bars; fails if a benchmark failed, not if a bar is short.

    Raises:
        TrunklineError: There is no bundle to measure.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    given = _parser().parse_args(arguments)
    prepare(given)
    given.out.mkdir(parents=True, exist_ok=True)
    failed = run_all(given)
    bars = all_bars(given.out)
    print(f"\n{table(bars)}")
    for name, reason in failed.items():
        print(f"{name}: no result: {reason}")
    body = record("benchmarks.run", arguments) | {"bars": bars, "failed": failed}
    write_whole(given.bars, json.dumps(body, indent=1) + "\n")
    write_whole(given.out / _BARS, json.dumps(body, indent=1) + "\n")
    words = ("benchmarks.report", str(given.out), "--out", str(given.out))
    subprocess.run([sys.executable, "-m", *words], check=False)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except TrunklineError as error:
        raise SystemExit(f"{error}") from None
