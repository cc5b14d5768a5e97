"""How the tasks' losses are weighed against each other, beyond the weights a user sets.

Evidence first (docs/training.md): plain weights do as well as such methods in careful studies, and
of eight that were measured here only one gained anything. It is kept, and GradNorm, which is asked
for most.

A balancer gives weights before a step, gets each task's own gradient, already weighted, and sees
the losses after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trunkline_train.settings import BalancingConfig

Vector = NDArray[np.float64]
_SMALLEST = 1e-8


class Balancer:
    """The method `static`, and the base of the others.

    Args:
        tasks: Names, in a fixed order.
        config: Settings of the method.

    Attributes:
        gradients: Whether each task's own gradient is wanted: of nothing, the encoder's `last`
            layer, or `all` of the encoder.
    """

    gradients: str = ""

    def __init__(self, tasks: Sequence[str], config: BalancingConfig) -> None:
        self.tasks = tuple(tasks)
        self.config = config
        self.values = np.ones(len(tasks))

    def weights(self) -> dict[str, float]:
        """Returns the factor of each task's mean loss in the next step."""
        return dict(zip(self.tasks, self.values.tolist(), strict=True))

    def observe(self, losses: Mapping[str, float]) -> None:
        """Notes the mean losses of a step, of those tasks that took part."""

    def combine(
        self, gradients: Mapping[str, Tensor], scales: Mapping[str, float]
    ) -> Tensor | None:
        """Returns what replaces the sum of the tasks' gradients; None to leave it.

        Args:
            gradients: [P] of each task that took part, weighted.
            scales: The weights, by task: its own times the balancer's times how often it was drawn.
        """
        return None

    def state(self) -> dict[str, Any]:
        """Returns what a resumed run needs, ready for JSON."""
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in vars(self).items()
            if name not in ("tasks", "config")
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Puts back what `state` gave."""
        for name, value in state.items():
            given = np.array(value) if isinstance(vars(self)[name], np.ndarray) else value
            setattr(self, name, given)

    def _known(self, losses: Mapping[str, float], otherwise: Vector) -> Vector:
        """Returns losses in the order of tasks; a task that took no part keeps an older value."""
        pairs = zip(self.tasks, otherwise, strict=True)
        return np.array([losses.get(task, before) for task, before in pairs])


class GradNorm(Balancer):
    """Equal gradient norms on the last shared layer: Chen et al. 2018 (arXiv 1711.02257).

    Norms are pulled towards their mean, times how far a task lags behind to the power of alpha.
    """

    gradients = "last"

    def __init__(self, tasks: Sequence[str], config: BalancingConfig) -> None:
        super().__init__(tasks, config)
        self.initial = np.zeros(len(tasks))
        self.losses = np.zeros(len(tasks))

    def observe(self, losses: Mapping[str, float]) -> None:
        """Notes the losses; the first ones are what progress is measured against."""
        self.losses = self._known(losses, self.losses)
        self.initial = np.where(self.initial > 0, self.initial, self.losses)

    def combine(
        self, gradients: Mapping[str, Tensor], scales: Mapping[str, float]
    ) -> Tensor | None:
        """Moves the weights; the gradients stay as they are."""
        seen = np.array([task in gradients for task in self.tasks])
        if not (seen & (self.initial > 0)).all():
            return None
        norms = np.array([float(gradients[task].norm()) for task in self.tasks])
        progress = self.losses / self.initial
        wanted = norms.mean() * (progress / progress.mean()) ** self.config.alpha
        slope = np.sign(norms - wanted) * norms / self.values
        # Scaled by the mean norm: the rate then means the same for every model.
        slope /= max(float(norms.mean()), _SMALLEST)
        moved = np.maximum(self.values - self.config.rate * slope, _SMALLEST)
        self.values = len(self.tasks) * moved / moved.sum()
        return None


class NormalizedGradients(Balancer):
    """Brings each task's gradient to the length of its weight before they are summed.

    Adam's step is as long as it is whatever the length of a sum, so the task with the largest
    gradient would take most of it. A step of one task alone has no such rival; here none has.
    """

    gradients = "all"

    def combine(
        self, gradients: Mapping[str, Tensor], scales: Mapping[str, float]
    ) -> Tensor | None:
        """Returns the sum of the gradients, each of the length of its weight."""
        parts = (
            gradient * (scales[task] / gradient.norm().clamp(min=_SMALLEST))
            for task, gradient in gradients.items()
        )
        return torch.stack(list(parts)).sum(dim=0)


BALANCERS: dict[str, type[Balancer]] = {
    "static": Balancer,
    "normalized": NormalizedGradients,
    "gradnorm": GradNorm,
}
