"""Models as the protocol and Triton's configuration describe them."""

from __future__ import annotations

from collections.abc import Iterable

from trunkline_serve.oip.answers import Answering
from trunkline_serve.oip.tensors import Spec
from trunkline_serve.oip.v1 import open_inference_pb2 as pb

_BACKEND = "trunkline"


def metadata_to_pb(model: Answering, versions: Iterable[Answering]) -> pb.ModelMetadataResponse:
    """Returns a model's metadata; `versions` are all that are served."""
    return pb.ModelMetadataResponse(
        name=model.name,
        versions=[str(one.version) for one in versions],
        platform=model.platform,
        inputs=map(_tensor, model.inputs),
        outputs=map(_tensor, model.outputs),
    )


def config_to_pb(
    model: Answering, versions: Iterable[Answering], max_batch_size: int
) -> pb.ModelConfig:
    """Returns a model's configuration; `versions` are all that are served."""
    specific = pb.ModelVersionPolicy.Specific(versions=[one.version for one in versions])
    return pb.ModelConfig(
        name=model.name,
        platform=model.platform,
        backend=_BACKEND,
        version_policy=pb.ModelVersionPolicy(specific=specific),
        max_batch_size=max_batch_size,
        input=[
            pb.ModelInput(
                name=one.name,
                data_type=one.datatype.number,
                dims=one.shape[1:],
                optional=one.optional,
            )
            for one in model.inputs
        ],
        output=[
            pb.ModelOutput(name=one.name, data_type=one.datatype.number, dims=one.shape[1:])
            for one in model.outputs
        ],
        # Set, though it says nothing: requests share batches and never wait for others.
        dynamic_batching=pb.ModelDynamicBatching(),
    )


def _tensor(spec: Spec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=spec.datatype.name, shape=spec.shape
    )
