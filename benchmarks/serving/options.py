"""What the commands of the server's benchmarks share: options, models, the result file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.serving.load import set_apart
from benchmarks.serving.peers.registry import PEERS, described
from trunkline import Model, load
from trunkline.bundle import open_bundle
from trunkline.cpu import available_cpus
from trunkline.files import write_whole


def parser(about: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """Returns the options that all commands have, with defaults of one of them."""
    found = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = found.add_argument
    add("bundle", type=Path)
    add("--data", type=Path, help="folder of experiments.prepare; default: generated texts")
    add("--run", type=Path, help="the checkpoint of the bundle, for peers that need it")
    add("--graphs", type=names, help="default: the bundle's packed ones, or all without such")
    add("--peers", type=peers, help=f"none, or of: {described()}; default: %(default)s")
    add("--rounds", type=int, choices=range(1, 101), metavar="N", help="default: %(default)s")
    add("--seconds", type=positive, help="of each turn; default: %(default)s")
    add("--deadline", type=positive, help="seconds of calls at a rate; default: %(default)s")
    add("--callers", "--concurrency", type=int, default=64, help="of the closed loop (64)")
    add("--threads", type=int, help="of each server, and in process (default: the CPUs)")
    add("--generators", type=int, default=1, help="processes that make load (1)")
    add("--load-cpus", type=int, default=0, help="CPUs that only they use (default: all share all)")
    add("--json", type=Path, help="write everything there too")
    add("--note", default="", help="what a reader must know")
    found.set_defaults(**defaults)
    return found


def parsed(found: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Returns options as they were given, with threads and graphs filled in.

    Raises:
        RuntimeFault: There are not as many CPUs as are to be set apart.
    """
    given = found.parse_args(arguments)
    given.apart = set_apart(given.load_cpus)
    given.threads = given.threads or available_cpus()
    graphs = open_bundle(given.bundle).manifest.graphs
    packed = [one.name for one in graphs if one.layout == "packed"]
    given.graphs = given.graphs or packed or [one.name for one in graphs]
    return given


def models(given: argparse.Namespace) -> dict[str, Model]:
    """Returns the model in this process, by graph."""
    return {
        graph: load(given.bundle, given.threads, graph=graph, allow_ungated=True)
        for graph in given.graphs
    }


def bench_options(given: argparse.Namespace) -> dict[str, Any]:
    """Returns the arguments of `opened_bench` that come from options."""
    return {
        "callers": given.callers,
        "threads": given.threads,
        "generators": given.generators,
        "load_cpus": given.apart,
        "run": given.run,
    }


def write(path: Path | None, *parts: Mapping[str, Any]) -> None:
    """Writes the parts of a result as one JSON object, if a file is asked for."""
    whole = {name: value for part in parts for name, value in part.items()}
    if path is not None:
        write_whole(path, json.dumps(whole, indent=1) + "\n")


def say(line: str) -> None:
    """Prints how far a command is."""
    print(line, file=sys.stderr, flush=True)


def names(text: str) -> list[str]:
    """Returns names that commas part."""
    return [one for one in text.split(",") if one]


def peers(text: str) -> list[str]:
    """Returns names of peers; `none` names none.

    Raises:
        argparse.ArgumentTypeError: There is no peer of that name.
    """
    found = [] if text == "none" else names(text)
    unknown = set(found) - set(PEERS)
    if unknown:
        raise argparse.ArgumentTypeError(f"no peer {min(unknown)!r}; known: {', '.join(PEERS)}")
    return found


def positive(text: str) -> float:
    """Returns a number above 0.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number above 0")
    return number
