"""Runs rows through the torch model, so that evaluation takes the pipeline of serving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from trunkline.decode.numeric import Floats
from trunkline.runner import PaddedRunner
from trunkline_train.model.multitask import MultitaskModel

_BUDGET, _CUDA_BUDGET = 2048, 16384  # tokens of a batch: a GPU wants more of them at once


class TorchRunner(PaddedRunner):
    """A trained model as a runner.

    Args:
        model: The model; it is put into evaluation mode for each run, and back.
        pad_id: Vocabulary id of padding.
        budget: Most tokens in one batch, padding included; None for what suits the model's device.
    """

    def __init__(self, model: MultitaskModel, pad_id: int, budget: int | None = None) -> None:
        if budget is None:
            budget = _CUDA_BUDGET if next(model.parameters()).is_cuda else _BUDGET
        super().__init__(pad_id, budget)
        self._model = model

    def forward(
        self, inputs: Mapping[str, NDArray[np.int64]], outputs: Sequence[str]
    ) -> list[Floats]:
        """Runs one padded batch [B, S] and returns the named outputs."""
        device = next(self._model.parameters()).device
        tensors = {name: torch.from_numpy(value).to(device) for name, value in inputs.items()}
        training = self._model.training
        self._model.eval()
        with torch.inference_mode():
            values = self._model(**tensors)
        self._model.train(training)
        return [values[name].float().cpu().numpy() for name in outputs]
