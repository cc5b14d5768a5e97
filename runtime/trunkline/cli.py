"""The command `trunkline`: finds a subcommand and imports only what it needs."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TextIO, cast

from trunkline import __version__
from trunkline.errors import TrunklineError, did_you_mean
from trunkline.terminal import Lasting, discard, printable

USAGE_ERROR = 2


@dataclass(frozen=True)
class Command:
    """A subcommand: where its function `(argv) -> exit status` lives, and what brings it.

    Attributes:
        function: `module:function`.
        summary: What it does.
        extra: Which it needs; empty for none.
        shows: Whether it does nothing but print: it may end when its reader has gone. Any other
            does all of its work, and its status says how that went.
    """

    function: str
    summary: str
    extra: str = ""
    shows: bool = False


COMMANDS = {
    "train": Command("trunkline_train.commands:train", "train a model from a TOML file", "train"),
    "evaluate": Command(
        "trunkline_train.commands:evaluate_model", "score a checkpoint or bundle", "train"
    ),
    "export": Command("trunkline_export.commands:export", "write a bundle", "export"),
    "inspect": Command("trunkline.commands:inspect", "show what a bundle holds", shows=True),
    "verify": Command("trunkline.commands:verify", "check a bundle's hashes and answers"),
    "predict": Command("trunkline.commands:predict", "analyse texts with a bundle", shows=True),
    "convert": Command("trunkline_train.convert:convert", "annotated texts to another format"),
    "serve": Command("trunkline_serve.commands:serve", "serve bundles over gRPC", "serve"),
    "token": Command(
        "trunkline_serve.security.commands:token", "make a token for callers of a server"
    ),
    "health": Command("trunkline_serve.health:health", "ask a server if it serves", "client"),
    "top": Command(
        "trunkline_serve.observe.top:top", "watch a server's metrics", "serve", shows=True
    ),
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
        with _lasting_streams(argv is None and name in COMMANDS and not COMMANDS[name].shows):
            status = _run(name, rest)
            sys.stdout.flush()
        return status
    except TrunklineError as error:
        _tell(name, error)
    except KeyboardInterrupt:
        _tell(name, "interrupted")
        return 130
    except OSError as error:  # e.g. no permission, disk full, a text where a path is meant
        if isinstance(error, BrokenPipeError) and _may_end_early(name):
            # The reader, such as `head`, has gone; Python must not complain when it flushes.
            discard(sys.stdout)
            return 0
        _tell(name, error)
    return USAGE_ERROR


def _may_end_early(name: str) -> bool:
    return name not in COMMANDS or COMMANDS[name].shows


def _tell(name: str, what: object) -> None:
    """Says what went wrong, in one line: others' names and texts may stand in it."""
    with suppress(BrokenPipeError):
        print(f"trunkline {name}: {printable(str(what))}", file=sys.stderr)


@contextmanager
def _lasting_streams(wanted: bool) -> Iterator[None]:
    """Has the block go on when whoever reads its output has gone."""
    before = sys.stdout, sys.stderr
    if wanted:
        sys.stdout, sys.stderr = cast(TextIO, Lasting(before[0])), cast(TextIO, Lasting(before[1]))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


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
    except ImportError as error:
        from trunkline.extras import explained

        told = explained(error, command.extra)
        if told is error:
            raise
        raise told from None


def _help() -> str:
    lines = [f"trunkline {__version__}: one encoder pass, every answer", ""]
    lines += [f"  trunkline {name:<11} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", "trunkline COMMAND --help tells more."])
