"""Each task's own gradient on shared parameters, to balance by and to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from trunkline_train.model.multitask import MultitaskModel


class TaskGradients:
    """Keeps the tasks' gradients apart during a step.

    After a task's backward pass `take` moves what it left on the parameters aside; `give_back`
    puts the sum back, or what a balancer made of it.

    Args:
        parameters: The shared ones.
        tasks: Those of the step.

    Attributes:
        by_task: [P] of each task; zeros where it left nothing.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], tasks: Sequence[str]) -> None:
        self.parameters = list(parameters)
        count = sum(parameter.numel() for parameter in self.parameters)
        device = self.parameters[0].device
        self.by_task = {task: torch.zeros(count, device=device) for task in tasks}

    def take(self, task: str) -> None:
        """Moves the gradients aside, as the task's; several passes of a task add up."""
        parts = self.by_task[task].split([parameter.numel() for parameter in self.parameters])
        for parameter, part in zip(self.parameters, parts, strict=True):
            if parameter.grad is not None:
                part.add_(parameter.grad.view_as(part))
            parameter.grad = None

    def give_back(self, combined: Tensor | None) -> None:
        """Puts `combined` [P] on the parameters; of None the sum of all tasks."""
        if combined is None:
            combined = torch.stack(list(self.by_task.values())).sum(dim=0)
        parts = combined.split([parameter.numel() for parameter in self.parameters])
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter).clone()


def compare(gradients: Mapping[str, Tensor]) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the norm of each task's gradient, and the cosine of each pair as `a~b`."""
    norms = {task: float(gradient.norm()) for task, gradient in gradients.items()}
    cosines = {
        f"{a}~{b}": float(cosine_similarity(gradients[a], gradients[b], dim=0))
        for a, b in combinations(gradients, 2)
    }
    return norms, cosines


def shared_parameters(model: MultitaskModel, scope: str) -> list[nn.Parameter]:
    """Returns the encoder's trained parameters: `all`, or those of the `last` layer."""
    trained = {name: p for name, p in model.encoder.named_parameters() if p.requires_grad}
    if scope == "all":
        return list(trained.values())
    layers = {name: int(number) for name in trained if (number := _layer(name)) is not None}
    top = max(layers.values(), default=None)
    return [p for name, p in trained.items() if top is None or layers.get(name) == top]


def _layer(name: str) -> str | None:
    """Returns the number of the layer in a parameter's name, such as 5 in `layer.5.output`."""
    return next((part for part in name.split(".") if part.isdecimal()), None)
