"""A server in a process of its own: started, waited for until it is ready, and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from trunkline.errors import Unavailable

PATIENCE = 120.0
"""Seconds for what should take none."""

_STOP_SECONDS = 15.0
_PAUSE = 0.01  # seconds between two looks
_TOLD = 300  # characters of a server's last words


@dataclass(frozen=True)
class Launched:
    """A `trunkline serve` that is ready.

    Attributes:
        address: Its `host:port`.
        process: The process; with fronts, the one that started the others.
        out: File that its standard output goes to.
        log: File that its standard error goes to.
    """

    address: str
    process: subprocess.Popen[bytes]
    out: Path
    log: Path

    def end(self, number: int) -> int:
        """Sends a signal and returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def await_log(self, words: str, times: int = 1) -> None:
        """Waits until some words stand in the log so often.

        Raises:
            TimeoutError: They never did.
        """
        end = time.monotonic() + PATIENCE
        while self.log.read_text(encoding="utf-8").count(words) < times:
            if time.monotonic() > end:
                raise TimeoutError(f"the log never said {words!r} {times} times")
            time.sleep(_PAUSE)


@contextmanager
def serving(
    bundles: Sequence[Path],
    *flags: object,
    module: str = "trunkline",
    log: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Launched]:
    """Runs `python -m trunkline serve` on a free port while the block runs.

    Args:
        bundles: At least one.
        flags: More of its flags.
        module: Run instead of `trunkline`, with the same arguments.
        log: Where standard error goes; a temporary file by default.
        environment: Set beside this process's own.

    Raises:
        Unavailable: It did not start; has the last that it wrote.
    """
    line = [sys.executable, "-m", module, "serve", *map(str, bundles), "--port", "0"]
    with TemporaryDirectory() as scratch:
        out, log = Path(scratch) / "out", log or Path(scratch) / "log"
        command = [*line, *map(str, flags)]
        with launched(command, log, out=out, environment=environment) as process:
            address = _address(process, out, log, len(bundles))
            yield Launched(address, process, out, log)


@contextmanager
def launched(
    command: Sequence[str],
    log: Path,
    *,
    out: Path | None = None,
    environment: Mapping[str, str] | None = None,
    session: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs any server while the block runs; ends it by SIGTERM, or SIGKILL if that takes long.

    Args:
        command: What starts it.
        log: File for what it prints.
        out: File for its standard output instead.
        environment: Set beside this process's own.
        session: Whether it gets a session of its own, all of which ends with it.
    """
    with ExitStack() as files:
        errors = files.enter_context(log.open("wb"))
        process = subprocess.Popen(
            command,
            stdout=errors if out is None else files.enter_context(out.open("wb")),
            stderr=errors,
            env={**os.environ, **(environment or {})},
            start_new_session=session,
        )
    try:
        yield process
    finally:
        _end(process)
        if session:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def last_words(log: Path) -> str:
    """Returns the last line of a log that names an error, or else its last line."""
    printed = log.read_text(errors="replace") if log.is_file() else ""
    lines = [line.strip() for line in printed.splitlines() if any(map(str.isalpha, line))]
    named = [line for line in lines if "Error: " in line]
    return (named or lines or ["it printed nothing"])[-1][:_TOLD]


def _address(process: subprocess.Popen[bytes], out: Path, log: Path, models: int) -> str:
    """Waits for the lines that a server prints when it is ready."""
    end = time.monotonic() + PATIENCE
    while len(said := _ready_lines(out)) < models:
        if process.poll() is not None:
            raise Unavailable(f"the server did not start: {last_words(log)}")
        if time.monotonic() > end:
            raise Unavailable(f"the server was not ready in {PATIENCE:g} s: {last_words(log)}")
        time.sleep(_PAUSE)
    return said[-1].split()[-1]


def _ready_lines(out: Path) -> list[str]:
    lines = out.read_text(encoding="utf-8").splitlines(keepends=True)
    return [line for line in lines if line.startswith("serving ") and line.endswith("\n")]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
