"""Ray Serve with its own batching."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.serving.peers.options import Options, given
from benchmarks.serving.peers.work import Work

_WAITING = 1000  # calls that a replica takes in; it batches what waits there
_STORE = 100 * 1024**2  # bytes of shared memory; no call comes near them
_PATIENCE = 600  # seconds: servers stand still for as long as others have their turn


def main() -> None:
    """Serves until it is killed."""
    options = given()
    setting = options.setting
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        num_cpus=setting.workers,
        object_store_memory=_STORE,
        include_dashboard=False,
        logging_level="warning",
    )
    serve.start(http_options={"host": "127.0.0.1", "port": options.port})
    serve.run(_deployment(options), name="analysis", route_prefix="/", blocking=True)


def _deployment(options: Options) -> serve.Application:
    setting = options.setting

    @serve.deployment(
        num_replicas=setting.workers,
        max_ongoing_requests=_WAITING,
        health_check_period_s=_PATIENCE,
        health_check_timeout_s=_PATIENCE,
    )
    class Analysis:
        """The work as Ray Serve wants it: requests one by one, joined to a list."""

        def __init__(self) -> None:
            self._work = Work(options)

        @serve.batch(max_batch_size=setting.batch, batch_wait_timeout_s=setting.wait_ms / 1000)
        async def answer(self, documents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
            return self._work.answer(documents)

        async def __call__(self, request: Request) -> dict[str, Any]:
            found: dict[str, Any] = await self.answer(await request.json())
            return found

    return Analysis.bind()


if __name__ == "__main__":
    main()
