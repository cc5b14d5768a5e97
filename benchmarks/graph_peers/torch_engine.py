"""The checkpoint in torch with fused attention: eager and compiled, on a CPU or a GPU."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.graph_peers.turns import Batch, Run, Task, take_turns
from trunkline.kinds import task_outputs
from trunkline_train.checkpoint import load_checkpoint
from trunkline_train.model.multitask import MultitaskModel

NO_GPU = "no GPU"


@dataclass(frozen=True)
class Way:
    """A way to run the model: where, in what type, and with what attention and compiler."""

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    compiled: bool = False
    flash: bool = False


_WAYS = {
    "fp32": Way(),
    "fp32 flash": Way(flash=True),
    "fp32 compiled": Way(compiled=True),
    "GPU fp16": Way("cuda", torch.float16),
    "GPU fp16 flash": Way("cuda", torch.float16, flash=True),
    "GPU fp16 compiled": Way("cuda", torch.float16, compiled=True),
}


def load(task: Task) -> Run:
    """Returns what runs the model; ends the process if it wants a GPU and there is none."""
    way = _WAYS[task.precision]
    if way.device == "cuda" and not torch.cuda.is_available():
        sys.exit(NO_GPU)
    torch.set_num_threads(task.threads)
    model = load_checkpoint(Path(task.path)).model
    model.encoder.set_attn_implementation("sdpa")
    model.to(way.device, way.dtype)
    forward: Any = Flash(model) if way.flash else model
    if way.compiled:
        forward = torch.compile(model, dynamic=True)

    def run(batch: Batch) -> Mapping[str, NDArray[Any]]:
        given = {name: torch.from_numpy(batch[name]).to(way.device) for name in model.inputs}
        with torch.inference_mode():
            outputs = forward(**given)
        return {name: value.float().cpu().numpy() for name, value in outputs.items()}

    return run


class Flash:
    """Runs rows of one length together: flash attention takes no mask, so none may be padded."""

    def __init__(self, model: MultitaskModel) -> None:
        self._model = model

    def __call__(self, attention_mask: Tensor, **given: Tensor) -> dict[str, Tensor]:
        """Returns the outputs of all heads by name, as the model does."""
        model = self._model
        shape = (*attention_mask.shape, model.config.hidden_size)
        hidden = torch.zeros(shape, dtype=model.encoder.dtype, device=attention_mask.device)
        lengths = attention_mask.sum(dim=1)
        for length in lengths.unique().tolist():
            at = (lengths == length).nonzero().squeeze(1)
            part = {name: value[at, :length] for name, value in given.items()}
            with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
                hidden[at, :length] = model.encoder(**part)[0]
        outputs: dict[str, Tensor] = {}
        for spec in model.tasks:
            names = [output.name for output in task_outputs(spec)]
            outputs.update(zip(names, model.head(spec.name)(hidden), strict=True))
        return outputs


if __name__ == "__main__":
    take_turns(load)
