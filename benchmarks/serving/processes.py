"""Servers in processes of their own, which stand still while it is not their turn."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.serving.targets import Failed, Refused, Target
from trunkline.errors import TrunklineError

_START_SECONDS = 120  # Ray Serve takes most of a minute on two busy CPUs
_STOP_SECONDS = 15
_PAUSE = 0.2
_TOLD = 300  # characters of a server's last words


class ServerError(TrunklineError):
    """A server did not start, or does not do its work."""


@dataclass(frozen=True)
class Server:
    """A server that runs, and the processes it is made of.

    Attributes:
        name: What it is called in results.
        target: Where its calls go.
        process: The first of its processes, which started the others.
        log: File with what it printed.
    """

    name: str
    target: Target
    process: subprocess.Popen[bytes]
    log: Path

    def freeze(self) -> None:
        """Stops all its processes where they are, so that idle loops take no CPU time."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets them go on."""
        self._signal(signal.SIGCONT)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Lets the server run for as long as the block does.

        Raises:
            ServerError: It has ended, or ends meanwhile.
        """
        self.thaw()
        try:
            self.check_alive()
            yield
            self.check_alive()
        finally:
            self.freeze()

    def check_alive(self) -> None:
        """Raises ServerError, with what it printed last, if the server has ended."""
        if self.process.poll() is not None:
            raise ServerError(f"{self.name}: ended: {_last_words(self.log)}")

    def cpu_seconds(self) -> float:
        """Returns the CPU time of all its processes so far."""
        return self._total(_cpu_seconds)

    def resident(self) -> int:
        """Returns the resident memory of all its processes, in bytes."""
        return int(self._total(lambda one: one.memory_info().rss))

    def stop(self) -> None:
        """Ends the server and everything it started."""
        self.thaw()
        found = self._signal(signal.SIGTERM)
        _, left = psutil.wait_procs(found, _STOP_SECONDS)
        for one in left:
            one.kill()
        # Children that had outlived their parent already.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def _signal(self, number: int) -> list[psutil.Process]:
        """Sends a signal to all its processes and returns them."""
        found = self._processes()
        for one in found:
            with suppress(psutil.NoSuchProcess):
                one.send_signal(number)
        return found

    def _total(self, read: Callable[[psutil.Process], float]) -> float:
        found = 0.0
        for one in self._processes():
            with suppress(psutil.NoSuchProcess):  # it may end any time
                found += read(one)
        return found

    def _processes(self) -> list[psutil.Process]:
        try:
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def free_port() -> int:
    """Returns a port of the loopback address that nobody listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@contextmanager
def started(
    name: str,
    target: Target,
    command: Sequence[str],
    *,
    probe: bytes,
    log: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Starts a server, and stops it after the block.

    Args:
        name: What it is called.
        target: Where its calls will go.
        command: What starts it.
        probe: A request; the server is ready once it answers it.
        log: File for what it prints.
        environment: Variables to set for it.

    Yields:
        The server, frozen.

    Raises:
        ServerError: It did not start; has the last line that it printed.
    """
    variables = os.environ | (environment or {})
    with (
        log.open("wb") as out,
        subprocess.Popen(
            command, stdout=out, stderr=out, env=variables, start_new_session=True
        ) as process,
    ):
        server = Server(name, target, process, log)
        try:
            asyncio.run(_answers(server, probe))
            server.freeze()
            yield server
        finally:
            server.stop()


async def _answers(server: Server, probe: bytes) -> None:
    """Waits until a server answers."""
    end = time.monotonic() + _START_SECONDS
    said = "no answer"
    while time.monotonic() < end:
        server.check_alive()
        try:
            async with server.target.connect() as call:
                await call(probe, _START_SECONDS)
                return
        except (Failed, Refused) as error:
            said = str(error)
        await asyncio.sleep(_PAUSE)
    raise ServerError(f"{server.name}: not ready ({said}): {_last_words(server.log)}")


def _last_words(log: Path) -> str:
    """Returns the last line that names an error, or else the last line."""
    printed = log.read_text(errors="replace").splitlines()
    lines = [line.strip() for line in printed if any(map(str.isalpha, line))]
    named = [line for line in lines if "Error: " in line]
    return (named or lines or ["it printed nothing"])[-1][:_TOLD]


async def replies(target: Target, requests: Sequence[bytes]) -> list[bytes]:
    """Returns the replies to requests, sent one after the other."""
    async with target.connect() as call:
        return [await call(one, _START_SECONDS) for one in requests]
