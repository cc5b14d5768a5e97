"""mosec with its own batching."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from mosec import Server, Worker

from benchmarks.serving.peers.options import given
from benchmarks.serving.peers.work import Work


class Analysis(Worker):
    """The work as mosec wants it: bodies of JSON, already parsed, as a list."""

    def __init__(self) -> None:
        super().__init__()
        self._work = Work(given())

    def forward(self, data: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Returns the results of a batch."""
        return self._work.answer(data)


def main() -> None:
    """Serves until it is killed."""
    options = given()
    setting = options.setting
    # mosec reads what concerns the whole server from the command line; the timeout is in ms.
    sys.argv += ["--address", "127.0.0.1", "--port", str(options.port), "--timeout", "60000"]
    server = Server()
    server.append_worker(
        Analysis,
        num=setting.workers,
        max_batch_size=setting.batch,
        max_wait_time=max(1, round(setting.wait_ms)),
        timeout=60,
    )
    server.run()


if __name__ == "__main__":
    main()
