"""`trunkline bench`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trunkline
from trunkline import Model
from trunkline.errors import RuntimeFault
from trunkline.files import write_whole
from trunkline.options import add_graph_options, graph_options
from trunkline_serve.bench.load import Extent
from trunkline_serve.bench.machine import commit, describe_machine, versions
from trunkline_serve.bench.report import figures, kept, table
from trunkline_serve.bench.rounds import MOST_STOLEN, Plan, Round, measure
from trunkline_serve.bench.texts import SHORT, load_texts
from trunkline_serve.client import Client
from trunkline_serve.description import Description
from trunkline_serve.launch import serving

_ADDRESS = re.compile(r"(\S+):(\d+)")
_NOTE = (
    "Load generator, in-process calls and a server started from a bundle share one machine. "
    "Latencies are of calls with one document; `grpc N` has N callers, `short` is one sentence, "
    "`empty` is a health check. Only rounds with little stolen CPU time count."
)


def bench(argv: Sequence[str]) -> int:
    """Measures a bundle or a running server; returns the exit status.

    Raises:
        TrunklineError: The target, or the file of texts, cannot be used.
        RuntimeFault: No round was measured on an undisturbed machine.
    """
    given = _parser().parse_args(argv)
    with contextlib.ExitStack() as stack:
        model = None
        address = given.target
        if Path(address).is_dir() or not _ADDRESS.fullmatch(address):
            model = trunkline.load(address, given.threads, **graph_options(given))
            flags = _flags(given, model)
            address = stack.enter_context(serving([Path(address)], *flags)).address
        with Client(address) as client:
            description = client.describe()
        plan = _plan(given, address, model, description)
        rounds = asyncio.run(measure(plan, _progress))
    return _report(given, plan, description, rounds)


def _parser() -> argparse.ArgumentParser:
    about = "Measure a bundle, served from a process of its own, or a server that runs already."
    parser = argparse.ArgumentParser("trunkline bench", description=about)
    parser.add_argument("target", metavar="BUNDLE|HOST:PORT")
    parser.add_argument("--concurrency", type=_numbers, default=[1, 4, 16], metavar="N,N,...")
    parser.add_argument("--seconds", type=float, default=5.0, help="per concurrency (default: 5)")
    parser.add_argument("--requests", type=int, help="per concurrency, instead of --seconds")
    parser.add_argument("--rounds", type=int, default=5, help="all take turns (default: 5)")
    parser.add_argument("--threads", type=int, help="of one run of the graph (default: the CPUs)")
    parser.add_argument("--texts", type=Path, help="one text per line, or .jsonl with questions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    add_graph_options(parser)
    return parser


def _numbers(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(",")]
    if min(numbers) < 1:
        raise ValueError("at least one caller")
    return numbers


def _flags(given: argparse.Namespace, model: Model) -> list[object]:
    """Returns the flags that have a server run the same graph at the same place."""
    flags = ["--graph", model.graph.file, "--allow-ungated", "--device", given.device]
    return flags if given.threads is None else [*flags, "--threads", given.threads]


def _plan(
    given: argparse.Namespace, address: str, model: Model | None, description: Description
) -> Plan:
    rounds = max(given.rounds, 1)
    calls = None if given.requests is None else max(given.requests // rounds, 1)
    ask = any(task.kind == "question-answering" for task in description.tasks)
    return Plan(
        address=address,
        model=model,
        documents=load_texts(given.texts, ask=ask),
        concurrency=given.concurrency,
        extent=Extent(given.seconds / rounds, calls),
        rounds=rounds,
    )


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _report(
    given: argparse.Namespace, plan: Plan, description: Description, rounds: Sequence[Round]
) -> int:
    good = kept(rounds)
    if not good:
        raise RuntimeFault(
            f"more than {MOST_STOLEN:.0%} of the CPU time was stolen in each of {len(rounds)} "
            "rounds: nothing to report; try again later, or elsewhere"
        )
    found = figures(good, len(plan.documents))
    print(table(found))
    print(f"{len(good)} of {len(rounds)} rounds count, with at most {MOST_STOLEN:.0%} stolen")
    if given.json is not None:
        record = _record(given, plan, description, rounds) | {"figures": found}
        write_whole(given.json, json.dumps(record, indent=2) + "\n")
    return 0


def _record(
    given: argparse.Namespace, plan: Plan, description: Description, rounds: Sequence[Round]
) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "note": _NOTE,
        "machine": describe_machine(),
        "versions": versions(),
        "model": {
            "name": description.id.name,
            "version": description.id.version,
            "graph": next((one.file for one in description.graphs if one.serving), None),
        },
        "settings": {
            "in_process": plan.model is not None,
            "threads": given.threads,
            "concurrency": plan.concurrency,
            "seconds": None if given.requests is not None else given.seconds,
            "requests": given.requests,
            "documents": len(plan.documents),
            "questions": sum(len(document.questions) for document in plan.documents),
            "short": SHORT.text,
        },
        "rounds": {
            "measured": len(rounds),
            "counted": len(kept(rounds)),
            "stolen": [round(one.stolen, 4) for one in rounds],
        },
    }
