"""Servers in processes of their own, which stand still while it is not their turn."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.family import family
from benchmarks.serving.targets import Failed, Refused, Target
from trunkline.errors import TrunklineError
from trunkline_serve.launch import last_words, launched

_START_SECONDS = 120  # Ray Serve takes most of a minute on two busy CPUs
_PAUSE = 0.2


class ServerError(TrunklineError):
    """A server did not start, or does not do its work."""


@dataclass(frozen=True)
class Server:
    """A server that runs, and the processes it is made of."""

    name: str  # in results
    target: Target  # where its calls go
    process: subprocess.Popen[bytes]  # the first of its processes, which started the others
    log: Path  # what it printed

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Lets the server run for as long as the block does.

        Raises:
            ServerError: It has ended, or ends meanwhile.
        """
        self.send(signal.SIGCONT)
        try:
            self.check_alive()
            yield
            self.check_alive()
        finally:
            self.send(signal.SIGSTOP)

    def check_alive(self) -> None:
        """Raises ServerError, with what it printed last, if the server has ended."""
        if self.process.poll() is not None:
            raise ServerError(f"{self.name}: ended: {last_words(self.log)}")

    def send(self, number: int) -> None:
        """Sends a signal to all its processes."""
        for one in family(self.process):
            with suppress(psutil.NoSuchProcess):
                one.send_signal(number)


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
    """Starts a server, which stands still once it has answered `probe`; stops it after the block.

    Raises:
        ServerError: It did not start; has the last line that it printed.
    """
    left: list[psutil.Process] = []
    try:
        with launched(command, log, environment=environment, session=True) as process:
            server = Server(name, target, process, log)
            try:
                asyncio.run(_answers(server, probe))
                with standing(server):
                    yield server
            finally:
                left.extend(family(process))
    finally:
        for one in left:  # a server may forget its children
            with suppress(psutil.NoSuchProcess):
                one.kill()


@contextmanager
def standing(server: Server) -> Iterator[None]:
    """Has a server stand still while the block runs, but for its turns: some of them poll."""
    server.send(signal.SIGSTOP)
    try:
        yield
    finally:
        server.send(signal.SIGCONT)


async def _answers(server: Server, probe: bytes) -> None:
    """Waits until a server answers."""
    end = time.monotonic() + _START_SECONDS
    said = "no answer"
    while time.monotonic() < end:
        server.check_alive()
        try:
            await replies(server.target, [probe])
            return
        except (Failed, Refused) as error:
            said = str(error)
        await asyncio.sleep(_PAUSE)
    raise ServerError(f"{server.name}: not ready ({said}): {last_words(server.log)}")


async def replies(target: Target, requests: Sequence[bytes]) -> list[bytes]:
    """Returns the replies to requests, sent one after the other."""
    async with target.connect() as call:
        return [await call(one, _START_SECONDS) for one in requests]
