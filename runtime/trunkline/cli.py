"""The command `trunkline`: finds a subcommand and imports only what it needs."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from trunkline import __version__
from trunkline.errors import MissingExtra, TrunklineError, did_you_mean

USAGE_ERROR = 2


@dataclass(frozen=True)
class Command:
    """A subcommand: where its function `(argv) -> exit status` lives, and what brings it."""

    function: str
    summary: str
    extra: str = ""


COMMANDS = {
    "train": Command("trunkline_train.commands:train", "train a model from a TOML file", "train"),
    "evaluate": Command(
        "trunkline_train.commands:evaluate_model", "score a checkpoint or bundle", "train"
    ),
    "export": Command("trunkline_export.commands:export", "write a bundle", "export"),
    "inspect": Command("trunkline.commands:inspect", "show what a bundle holds"),
    "verify": Command("trunkline.commands:verify", "check a bundle's hashes and answers"),
    "predict": Command("trunkline.commands:predict", "analyse texts with a bundle"),
    "serve": Command("trunkline_serve.commands:serve", "serve bundles over gRPC", "serve"),
    "token": Command(
        "trunkline_serve.security.commands:token", "make a token for callers of a server", "serve"
    ),
    "health": Command("trunkline_serve.health:health", "ask a server if it serves", "serve"),
    "top": Command("trunkline_serve.observe.top:top", "watch a server's metrics", "serve"),
    "bench": Command("trunkline_serve.commands:bench", "measure latency and throughput", "serve"),
    "bench graph": Command(
        "trunkline_export.bench:bench_graph", "measure a bundle's graphs alone", "export"
    ),
    "demo": Command(
        "trunkline_serve.demo:demo", "train, export, serve and ask, once", "train,export,serve"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand and returns its exit status: 2 for any error of the user's making."""
    if argv is None:
        open_closed_streams()
        _use_utf8()
    name, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    try:
        status = _run(name, rest)
        sys.stdout.flush()
        return status
    except TrunklineError as error:
        print(f"trunkline {name}: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"trunkline {name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader, such as `head`, has gone; Python must not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # e.g. no permission, disk full, a text where a path is meant
        print(f"trunkline {name}: {error}", file=sys.stderr)
    return USAGE_ERROR


def open_closed_streams() -> None:
    """Opens the null device as each standard stream that was closed when the process began.

    Otherwise the next file or socket to be opened would be that stream, and get what libraries
    write to it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # It takes the lowest descriptor that is free: the stream's own.
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _use_utf8() -> None:
    """Makes standard input and output UTF-8 in every locale; JSON knows no other encoding."""
    # The names of files, which may be printed, need not be UTF-8.
    for stream, errors in ((sys.stdin, "strict"), (sys.stdout, "surrogateescape")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=errors)


def _run(name: str, arguments: list[str]) -> int:
    if name in ("", "-h", "--help", "help"):
        print(_help())
        return 0 if name else USAGE_ERROR
    if name in ("-V", "--version"):
        print(f"trunkline {__version__}")
        return 0
    if arguments and f"{name} {arguments[0]}" in COMMANDS:
        name, arguments = f"{name} {arguments[0]}", arguments[1:]
    command = COMMANDS.get(name)
    if command is None:
        raise TrunklineError(f"no such command{did_you_mean(name, COMMANDS)}; see trunkline --help")
    module, _, function = command.function.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
        return int(found(arguments))
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if not command.extra or missing == "trunkline":
            raise
        raise MissingExtra(missing, command.extra) from None


def _help() -> str:
    lines = [f"trunkline {__version__}: one encoder pass, every answer", ""]
    lines += [f"  trunkline {name:<11} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", "trunkline COMMAND --help tells more."])
