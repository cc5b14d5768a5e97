"""Triton with its dynamic batching and a Python model, as pytriton sets it up."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from benchmarks.serving.peers.options import given
from benchmarks.serving.peers.work import Work


def main() -> None:
    """Serves until it is killed."""
    options = given()
    setting = options.setting

    def instance() -> object:
        work = Work(options)

        @batch
        def analyze(document: NDArray[np.bytes_]) -> dict[str, NDArray[np.object_]]:
            found = work.answer([json.loads(one) for one in document[:, 0].tolist()])
            texts = [[json.dumps(one).encode()] for one in found]
            return {"result": np.array(texts, dtype=np.object_)}

        return analyze

    triton = Triton(
        config=TritonConfig(
            http_address="127.0.0.1", http_port=options.port, allow_grpc=False, allow_metrics=False
        )
    )
    with triton:
        triton.bind(
            model_name="analysis",
            infer_func=[instance() for _ in range(setting.workers)],
            inputs=[Tensor(name="document", dtype=bytes, shape=(1,))],
            outputs=[Tensor(name="result", dtype=bytes, shape=(1,))],
            config=ModelConfig(
                max_batch_size=setting.batch,
                batcher=DynamicBatcher(max_queue_delay_microseconds=round(setting.wait_ms * 1000)),
            ),
        )
        triton.serve()


if __name__ == "__main__":
    main()
