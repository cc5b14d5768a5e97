"""Pictures of a run in progress, redrawn now and then: one takes as long as many short steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

SECONDS = 30.0  # between two drawings; the end of the run draws what is left


class Pictures:
    """Files to be drawn; of what is noted for the same file, the latest counts."""

    def __init__(self) -> None:
        self._waiting: dict[Path, Callable[[Path], None]] = {}
        self._drawn = time.monotonic()

    def note(self, path: Path, draw: Callable[[Path], None]) -> None:
        """Notes what will draw a file."""
        self._waiting[path] = draw

    def draw_if_due(self) -> None:
        """Draws what waits, unless that was done a moment ago."""
        if time.monotonic() - self._drawn >= SECONDS:
            self.draw()

    def draw(self) -> None:
        """Draws what waits."""
        for path in list(self._waiting):
            path.parent.mkdir(exist_ok=True)
            self._waiting.pop(path)(path)
        self._drawn = time.monotonic()
