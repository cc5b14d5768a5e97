"""What was found out about a bundle on this machine, kept beside it for the next time."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import onnxruntime

from trunkline.cpu import cpu_model
from trunkline.files import write_whole

Entry = Mapping[str, Any]


class Tried:
    """The file of a bundle; where none can be written nothing is kept.

    Args:
        folder: The bundle.
    """

    def __init__(self, folder: Path) -> None:
        whole = folder.resolve()
        self._file = whole.parent / f".{whole.name}.calibration.json"

    def read(self) -> dict[str, Entry]:
        """Returns the entries by key, whoever wrote them; what is none is left out."""
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        entries = found.items() if isinstance(found, dict) else ()
        return {key: entry for key, entry in entries if isinstance(entry, dict)}

    def keep(self, found: Mapping[str, Entry]) -> None:
        """Adds entries."""
        kept = {**self.read(), **found}
        with suppress(OSError):
            write_whole(self._file, json.dumps(kept, indent=1) + "\n")


def fingerprint(*parts: str) -> str:
    """Returns a key of what was tried, on this machine with this onnxruntime."""
    all_parts = (*parts, cpu_model(), platform.machine(), onnxruntime.__version__)
    return hashlib.sha256("\n".join(all_parts).encode()).hexdigest()[:16]
