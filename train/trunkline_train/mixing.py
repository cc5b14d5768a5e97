"""Samplers that choose the data sets of each step, deterministically."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from trunkline_train.settings import MixingConfig

Floats = NDArray[np.float64]

_EPOCHS = 3  # default number


class Mixer:
    """Draws the data sets of every step.

    Draws depend only on the seed and the step. Within a step, a data set with share p gets the
    floor or ceiling of p times `draws` batches (systematic sampling), which has less variance than
    independent draws.

    Args:
        config: The sampler and its settings.
        sizes: Batches per pass of each data set.
        draws: Batches per step.
        ratios: Ratio of each data set, for the sampler `ratios` only.
        epochs: Number of epochs; None for three, each of as many passes as `least` requires.
        least: If `epochs` is None, the minimum batches in the run per data set, on average.
        seed: Seed of the draws.

    Attributes:
        draws: Batches per step.
        passes: Passes per epoch.
        epochs: Number of epochs.
        steps_per_epoch: Optimiser steps per epoch.
        total: Optimiser steps of the whole run.
    """

    def __init__(
        self,
        config: MixingConfig,
        sizes: Sequence[int],
        *,
        draws: int,
        ratios: Sequence[float],
        epochs: int | None,
        least: int = 0,
        seed: int,
    ) -> None:
        self._config = config
        self._sizes = np.array(sizes, np.float64)
        self._ratios = np.array(ratios, np.float64)
        self._seed = seed
        self.draws = draws
        turns = config.sampler == "round-robin"
        batches = max(sizes) * len(sizes) if turns else sum(sizes)
        wanted = 0 if epochs else least * len(sizes)
        self.passes = max(1, math.ceil(wanted / (_EPOCHS * batches)))
        self.epochs = epochs or _EPOCHS
        self.steps_per_epoch = math.ceil(self.passes * batches / self.draws)
        self.total = self.steps_per_epoch * self.epochs

    def at(self, step: int) -> list[int]:
        """Returns the index of the data set of each batch in a step."""
        if self._config.sampler == "round-robin":
            first = step * self.draws
            return [(first + draw) % len(self._sizes) for draw in range(self.draws)]
        shares = np.cumsum(self.shares())
        start = np.random.default_rng([self._seed, step]).random()
        marks = (start + np.arange(self.draws)) / self.draws
        drawn = np.minimum(np.searchsorted(shares, marks), len(shares) - 1)
        return [int(one) for one in drawn]

    def shares(self) -> Floats:
        """Returns each data set's share of the draws; shares add up to 1."""
        values = _SHARES[self._config.sampler](self)
        return values / float(values.sum())

    def _equal(self) -> Floats:
        return np.ones_like(self._sizes)

    def _proportional(self) -> Floats:
        return self._sizes

    def _temperature(self) -> Floats:
        return self._sizes ** (1.0 / self._config.temperature)

    def _given(self) -> Floats:
        return self._ratios


_SHARES: Mapping[str, Callable[[Mixer], Floats]] = {
    "round-robin": Mixer._equal,
    "proportional": Mixer._proportional,
    "temperature": Mixer._temperature,
    "ratios": Mixer._given,
}
