"""What a bundle costs on a small machine: disk, time to the first answer, memory, time per text.

    trunkline export RUN --out BUNDLE --precision int8
    python -m benchmarks.edge BUNDLE --json benchmarks/results/edge.json

Each round is a new process (benchmarks/edge_round.py) that imports Trunkline and nothing else,
loads the bundle, answers once, then analyses texts of many lengths until memory is steady. Times
are the best of the rounds, memory is the worst. The bars are for one int8 graph of an encoder of 22
million parameters: 26 MB on disk, 200 MB resident, 2 s from the first import to the first answer.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.bars import Bar, show
from benchmarks.record import record
from trunkline.cpu import MOST_STOLEN, cpu_times
from trunkline.files import write_whole

_ROUND = Path(__file__).with_name("edge_round.py")
_MEGABYTES, _RESIDENT, _SECONDS = 26.0, 200.0, 2.0
_MEGA = 1e6


def rounds(bundle: Path, graph: str, count: int) -> list[dict[str, float]]:
    """Returns what each round took that the host left undisturbed."""
    found = []
    for _ in range(count):
        before = cpu_times()
        command = [sys.executable, str(_ROUND), str(bundle), graph]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        if cpu_times().share_since(before) <= MOST_STOLEN:
            found.append(json.loads(done.stdout))
    return found


def megabytes(bundle: Path) -> float:
    """Returns the size of a folder."""
    return sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file()) / _MEGA


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes; fails if a bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--graph", default="packed-int8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = sys.argv[1:] if argv is None else list(argv)
    given = parser.parse_args(arguments)
    found = rounds(given.bundle, given.graph, given.rounds)
    if not found:
        raise SystemExit("every round was left out: too much CPU time was stolen; try again later")
    best = {name: min(one[name] for one in found) for name in found[0]}
    size = megabytes(given.bundle)
    head = record("benchmarks.edge", arguments)
    resident = max(one["resident_mb"] for one in found)
    bars = [
        _bar("int8 bundle, MB on disk", _MEGABYTES, size, head["command"]),
        _bar("load to first answer, s", _SECONDS, best["first_answer_s"], head["command"]),
        _bar("resident after 300 calls, MB", _RESIDENT, resident, head["command"]),
    ]
    print("\n".join(map(show, bars)))
    print(f"one text, p50: {best['p50_ms']:.2f} ms")
    if given.json:
        body = {"graph": given.graph, "bars": bars, "rounds": found, "asked": given.rounds}
        write_whole(given.json, json.dumps(head | body, indent=1) + "\n")
    return 0 if all(bar["pass"] for bar in bars) else 1


def _bar(name: str, bar: float, value: float, command: str) -> dict[str, Any]:
    return Bar(name, bar, [value], at_most=True).to_dict(command)


if __name__ == "__main__":
    raise SystemExit(main())
