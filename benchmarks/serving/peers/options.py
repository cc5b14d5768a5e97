"""What every peer's server is told. Runs in the peer's environment: nothing but Python in here."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass

VARIABLE = "TRUNKLINE_PEER"


@dataclass(frozen=True)
class Setting:
    """How a peer batches and computes.

    Attributes:
        batch: Most documents in a batch.
        wait_ms: How long a batch waits for company, in milliseconds.
        workers: Runs of the graph at a time; a process each where the peer has processes.
        threads: Threads of one run.
    """

    batch: int
    wait_ms: float
    workers: int
    threads: int

    def __str__(self) -> str:
        """Returns the setting in words."""
        return (
            f"batches of {self.batch}, wait {self.wait_ms:g} ms, "
            f"{self.workers} at a time on {self.threads} threads"
        )


@dataclass(frozen=True)
class Options:
    """Where a peer listens, what it serves, and how."""

    bundle: str
    port: int
    setting: Setting

    def variables(self) -> dict[str, str]:
        """Returns the environment variable that `given` reads."""
        return {VARIABLE: json.dumps(asdict(self))}


def given() -> Options:
    """Returns the options of this process."""
    if VARIABLE not in os.environ:
        sys.exit(f"{VARIABLE} is not set: this is started by benchmarks.serving.bars")
    found = json.loads(os.environ[VARIABLE])
    return Options(found["bundle"], found["port"], Setting(**found["setting"]))
