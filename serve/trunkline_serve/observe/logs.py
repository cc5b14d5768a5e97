"""The server's own log: lines for people or JSON objects, on stderr.

Lines are written by a thread of their own. A full disk, a closed pipe or a reader that has stopped
reading costs lines, which are counted, and nothing else.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from trunkline.terminal import printable
from trunkline_serve import settings
from trunkline_serve.observe.calls import current_request_id

_STDERR = 2
_WAITING = 10_000  # lines
_CLOSE_SECONDS = 2.0
# Waking the writer for every line would cost more than all the rest of a line.
_GATHER_SECONDS = 0.02


class LineWriter(logging.Handler):
    """Writes lines to a file descriptor, beside whoever logs them.

    Args:
        descriptor: Stays the caller's to close; None loses all lines.

    Attributes:
        lost: Lines that could not be written, so far.
    """

    def __init__(self, descriptor: int | None) -> None:
        super().__init__()
        self.lost = 0
        self._descriptor = descriptor
        self._waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="trunkline-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queues a line; drops it if too many wait."""
        if self._waiting.qsize() >= _WAITING:
            self.lost += 1
            return
        try:
            line = self.format(record)
        except Exception:  # the record does not fit its own format
            self.handleError(record)
        else:
            self._waiting.put(f"{line}\n".encode(errors="backslashreplace"))

    def close(self) -> None:
        """Writes what waits, or gives up after two seconds."""
        self._waiting.put(None)
        self._thread.join(_CLOSE_SECONDS)
        super().close()

    def _work(self) -> None:
        lines: list[bytes | None] = []
        while None not in lines:
            lines = [self._waiting.get()]
            time.sleep(_GATHER_SECONDS)
            while not self._waiting.empty():
                lines.append(self._waiting.get())
            self._write(b"".join(filter(None, lines)))

    def _write(self, lines: bytes) -> None:
        try:
            while lines and self._descriptor is not None:
                lines = lines[os.write(self._descriptor, lines) :]
        except OSError:
            pass
        self.lost += lines.count(b"\n")


class TextLines(logging.Formatter):
    """A line for people: time, level, message, then fields and request id as `key=value`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Adds the fields to the message."""
        told = {**_fields(record), **_request()}
        words = [super().formatMessage(record), *(f"{key}={_word(told[key])}" for key in told)]
        return printable(" ".join(words))  # callers' names may stand in it


class JsonLines(logging.Formatter):
    """A line for machines: one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the object."""
        when = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, object] = {
            "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_request(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


_FORMATS = {"text": TextLines, "json": JsonLines}


def set_up_logs(log: settings.Log) -> LineWriter:
    """Sends all logging of this process to stderr, as the settings say; instead of before."""
    for old in _writers():
        logging.getLogger().removeHandler(old)
        old.close()
    # None if it was closed when the process began; the null device stands in its place since.
    writer = LineWriter(_STDERR if sys.__stderr__ is not None else None)
    writer.setFormatter(_FORMATS[log.format]())
    logging.raiseExceptions = False
    logging.getLogger().addHandler(writer)
    logging.getLogger().setLevel(log.level.upper())
    return writer


def lost_lines() -> int:
    """Returns how many lines could not be written."""
    return sum(writer.lost for writer in _writers())


def _writers() -> list[LineWriter]:
    return [one for one in logging.getLogger().handlers if isinstance(one, LineWriter)]


def _request() -> dict[str, str]:
    request_id = current_request_id()
    return {"request_id": request_id} if request_id else {}


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields: Mapping[str, object] = getattr(record, "fields", {})
    return fields


def _word(value: object) -> str:
    """Returns a value as one word: quoted if it would look like several."""
    if isinstance(value, list):
        return ",".join(map(_word, value))
    text = str(value)
    return text if text.isprintable() and not set(text) & set(' "=') else json.dumps(text)
