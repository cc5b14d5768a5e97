"""Injects every fault into real servers and prints what became of the calls.

    python -m benchmarks.faults BUNDLE --json FILE
    python -m benchmarks.faults --tiny
    python -m benchmarks.faults BUNDLE --soak 60

Ends with status 1 if a call was lost or answered wrongly.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.faults import changing, clients, machine, malformed, stopping, texts
from benchmarks.faults.soak import soak
from benchmarks.faults.tally import Tally, table
from benchmarks.faults.world import World, world
from benchmarks.record import record
from trunkline.files import write_whole

_MINUTES = 60.0

FAULTS: tuple[Callable[[World], Tally], ...] = (
    stopping.sigterm,
    stopping.sigterm_fronts,
    stopping.kill_server,
    stopping.kill_engine,
    stopping.kill_front,
    changing.reload,
    changing.corrupt_bundles,
    changing.refused_paths,
    clients.slow_readers,
    clients.half_open,
    clients.vanishing,
    malformed.open_inference,
    malformed.mutated,
    texts.odd_texts,
    texts.large_text,
    machine.clock_jumps,
    machine.full_disk,
    machine.descriptors,
)
"""Everything that is tried, in the order of the report."""


def main(argv: Sequence[str]) -> int:
    """Prints the report; returns the exit status."""
    given = _parser().parse_args(argv)
    with _bundle(given) as bundle, world(bundle, given.size) as made:
        if given.soak is None:
            tallies, more = _try_all(made, given.only), {}
        else:
            tally, soaked = soak(made, given.soak, _say)
            tallies, more = [tally], {"samples": soaked.samples}
        graph = made.truth.graph
    print(table(tallies))
    if given.json is not None:
        report = {**record("benchmarks.faults", argv), "bundle": bundle.name, "graph": graph}
        report |= {"faults": [tally.to_dict() for tally in tallies], **more}
        write_whole(given.json, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return int(not all(tally.clean for tally in tallies))


def _try_all(made: World, only: Sequence[str]) -> list[Tally]:
    tallies = []
    for fault in FAULTS:
        if only and fault.__name__ not in only:
            continue
        _say(f"{fault.__name__} ...")
        tallies.append(fault(made))
    return tallies


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _bundle(given: argparse.Namespace) -> Iterator[Path]:
    """Returns the bundle that is given, or builds the tests' own."""
    if given.bundle is not None:
        yield given.bundle
        return
    from tests.tiny import build_tiny_bundle

    with tempfile.TemporaryDirectory() as folder:
        yield build_tiny_bundle(Path(folder) / "tiny")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks.faults", description=__doc__)
    what: Any = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("bundle", nargs="?", type=Path, metavar="BUNDLE")
    what.add_argument("--tiny", action="store_true", help="a bundle of the tests, built anew")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there, too")
    parser.add_argument(
        "--only",
        nargs="+",
        default=(),
        choices=[fault.__name__ for fault in FAULTS],
        metavar="FAULT",
        help="try only these: %(choices)s",
    )
    parser.add_argument(
        "--size", type=float, default=1.0, help="how much to try, as a factor; default 1"
    )
    parser.add_argument(
        "--soak",
        type=float,
        nargs="?",
        const=_MINUTES,
        metavar="MINUTES",
        help=f"instead, serve under faults for so long; {_MINUTES:g} if not said",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
