"""What every result file says of itself: date, commit, machine, versions, command."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from trunkline_serve.bench.machine import commit, describe_machine, versions


def record(module: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Returns the head of a result file, with the command that made it.

    Of absolute paths only the last part is kept: they say nothing on another machine.
    """
    command = shlex.join(["python", "-m", module, *map(_short, arguments)])
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "command": command,
        "machine": describe_machine(),
        "versions": versions("torch", "transformers"),
    }


def _short(argument: str) -> str:
    return re.sub(r"(^|=)/(?:[^/]+/)*", r"\1", argument)
