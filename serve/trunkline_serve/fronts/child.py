"""What a child process has from its supervisor: it says when it is ready, and is told when to end.

Both are lines, on a socket that is for nothing else: what a library prints disturbs nobody. Its end
means that the supervisor is gone, and the child goes too: at once, whatever it does.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import signal
import socket
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trunkline.structure import parse, plain
from trunkline_serve.description import ModelId
from trunkline_serve.fronts.failure import pack_error
from trunkline_serve.settings import Settings

STOP = b"stop\n"
READY, FAILED = "ready", "failed"


class Folder:
    """The private folder of a supervisor and its children.

    Args:
        path: Exists.

    Attributes:
        path: As given.
        socket: Unix socket of the engine.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = path / "engine.sock"
        self._settings = path / "settings.json"
        self._bundles = path / "bundles.json"
        self._written: dict[Path, str] = {}

    def restore(self) -> None:
        """Puts back what this process wrote and a cleaner of temporary files has removed.

        Raises:
            OSError: It cannot, or another user has taken the folder's place.
        """
        if not self.path.exists():
            self.path.mkdir(0o700)
        if self.path.lstat().st_uid != os.getuid():
            raise PermissionError(errno.EPERM, "belongs to another user", str(self.path))
        for file, text in self._written.items():
            if not file.exists():
                file.write_text(text, encoding="utf-8")

    def write_settings(self, settings: Settings) -> None:
        """Keeps the settings of all children."""
        self._write(self._settings, json.dumps(plain(settings)))

    def read_settings(self, number: int) -> Settings:
        """Returns the settings of a child by its number: each has a port of metrics of its own."""
        settings = parse(Settings, json.loads(self._settings.read_text(encoding="utf-8")))
        if not settings.metrics.port:
            return settings
        port = settings.metrics.port + number
        return replace(settings, metrics=replace(settings.metrics, port=port))

    def write_bundles(self, bundles: Sequence[Path]) -> None:
        """Keeps which bundles are served, for an engine that is started again."""
        names = [os.fsdecode(path) for path in dict.fromkeys(bundles)]
        self._write(self._bundles, json.dumps(names))

    def read_bundles(self) -> list[Path]:
        """Returns the bundles."""
        return [Path(name) for name in json.loads(self._bundles.read_text(encoding="utf-8"))]

    def _write(self, file: Path, text: str) -> None:
        aside = file.with_suffix(".new")
        aside.write_text(text, encoding="utf-8")
        aside.replace(file)  # at once: a process may die any time
        self._written[file] = text


class Line:
    """A child's end of the connection to its supervisor.

    Args:
        descriptor: Of a connected socket.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)

    def say_ready(self, models: Sequence[ModelId]) -> None:
        """Says that this process does its work, and with which models."""
        self._say({READY: plain(models)})

    def say_failed(self, error: BaseException) -> None:
        """Says why this process cannot start."""
        self._say({FAILED: pack_error(error)})

    def hear(self) -> bytes:
        """Waits for the supervisor's word; returns none once it is gone."""
        try:
            return self._socket.recv(len(STOP))
        except OSError:
            return b""

    def _say(self, message: Any) -> None:
        self._socket.sendall(json.dumps(message).encode() + b"\n")


class Supervised:
    """This process as a child. Make it on a running event loop.

    Args:
        line: To the supervisor.
        folder: Removed if the supervisor dies.

    Attributes:
        stop: Set when it is time to end.
    """

    def __init__(self, line: Line, folder: Folder) -> None:
        self.stop = asyncio.Event()
        self._line = line
        self._folder = folder
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._listen, name="trunkline-parent", daemon=True).start()

    def _listen(self) -> None:
        """Waits for the supervisor's word, or its end."""
        while said := self._line.hear():
            if said == STOP:
                self._loop.call_soon_threadsafe(self.stop.set)
        shutil.rmtree(self._folder.path, ignore_errors=True)
        os._exit(1)


def leave_signals() -> None:
    """Leaves SIGTERM and SIGINT to the supervisor, though a group of processes may get them.

    The engine must not end before the fronts have answered what they have.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
