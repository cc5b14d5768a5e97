"""MLServer with its adaptive batching, over its REST form of the Open Inference Protocol."""

from __future__ import annotations

import asyncio
import json

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import StringCodec
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.serving.peers.options import given
from benchmarks.serving.peers.work import Work


class Analysis(MLModel):
    """The work as MLServer wants it: a tensor of strings in, one out."""

    async def load(self) -> bool:
        """Loads the graph; once in every worker."""
        self._work = Work(given())
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Returns the results of a batch."""
        documents = [json.loads(one) for one in StringCodec.decode_input(payload.inputs[0])]
        results = [json.dumps(one) for one in self._work.answer(documents)]
        output = StringCodec.encode_output("result", results)
        return InferenceResponse(model_name=self.name, outputs=[output])


async def _serve() -> None:
    options = given()
    setting = options.setting
    settings = Settings(
        host="127.0.0.1",
        http_port=options.port,
        grpc_port=0,
        metrics_endpoint=None,
        parallel_workers=setting.workers,
        debug=False,
    )
    model = ModelSettings(
        name="analysis",
        implementation="benchmarks.serving.peers.mlserver_peer.Analysis",
        max_batch_size=setting.batch,
        max_batch_time=setting.wait_ms / 1000,
        parameters=ModelParameters(version="1"),
    )
    await MLServer(settings).start([model])


if __name__ == "__main__":
    asyncio.run(_serve())
