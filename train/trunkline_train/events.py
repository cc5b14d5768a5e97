"""TensorBoard event files, where TensorBoard is installed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def has_tensorboard() -> bool:
    """Returns whether the package `tensorboard` is installed."""
    return find_spec("tensorboard") is not None


class Events:
    """Event files of one run; takes the lines of its log.

    Args:
        folder: Where they are written.
        step: Where the run stands; what older files say of later steps is hidden.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def add(self, line: Mapping[str, Any]) -> None:
        """Adds every number of a log line, named by its path, e.g. `loss/ner`."""
        for name, value in _numbers(line, ""):
            self._writer.add_scalar(name, value, line["step"])
        if "dev" in line:  # rare, and worth keeping if the process dies
            self._writer.flush()

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()


def _numbers(value: Any, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key != "step":
                yield from _numbers(inner, f"{path}/{key}" if path else str(key))
    elif isinstance(value, int | float):
        yield path, value
