"""Runners that know the answers."""

from collections.abc import Sequence

import numpy as np

from trunkline.decode.numeric import Floats
from trunkline.encode import Row, TextEncoder
from trunkline.kinds import Output, task_outputs
from trunkline.pipeline import Pipeline
from trunkline.runner import RowOutputs
from trunkline.tasks import TaskSpec
from trunkline_train.data.examples import Example
from trunkline_train.features.build import Feature, build_features
from trunkline_train.features.targets import IGNORE

SURE = 10.0  # a logit that leaves no doubt


def outputs(spec: TaskSpec, feature: Feature) -> dict[str, Floats]:
    """Returns the outputs of a model that says just what the targets say."""
    if spec.kind == "token-classification":
        values = [sure(feature, len(spec.labels))]
    else:
        values = [pointed(feature, name) for name in ("start", "end")]
    return {output.name: value for output, value in zip(task_outputs(spec), values, strict=True)}


def sure(feature: Feature, labels: int) -> Floats:
    """Returns logits [S, labels] of the targets, and nonsense where there is no target."""
    wanted = feature.targets["labels"]
    logits = np.zeros((len(wanted), labels), np.float32)
    logits[:, -1] = SURE
    logits[wanted != IGNORE] = 0
    logits[wanted != IGNORE, wanted[wanted != IGNORE]] = SURE
    return logits


def pointed(feature: Feature, name: str) -> Floats:
    """Returns logits [S] with the target highest."""
    logits = np.zeros(len(feature.row), np.float32)
    logits[feature.targets[name]] = SURE
    return logits


class Oracle:
    """A runner that gives the right outputs for the rows of some examples, in their order.

    Args:
        deaf: Rows, counted from the end, for which it gives zeros.
    """

    def __init__(
        self, spec: TaskSpec, examples: Sequence[Example], encoder: TextEncoder, deaf: int = 0
    ) -> None:
        features = build_features(spec, examples, encoder)
        self.values = [outputs(spec, feature) for feature in features]
        for value in self.values[len(self.values) - deaf :]:
            for array in value.values():
                array[:] = 0

    def run(self, rows: Sequence[Row], outputs: Sequence[Output]) -> list[RowOutputs]:
        assert len(rows) == len(self.values)
        return list(self.values)


def oracle(
    spec: TaskSpec, examples: Sequence[Example], encoder: TextEncoder, deaf: int = 0
) -> Pipeline:
    """Returns the pipeline of serving over an oracle."""
    return Pipeline((spec,), encoder, Oracle(spec, examples, encoder, deaf))
