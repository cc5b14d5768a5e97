"""A child of the supervisor.

python -m trunkline_serve.fronts ROLE DESCRIPTOR FOLDER NUMBER [again]
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trunkline.cli import USAGE_ERROR, open_closed_streams
from trunkline.errors import TrunklineError
from trunkline_serve.fronts.child import Folder, Line, leave_signals
from trunkline_serve.observe.logs import set_up_logs
from trunkline_serve.process import quick_loop, set_up_interpreter


@dataclass(frozen=True)
class _Role:
    """What a child does, as a coroutine function's place, and the event loop it does best on."""

    function: str
    quick_loop: bool


# An engine's loop has little to do.
_ROLES = {
    "engine": _Role("trunkline_serve.fronts.computer:compute", quick_loop=False),
    "front": _Role("trunkline_serve.fronts.front:front", quick_loop=True),
}


def main(arguments: Sequence[str]) -> int:
    """Runs a child; returns its exit status."""
    open_closed_streams()
    leave_signals()
    set_up_interpreter()
    name, descriptor, path, number, *more = arguments
    line, folder = Line(int(descriptor)), Folder(Path(path))
    settings = folder.read_settings(int(number))
    set_up_logs(settings.log)
    role = _ROLES[name]
    try:
        with asyncio.Runner(loop_factory=quick_loop() if role.quick_loop else None) as runner:
            runner.run(_work(role)(line, folder, settings, again="again" in more))
    except (TrunklineError, OSError) as error:
        line.say_failed(error)
        return USAGE_ERROR
    return 0


def _work(role: _Role) -> Callable[..., Coroutine[Any, Any, None]]:
    module, _, function = role.function.partition(":")
    work: Callable[..., Coroutine[Any, Any, None]] = getattr(
        importlib.import_module(module), function
    )
    return work


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
