"""Trunkline in a process that says at its end how many calls its engine has heard of."""

from __future__ import annotations

import atexit
import itertools
import sys

HEARD = "calls heard of by the engine: "


def count() -> None:
    """Counts the calls that this process answers or refuses, and prints the number at its end."""
    from trunkline_serve.events import Everyone

    counter, answered, failed = itertools.count(), Everyone.answered, Everyone.failed

    def count_answered(self: Everyone, call: object) -> None:
        next(counter)
        answered(self, call)

    def count_failed(self: Everyone, call: object) -> None:
        next(counter)
        failed(self, call)

    Everyone.answered, Everyone.failed = count_answered, count_failed
    atexit.register(lambda: print(f"{HEARD}{next(counter)}", file=sys.stderr, flush=True))


if __name__ == "__main__":
    count()
    from trunkline.cli import main

    sys.exit(main())
