"""The parent of an engine and its fronts: starts them, restarts what dies, ends them in order.

It does nothing else, so that nothing else can make it fail.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from trunkline.errors import ConfigError, RuntimeFault, TrunklineError
from trunkline_serve import notify
from trunkline_serve.description import ModelId
from trunkline_serve.fronts.address import Port
from trunkline_serve.fronts.child import FAILED, READY, STOP, Folder
from trunkline_serve.fronts.failure import unpack_error
from trunkline_serve.process import say_serving, stop_on_signal
from trunkline_serve.settings import Settings

_log = logging.getLogger("trunkline_serve")
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 5.0  # seconds before a start after a death
_STEADY = 10.0  # seconds of life after which a death is the first one again
_END_SECONDS = 5.0  # to send the last replies, and to finish a batch
_STDERR = 2
_REAP_EVERY = 0.01  # seconds, between a process's last word and its end
_LONGEST_LINE = 1 << 20  # bytes, of what a process says
_LONGEST_PATH = 100  # bytes; the system takes a few more for a Unix socket


def supervise(bundles: Sequence[Path], settings: Settings) -> None:
    """Serves bundles with several processes until SIGTERM or SIGINT.

    Prints `serving NAME version N on HOST:PORT` per model to stdout when all fronts are ready.

    Raises:
        BundleError: A bundle is broken, fails its self-test, or is given twice.
        ConfigError: A setting makes no sense, or the address cannot be listened on.
        RuntimeFault: A process could not be started; the log says why.
    """
    if sys.platform != "linux":
        raise ConfigError("listen.fronts: several processes need Linux; leave it 0")
    with closing(Port(settings.listen)) as port, _folder() as folder:
        listen = replace(settings.listen, port=port.number)
        settings = replace(settings, listen=listen)
        folder.write_settings(settings)
        folder.write_bundles(bundles)
        asyncio.run(_supervise(folder, settings))


@contextmanager
def _folder() -> Iterator[Folder]:
    """Gives a folder that only this user can read, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="trunkline-", ignore_cleanup_errors=True) as path:
        folder = Folder(Path(path))
        if len(bytes(folder.socket)) > _LONGEST_PATH:
            raise ConfigError(f"TMPDIR: {path} is too long a path for a socket; set another one")
        yield folder


async def _supervise(folder: Folder, settings: Settings) -> None:
    family = _Family(folder, settings)
    stopped = asyncio.create_task(stop_on_signal().wait())
    work = asyncio.create_task(family.work())
    try:
        await asyncio.wait({stopped, work}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        work.cancel()
        (ended,) = await asyncio.gather(work, return_exceptions=True)
        await family.end()
    if isinstance(ended, Exception):
        raise ended


class _Family:
    """An engine and its fronts."""

    def __init__(self, folder: Folder, settings: Settings) -> None:
        self._engine = _Child("engine", folder, 0)
        self._fronts = [_Child("front", folder, at + 1) for at in range(settings.listen.fronts)]
        self._listen = settings.listen
        self._drain_seconds = settings.drain_seconds

    async def work(self) -> None:
        """Starts all, and then whoever dies again; for ever.

        Raises:
            TrunklineError: The first start failed.
        """
        models = await self._engine.start()
        await asyncio.gather(*(front.start() for front in self._fronts))
        host = self._listen.host
        host = f"[{host}]" if ":" in host else host
        say_serving(models, f"{host}:{self._listen.port}")
        notify.ready()
        await asyncio.gather(*(child.keep() for child in (self._engine, *self._fronts)))

    async def end(self) -> None:
        """Lets the fronts answer what they have, then ends the engine."""
        notify.stopping()
        drained = self._drain_seconds + _END_SECONDS
        await asyncio.gather(*(front.end(drained) for front in self._fronts))
        await self._engine.end(_END_SECONDS)


class _Child:
    """A child process, and the ones that come after it."""

    def __init__(self, role: str, folder: Folder, number: int) -> None:
        self._role = role
        self._folder = folder
        self._arguments = (str(folder.path), str(number))
        self._life: _Life | None = None

    async def start(self, *more: str) -> list[ModelId]:
        """Starts a process; returns the models it serves as soon as it does.

        Raises:
            TrunklineError: It cannot, and has ended.
        """
        try:
            self._folder.restore()
            self._life = await _spawn(self._role, *self._arguments, *more)
        except OSError as error:  # no descriptor, no memory or no process is left
            raise RuntimeFault(f"no {self._role} process can be started: {error}") from None
        said = await self._life.heard()
        if not said.endswith(b"\n"):
            status = await self._life.ended()
            raise RuntimeFault(f"the {self._role} process ended at its start, status {status}")
        message: Mapping[str, Any] = json.loads(said)
        if FAILED in message:
            await self._life.ended()
            raise unpack_error(message[FAILED])
        return [ModelId(**one) for one in message[READY]]

    async def keep(self) -> None:
        """Starts another process whenever one has died, for ever."""
        pause = _FIRST_PAUSE
        while True:
            begun = monotonic()
            assert self._life is not None
            status = await self._life.ended()
            _log.error("process died: %s, status %d; another one starts", self._role, status)
            if monotonic() - begun > _STEADY:
                pause = _FIRST_PAUSE
            started = False
            while not started:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LAST_PAUSE)
                started = await self._started_again()

    async def end(self, seconds: float) -> None:
        """Tells the process to end, and kills it if it takes longer."""
        life = self._life
        if life is None:
            return
        life.writer.write(STOP)
        try:
            await asyncio.wait_for(life.ended(), seconds)
        except TimeoutError:
            _log.error("process did not end and was killed: %s", self._role)
            life.process.kill()
            await life.ended()

    async def _started_again(self) -> bool:
        try:
            await self.start("again")
        except TrunklineError as error:
            _log.error("%s", error)
        except Exception:  # whatever it is, the others go on
            _log.exception("no %s process was started", self._role)
            if self._life is not None:
                self._life.process.kill()
        else:
            return True
        return False


class _Life(NamedTuple):
    """One process, from its start to its end, and the connection to it."""

    process: subprocess.Popen[bytes]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def heard(self) -> bytes:
        """Returns the next line that it says; empty once it has died."""
        with suppress(ConnectionError):
            return await self.reader.readline()
        return b""

    async def ended(self) -> int:
        """Waits until it has ended; returns its exit status."""
        # The connection tells at once, and needs neither a thread nor a descriptor for it.
        while await self.heard():
            pass
        while (status := self.process.poll()) is None:
            await asyncio.sleep(_REAP_EVERY)
        self.writer.close()
        return status


async def _spawn(role: str, *arguments: str) -> _Life:
    """Starts a process of a role.

    Raises:
        OSError: It cannot be started; nothing is left of it.
    """
    with ExitStack() as failed:
        ours, theirs = socket.socketpair()
        failed.callback(ours.close)
        with theirs:
            descriptor = theirs.fileno()
            line = [sys.executable, "-P", "-m", "trunkline_serve.fronts", role, str(descriptor)]
            process = subprocess.Popen(
                [*line, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=_STDERR,  # what libraries print is no line of ours
                pass_fds=[descriptor],
                start_new_session=True,  # a terminal's Ctrl-C is for the parent alone
            )
        failed.callback(process.wait)
        failed.callback(process.kill)
        life = _Life(process, *await asyncio.open_unix_connection(sock=ours, limit=_LONGEST_LINE))
        failed.pop_all()
    return life
