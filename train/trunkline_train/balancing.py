"""How the tasks' losses are weighed against each other, beyond the weights a user sets.

Evidence first (docs/training.md): plain weights do as well as most of these in careful studies.
They are here to be compared, `random` as the baseline that any of them has to beat.

A balancer gives weights before a step and sees the losses after it, so the scalar methods cost no
extra pass; those that look at gradients get each task's own gradient, already weighted.
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
        seed: Of those methods that draw.

    Attributes:
        gradients: Whether each task's own gradient is wanted: of nothing, the encoder's `last`
            layer, or `all` of the encoder.
    """

    gradients: str = ""

    def __init__(self, tasks: Sequence[str], config: BalancingConfig, seed: int) -> None:
        self.tasks = tuple(tasks)
        self.config = config
        self.seed = seed
        self.values = np.ones(len(tasks))

    def weights(self, step: int) -> dict[str, float]:
        """Returns the factor of each task's mean loss in a step."""
        return self._named(self._weigh(step))

    def observe(self, losses: Mapping[str, float]) -> None:
        """Notes the mean losses of a step, of those tasks that took part."""

    def combine(
        self, gradients: Mapping[str, Tensor], scales: Mapping[str, float], step: int
    ) -> Tensor | None:
        """Returns what replaces the sum of the tasks' gradients; None to leave it.

        Args:
            gradients: [P] of each task that took part, weighted.
            scales: The weights, by task: its own times the balancer's times how often it was drawn.
            step: Number of the step.
        """
        return None

    def state(self) -> dict[str, Any]:
        """Returns what a resumed run needs, ready for JSON."""
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in vars(self).items()
            if name not in ("tasks", "config", "seed")
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Puts back what `state` gave."""
        for name, value in state.items():
            given = np.array(value) if isinstance(vars(self)[name], np.ndarray) else value
            setattr(self, name, given)

    def _weigh(self, step: int) -> Vector:
        return self.values

    def _named(self, values: Vector) -> dict[str, float]:
        return dict(zip(self.tasks, values.tolist(), strict=True))

    def _known(self, losses: Mapping[str, float], otherwise: Vector) -> Vector:
        """Returns losses in the order of tasks; a task that took no part keeps an older value."""
        pairs = zip(self.tasks, otherwise, strict=True)
        return np.array([losses.get(task, before) for task, before in pairs])


class Uncertainty(Balancer):
    """Homoscedastic uncertainty: weight exp(-s), s learned by its own gradient.

    Kendall et al. 2018 (arXiv 1705.07115), the form for classification: the loss of s is
    exp(-s) L + s / 2, whose gradient needs no pass through the model.
    """

    def __init__(self, tasks: Sequence[str], config: BalancingConfig, seed: int) -> None:
        super().__init__(tasks, config, seed)
        self.values = np.zeros(len(tasks))

    def observe(self, losses: Mapping[str, float]) -> None:
        """Moves each s down its gradient."""
        for at, task in enumerate(self.tasks):
            if task in losses:
                slope = 0.5 - np.exp(-self.values[at]) * losses[task]
                self.values[at] -= self.config.rate * slope

    def _weigh(self, step: int) -> Vector:
        return np.exp(-self.values)


class DynamicWeightAverage(Balancer):
    """Tasks whose loss falls slowly weigh more: Liu et al. 2019 (arXiv 1803.10704).

    Rates are taken between windows of steps rather than epochs, since fine-tuning has few.
    """

    def __init__(self, tasks: Sequence[str], config: BalancingConfig, seed: int) -> None:
        super().__init__(tasks, config, seed)
        self.sums, self.counts = np.zeros(len(tasks)), np.zeros(len(tasks))
        self.means = np.zeros((0, len(tasks)))
        self.seen = 0

    def observe(self, losses: Mapping[str, float]) -> None:
        """Adds the losses to the window; a full one changes the weights."""
        present = np.array([task in losses for task in self.tasks])
        self.sums += self._known(losses, np.zeros(len(self.tasks)))
        self.counts += present
        self.seen += 1
        # A window is full when every task was seen in it.
        if self.seen >= self.config.window and self.counts.min() > 0:
            means = [*self.means.reshape(-1, len(self.tasks)), self.sums / self.counts]
            self.means = np.array(means[-2:])
            self.sums, self.counts, self.seen = self.sums * 0, self.counts * 0, 0
            if len(self.means) == 2:  # noqa: PLR2004
                rates = self.means[1] / np.maximum(self.means[0], _SMALLEST)
                self.values = len(self.tasks) * _softmax(rates / self.config.temperature)


class Famo(Balancer):
    """Equal progress of all log losses: Liu et al. 2023 (arXiv 2306.03792).

    The progress of a step is read off the next step's losses, on other rows, which spares the
    second forward pass of the paper; so is the scale 1 / L of the weights.
    """

    _DECAY = 0.01
    _MOMENTS = (0.9, 0.999)

    def __init__(self, tasks: Sequence[str], config: BalancingConfig, seed: int) -> None:
        super().__init__(tasks, config, seed)
        self.values = np.zeros(len(tasks))
        self.losses = np.zeros(0)
        self.first, self.second = np.zeros(len(tasks)), np.zeros(len(tasks))
        self.steps = 0

    def observe(self, losses: Mapping[str, float]) -> None:
        """Moves the logits towards tasks that made less progress than others (Adam)."""
        before = self.losses if len(self.losses) else self._known(losses, np.ones(len(self.tasks)))
        self.losses = np.maximum(self._known(losses, before), _SMALLEST)
        progress = np.log(np.maximum(before, _SMALLEST)) - np.log(self.losses)
        shares = _softmax(self.values)
        slope = shares * (progress - (shares * progress).sum()) + self._DECAY * self.values
        self.steps += 1
        b1, b2 = self._MOMENTS
        self.first = b1 * self.first + (1 - b1) * slope
        self.second = b2 * self.second + (1 - b2) * slope**2
        scale = np.sqrt(self.second / (1 - b2**self.steps)) + _SMALLEST
        self.values = self.values - self.config.rate * self.first / (1 - b1**self.steps) / scale

    def _weigh(self, step: int) -> Vector:
        if not len(self.losses):
            return np.ones(len(self.tasks))
        raw = _softmax(self.values) / self.losses
        return len(self.tasks) * raw / raw.sum()


class RandomWeights(Balancer):
    """New random weights at each step: Lin et al. 2021 (arXiv 2111.10603)."""

    def _weigh(self, step: int) -> Vector:
        drawn = np.random.default_rng([self.seed, step]).normal(size=len(self.tasks))
        return len(self.tasks) * _softmax(drawn)


class GradNorm(Balancer):
    """Equal gradient norms on the last shared layer: Chen et al. 2018 (arXiv 1711.02257).

    Norms are pulled towards their mean, times how far a task lags behind to the power of alpha.
    """

    gradients = "last"

    def __init__(self, tasks: Sequence[str], config: BalancingConfig, seed: int) -> None:
        super().__init__(tasks, config, seed)
        self.initial = np.zeros(len(tasks))
        self.losses = np.zeros(len(tasks))

    def observe(self, losses: Mapping[str, float]) -> None:
        """Notes the losses; the first ones are what progress is measured against."""
        self.losses = self._known(losses, self.losses)
        self.initial = np.where(self.initial > 0, self.initial, self.losses)

    def combine(
        self, gradients: Mapping[str, Tensor], scales: Mapping[str, float], step: int
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
        self, gradients: Mapping[str, Tensor], scales: Mapping[str, float], step: int
    ) -> Tensor | None:
        """Returns the sum of the gradients, each of the length of its weight."""
        parts = (
            gradient * (scales[task] / gradient.norm().clamp(min=_SMALLEST))
            for task, gradient in gradients.items()
        )
        return torch.stack(list(parts)).sum(dim=0)


class ProjectedGradients(Balancer):
    """Takes out of each task's gradient what runs against another's: PCGrad.

    Yu et al. 2020 (arXiv 2001.06782).
    """

    gradients = "all"

    def combine(
        self, gradients: Mapping[str, Tensor], scales: Mapping[str, float], step: int
    ) -> Tensor | None:
        """Returns the sum of the projected gradients."""
        random = np.random.default_rng([self.seed, step])
        names = list(gradients)
        total = torch.zeros_like(next(iter(gradients.values())))
        for name in names:
            mine = gradients[name].clone()
            for other in random.permutation([one for one in names if one != name]):
                theirs = gradients[str(other)]
                against = torch.dot(mine, theirs)
                if against < 0:
                    mine -= against / theirs.square().sum().clamp(min=_SMALLEST**2) * theirs
            total += mine
        return total


BALANCERS: dict[str, type[Balancer]] = {
    "static": Balancer,
    "uncertainty": Uncertainty,
    "dwa": DynamicWeightAverage,
    "famo": Famo,
    "random": RandomWeights,
    "normalized": NormalizedGradients,
    "gradnorm": GradNorm,
    "pcgrad": ProjectedGradients,
}


def _softmax(values: Vector) -> Vector:
    weights: Vector = np.exp(values - values.max())
    return weights / weights.sum()
