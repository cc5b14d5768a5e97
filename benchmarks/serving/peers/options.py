"""What every peer's server is told. Runs in the peer's environment: nothing but Python in here."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

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
    """Where a peer listens, what it serves, and how.

    Attributes:
        bundle: Folder of the bundle.
        port: Where it listens, if it is one server.
        setting: How it batches and computes.
        run: Folder of the checkpoint that the bundle was made of, for those that need it.
        ports: Where it listens, by task, if it is one server per task.
    """

    bundle: str
    port: int
    setting: Setting
    run: str | None = None
    ports: Mapping[str, int] = field(default_factory=dict)

    def variables(self) -> dict[str, str]:
        """Returns the environment variable that `given` reads."""
        return {VARIABLE: json.dumps(asdict(self))}


def given() -> Options:
    """Returns the options of this process."""
    if VARIABLE not in os.environ:
        sys.exit(f"{VARIABLE} is not set: this is started by the commands of benchmarks.serving")
    found = json.loads(os.environ[VARIABLE])
    return Options(**found | {"setting": Setting(**found["setting"])})
