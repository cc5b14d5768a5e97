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
    """How a peer batches and computes."""

    batch: int  # most documents in a batch
    wait_ms: float  # how long a batch waits for more
    workers: int  # runs of the graph at a time; a process each where the peer has processes
    threads: int  # of one run

    def __str__(self) -> str:
        """Returns the setting in words."""
        return (
            f"batches of {self.batch}, wait {self.wait_ms:g} ms, "
            f"{self.workers} at a time on {self.threads} threads"
        )


@dataclass(frozen=True)
class Options:
    """Where a peer listens, what it serves, and how."""

    bundle: str  # folder of the bundle
    port: int  # where it listens, if it is one server
    setting: Setting
    run: str | None = None  # folder of the bundle's checkpoint, for those that need it
    ports: Mapping[str, int] = field(default_factory=dict)  # by task, if it is a server per task

    def variables(self) -> dict[str, str]:
        """Returns the environment variable that `given` reads."""
        return {VARIABLE: json.dumps(asdict(self))}


def given() -> Options:
    """Returns the options of this process."""
    if VARIABLE not in os.environ:
        sys.exit(f"{VARIABLE} is not set: this is started by the commands of benchmarks.serving")
    found = json.loads(os.environ[VARIABLE])
    return Options(**found | {"setting": Setting(**found["setting"])})
