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
from trunkline.cpu import MOST_STOLEN
from trunkline.errors import ConfigError, RuntimeFault
from trunkline.files import write_whole
from trunkline.options import add_graph_options, count, graph_options, new_file, path, seconds
from trunkline_serve.bench.load import Extent
from trunkline_serve.bench.machine import commit, describe_machine, versions
from trunkline_serve.bench.report import figures, kept, table
from trunkline_serve.bench.rounds import Plan, Round, measure
from trunkline_serve.bench.texts import SHORT, load_texts
from trunkline_serve.client import Client
from trunkline_serve.client.flags import add_tls_flags, add_token_flags, client_options
from trunkline_serve.client.options import Options
from trunkline_serve.description import Description
from trunkline_serve.launch import serving

_ADDRESS = re.compile(r"(\S+):(\d+)")
_OF_A_BUNDLE = ("threads", "graph", "allow_ungated", "device")
_OF_A_SERVER = (
    *("tls", "tls_ca", "tls_name", "tls_certificate", "tls_key"),
    *("token_file", "insecure_token"),
)
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
    target = given.target
    runs = _ADDRESS.fullmatch(target) is not None and not Path(target).is_dir()
    _check(given, runs)
    with contextlib.ExitStack() as stack:
        model = None
        if not runs:
            model = trunkline.load(target, given.threads, **graph_options(given))
            flags = _flags(given, model)
            target = stack.enter_context(serving([Path(target)], *flags)).address
        server = client_options(given, target, None if runs else {})
        with _client(server) as client:
            description = client.describe()
        plan = _plan(given, server, model, description)
        rounds = asyncio.run(measure(plan, _progress))
    return _report(given, plan, description, rounds)


def _parser() -> argparse.ArgumentParser:
    about = "Measure a bundle, served from a process of its own, or a server that runs already."
    parser = argparse.ArgumentParser("trunkline bench", description=about)
    parser.add_argument("target", metavar="BUNDLE|HOST:PORT")
    parser.add_argument("--concurrency", type=_numbers, default=[1, 4, 16], metavar="N,N,...")
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--seconds", type=seconds, default=5.0, help="per concurrency (default: 5)")
    extent.add_argument("--requests", type=count, help="per concurrency, at least one a round")
    parser.add_argument("--rounds", type=count, default=5, help="all take turns (default: 5)")
    parser.add_argument("--threads", type=count, help="of one run of the graph (default: the CPUs)")
    parser.add_argument("--texts", type=path, help="one text per line, or .jsonl with questions")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write the figures there too")
    add_graph_options(parser)
    add_tls_flags(parser)
    add_token_flags(parser)
    return parser


def _numbers(text: str) -> list[int]:
    return [count(part) for part in text.split(",")]


def _check(given: argparse.Namespace, runs: bool) -> None:
    """Refuses what would have no effect on a server that runs already, or on one of ours."""
    usual = _parser().parse_args([given.target])
    for name in _OF_A_BUNDLE if runs else _OF_A_SERVER:
        if getattr(given, name) != getattr(usual, name):
            flag = f"--{name.replace('_', '-')}"
            what = "a server that runs already" if runs else "a bundle, which is served here"
            raise ConfigError(f"{flag}: has no effect on {what}; leave it out")
    if given.requests is not None and given.requests < given.rounds:
        raise ConfigError(f"--requests: {given.requests} is less than one for each of --rounds")
    if given.texts is not None and not given.texts.is_file():
        raise ConfigError(f"--texts: {given.texts} is no file; check the path")
    if not runs and (not given.target or not Path(given.target).exists()):
        raise ConfigError(f"{given.target}: is neither a bundle's folder nor HOST:PORT")


def _client(server: Options) -> Client:
    return Client(
        server.target, tls=server.tls, token=server.token, insecure_token=server.insecure_token
    )


def _flags(given: argparse.Namespace, model: Model) -> list[object]:
    """Returns the flags that have a server run the same graph at the same place."""
    flags = ["--graph", model.graph.file, "--allow-ungated", "--device", given.device]
    return flags if given.threads is None else [*flags, "--threads", given.threads]


def _plan(
    given: argparse.Namespace, server: Options, model: Model | None, description: Description
) -> Plan:
    rounds = given.rounds
    calls = None if given.requests is None else given.requests // rounds
    ask = any(task.kind == "question-answering" for task in description.tasks)
    return Plan(
        server=server,
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
