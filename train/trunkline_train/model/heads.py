"""One head per kind of task: hidden states to outputs, outputs and targets to a mean loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from trunkline.tasks import TaskSpec
from trunkline_train.features import IGNORE


class Head(nn.Module, ABC):
    """Base of all heads: dropout and a linear layer.

    Args:
        hidden_size: Width of the encoder's hidden states.
        outputs: Numbers per position.
        dropout: Probability of dropping a hidden unit.
    """

    def __init__(self, hidden_size: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden_size, outputs)
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    @abstractmethod
    def forward(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """Returns the outputs of hidden states [B, S, H], in the order of the kind's suffixes."""

    @abstractmethod
    def loss(self, outputs: tuple[Tensor, ...], targets: Mapping[str, Tensor]) -> Tensor:
        """Returns the mean loss per labelled unit, a scalar; 0 if nothing is labelled."""


class TokenHead(Head):
    """Token classification: logits [B, S, labels]."""

    def __init__(self, spec: TaskSpec, hidden_size: int, dropout: float) -> None:
        super().__init__(hidden_size, len(spec.labels), dropout)

    def forward(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """Returns (logits [B, S, labels],)."""
        return (self.linear(self.dropout(hidden)),)

    def loss(self, outputs: tuple[Tensor, ...], targets: Mapping[str, Tensor]) -> Tensor:
        """Returns the mean cross entropy over labelled tokens; targets: labels [B, S]."""
        (logits,) = outputs
        labels = targets["labels"]
        total = functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="sum"
        )
        return total / (labels != IGNORE).sum().clamp(min=1)


class AnswerHead(Head):
    """Extractive question answering: start and end logits, [B, S] each."""

    def __init__(self, spec: TaskSpec, hidden_size: int, dropout: float) -> None:
        super().__init__(hidden_size, 2, dropout)

    def forward(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """Returns (start logits [B, S], end logits [B, S])."""
        start, end = self.linear(self.dropout(hidden)).unbind(dim=-1)
        return start, end

    def loss(self, outputs: tuple[Tensor, ...], targets: Mapping[str, Tensor]) -> Tensor:
        """Returns the mean of start and end cross entropy; targets: start [B], end [B].

        `mask` [B, S] among the targets marks real tokens: padding takes no probability, so that a
        row's loss does not depend on the length of its batch mates.
        """
        padding = targets["mask"] == 0
        start, end = (logits.masked_fill(padding, -torch.inf) for logits in outputs)
        first = functional.cross_entropy(start, targets["start"])
        return (first + functional.cross_entropy(end, targets["end"])) / 2


HEADS: dict[str, type[TokenHead] | type[AnswerHead]] = {
    "token-classification": TokenHead,
    "question-answering": AnswerHead,
}
