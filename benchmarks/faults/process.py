"""A server in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

PATIENCE = 120.0  # seconds, for what should take none
_MIB = 2**20


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        address: Its `host:port`.
        process: The process.
        log: File that its standard error goes to.
    """

    address: str
    process: subprocess.Popen[str]
    log: Path

    @property
    def family(self) -> list[psutil.Process]:
        """Its processes: itself and its children."""
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    @property
    def memory(self) -> float:
        """Resident MiB of all its processes."""
        return sum(one.memory_info().rss for one in self.family) / _MIB

    @property
    def descriptors(self) -> int:
        """Open descriptors of all its processes."""
        return sum(one.num_fds() for one in self.family)

    def await_log(self, words: str, times: int = 1) -> None:
        """Waits until some words stand in the log so often.

        Raises:
            TimeoutError: They never did.
        """
        end = time.monotonic() + PATIENCE
        while self.log.read_text(encoding="utf-8").count(words) < times:
            if time.monotonic() > end:
                raise TimeoutError(f"the log never said {words!r} {times} times")
            time.sleep(0.01)

    def end(self, number: int) -> int:
        """Sends a signal and returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@contextmanager
def serving(
    bundles: Sequence[Path],
    *flags: object,
    module: str = "trunkline",
    log: str = "",
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Runs `python -m trunkline serve` while the block runs.

    Args:
        bundles: At least one.
        flags: More of its flags.
        module: Run instead of `trunkline`, with the same arguments.
        log: Where standard error goes; a temporary file by default.
        environment: Set beside this process's own.

    Raises:
        RuntimeError: It did not start; says what it wrote.
    """
    line = [sys.executable, "-m", module, "serve", *map(str, bundles), "--port", "0"]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(log or Path(scratch) / "log")
        with file.open("w", encoding="utf-8") as errors:
            process = subprocess.Popen(
                [*line, *map(str, flags)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **(environment or {})},
            )
        try:
            yield Server(_address(process, len(bundles), file), process, file)
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    """Ends a process and those it started."""
    alive = process.poll() is None
    children = psutil.Process(process.pid).children(recursive=True) if alive else []
    process.kill()
    for one in children:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.communicate()


def _address(process: subprocess.Popen[str], lines: int, log: Path) -> str:
    """Reads the lines that a server prints when it is ready."""
    assert process.stdout is not None
    watch = threading.Timer(PATIENCE, process.kill)
    watch.start()
    try:
        said = [_line(process.stdout, log) for _ in range(lines)]
    finally:
        watch.cancel()
    return said[-1].split()[-1]


def _line(out: IO[str], log: Path) -> str:
    line = out.readline()
    if not line:
        written = log.read_text(encoding="utf-8") if log.is_file() else ""
        raise RuntimeError(f"the server did not start: {written.strip()}")
    return line
