"""LitServe with its own batching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import litserve

from benchmarks.serving.peers.options import given
from benchmarks.serving.peers.work import Work


class Analysis(litserve.LitAPI):
    """The work as LitServe wants it: bodies of JSON, already parsed, as a list."""

    def setup(self, device: str) -> None:
        """Loads the graph; once in every worker."""
        self._work = Work(given())

    def predict(self, x: Sequence[Mapping[str, Any]], **_: Any) -> list[dict[str, Any]]:
        """Returns the results of a batch."""
        return self._work.answer(x)


def main() -> None:
    """Serves until it is killed."""
    options = given()
    setting = options.setting
    api = Analysis(max_batch_size=setting.batch, batch_timeout=setting.wait_ms / 1000)
    server = litserve.LitServer(
        api, accelerator="cpu", devices=1, workers_per_device=setting.workers
    )
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
