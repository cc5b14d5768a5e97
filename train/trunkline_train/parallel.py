"""Training by several processes at once, as `accelerate launch` or `torchrun` start them.

Every process draws the same batches and takes its share of each one's rows; gradients are added up
once per step, in one piece. All processes add up the same parameters whatever rows they had, so a
head without a row in some process cannot make the others wait (docs/adr/0010).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from trunkline_train.hardware import pick_device

T = TypeVar("T")


class Workers:
    """The processes of a run; of one alone all is trivial.

    Args:
        device: As in the configuration; several processes on CUDA take one device each.

    Attributes:
        rank: Number of this process, from 0.
        count: Number of processes.
        device: What this process computes on.
    """

    def __init__(self, device: str) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        if self.count == 1:
            self.rank, self.device = 0, pick_device(device)
            return
        from accelerate import PartialState

        picked = pick_device(device)
        state = PartialState(cpu=picked.type == "cpu")
        self.rank, self.device = state.process_index, state.device

    @property
    def leads(self) -> bool:
        """Whether this process writes files, scores and reports."""
        return self.rank == 0

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replaces tensors by their sums over all processes."""
        if self.count == 1 or not tensors:
            return
        from accelerate.utils import reduce

        flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
        summed = reduce(flat, reduction="sum")
        parts = summed.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def add_up_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Adds up the gradients of parameters; one without a gradient counts as zero."""
        if self.count == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.add_up([parameter.grad for parameter in parameters if parameter.grad is not None])

    def any(self, flag: bool) -> bool:
        """Returns whether some process says yes; the same in all, which wait for each other."""
        if self.count == 1:
            return flag
        told = torch.tensor([float(flag)], device=self.device)
        self.add_up([told])
        return bool(told > 0)

    def share(self, value: T) -> T:
        """Returns the leading process's value to all; waits for it."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast_object_list

        shared: list[T] = broadcast_object_list([value])
        return shared[0]
