"""One head per kind of task, which computes outputs from hidden states, and their loss.

Losses are sums over labelled units (words, questions, texts), so that a mean over several batches
weights every unit equally.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from trunkline.tasks import TaskSpec, TextOptions
from trunkline_train.features.targets import IGNORE, MASK, TEACHER
from trunkline_train.model.dropout import Dropout

Targets = Mapping[str, Tensor]
Outputs = tuple[Tensor, ...]


class Head(nn.Module, ABC):
    """Base of all heads: dropout and a linear layer.

    Args:
        hidden_size: Width of the encoder's hidden states.
        outputs: Number of outputs per position.
        dropout: Probability of dropping a hidden unit.
    """

    def __init__(self, hidden_size: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.linear = nn.Linear(hidden_size, outputs)
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    @abstractmethod
    def forward(self, hidden: Tensor) -> Outputs:
        """Returns the outputs for hidden states [B, S, H], in the order of the kind's suffixes."""

    @abstractmethod
    def units(self, targets: Targets) -> Tensor:
        """Returns the number of labelled units in a batch, a scalar."""

    @abstractmethod
    def loss(self, outputs: Outputs, targets: Targets) -> Tensor:
        """Returns the loss summed over labelled units, a scalar."""

    @abstractmethod
    def distill(self, outputs: Outputs, targets: Targets, temperature: float) -> Tensor:
        """Returns the divergence from the teacher summed over labelled units, a scalar.

        It is scaled by temperature squared, which keeps the magnitude of gradients comparable to
        the loss (Hinton et al. 2015, arXiv 1503.02531).
        """


class TokenHead(Head):
    """Token classification: logits [B, S, labels]; targets: labels [B, S]."""

    def __init__(self, spec: TaskSpec, hidden_size: int, dropout: float) -> None:
        super().__init__(hidden_size, len(spec.labels), dropout)

    def forward(self, hidden: Tensor) -> Outputs:
        """Returns (logits [B, S, labels],)."""
        return (self.linear(self.dropout(hidden)),)

    def units(self, targets: Targets) -> Tensor:
        """Returns the number of labelled tokens."""
        return (targets["labels"] != IGNORE).sum()

    def loss(self, outputs: Outputs, targets: Targets) -> Tensor:
        """Returns the cross entropy summed over labelled tokens."""
        logits, labels = outputs[0].flatten(0, 1), targets["labels"].flatten()
        return functional.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")

    def distill(self, outputs: Outputs, targets: Targets, temperature: float) -> Tensor:
        """Returns the divergence summed over labelled tokens; teacher: logits [B, S, labels]."""
        labelled = targets["labels"] != IGNORE
        teacher = targets[TEACHER + "logits"][labelled]
        return _divergence(outputs[0][labelled], teacher, temperature)


class AnswerHead(Head):
    """Extractive question answering: start and end logits, [B, S] each; targets: start, end [B].

    The target `mask` [B, S] marks real tokens. Padding gets no probability, so that a row's loss
    does not depend on the length of other rows in the batch.
    """

    def __init__(self, spec: TaskSpec, hidden_size: int, dropout: float) -> None:
        super().__init__(hidden_size, 2, dropout)

    def forward(self, hidden: Tensor) -> Outputs:
        """Returns (start logits [B, S], end logits [B, S])."""
        start, end = self.linear(self.dropout(hidden)).unbind(dim=-1)
        return start, end

    def units(self, targets: Targets) -> Tensor:
        """Returns the number of rows."""
        return (targets["start"] != IGNORE).sum()

    def loss(self, outputs: Outputs, targets: Targets) -> Tensor:
        """Returns the mean of start and end cross entropy, summed over rows."""
        start, end = (_masked(logits, targets) for logits in outputs)
        first = functional.cross_entropy(start, targets["start"], reduction="sum")
        return (first + functional.cross_entropy(end, targets["end"], reduction="sum")) / 2

    def distill(self, outputs: Outputs, targets: Targets, temperature: float) -> Tensor:
        """Returns the mean divergence of start and end, summed over rows; teacher: [B, S] each."""
        teachers = (targets[TEACHER + name] for name in ("start_logits", "end_logits"))
        parts = [
            _divergence(_masked(logits, targets), _masked(teacher, targets), temperature)
            for logits, teacher in zip(outputs, teachers, strict=True)
        ]
        return (parts[0] + parts[1]) / 2


class TextHead(Head):
    """Text classification from the row's first token: logits [B, labels].

    Targets: label [B], or labels [B, labels] of 0 and 1 if multi-label.
    """

    def __init__(self, spec: TaskSpec, hidden_size: int, dropout: float) -> None:
        super().__init__(hidden_size, len(spec.labels), dropout)
        assert isinstance(spec.options, TextOptions)
        self._multi_label = spec.options.multi_label

    def forward(self, hidden: Tensor) -> Outputs:
        """Returns (logits [B, labels],)."""
        return (self.linear(self.dropout(hidden[:, 0])),)

    def units(self, targets: Targets) -> Tensor:
        """Returns the number of labelled rows."""
        return self._labelled(targets).sum()

    def loss(self, outputs: Outputs, targets: Targets) -> Tensor:
        """Returns the cross entropy summed over rows; if multi-label, the mean over labels."""
        (logits,) = outputs
        if not self._multi_label:
            return functional.cross_entropy(
                logits, targets["label"], ignore_index=IGNORE, reduction="sum"
            )
        rows = self._labelled(targets)
        wanted = targets["labels"][rows].to(logits.dtype)
        losses = functional.binary_cross_entropy_with_logits(logits[rows], wanted, reduction="none")
        return losses.mean(dim=1).sum()

    def distill(self, outputs: Outputs, targets: Targets, temperature: float) -> Tensor:
        """Returns the divergence summed over labelled rows; teacher: logits [B, labels]."""
        rows = self._labelled(targets)
        logits, teacher = outputs[0][rows], targets[TEACHER + "logits"][rows]
        if not self._multi_label:
            return _divergence(logits, teacher, temperature)
        wanted = torch.sigmoid(teacher / temperature)
        losses = functional.binary_cross_entropy_with_logits(
            logits / temperature, wanted, reduction="none"
        )
        return losses.mean(dim=1).sum() * temperature**2

    def _labelled(self, targets: Targets) -> Tensor:
        if self._multi_label:
            return targets["labels"][:, 0] != IGNORE
        return targets["label"] != IGNORE


def _masked(logits: Tensor, targets: Targets) -> Tensor:
    """Masks the logits of padding with a finite minimum, since -inf would give 0 times inf."""
    return logits.masked_fill(targets[MASK] == 0, torch.finfo(logits.dtype).min)


def _divergence(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Returns KL(teacher, student) summed over all but the last axis, times temperature squared."""
    student = functional.log_softmax(logits / temperature, dim=-1)
    wanted = functional.log_softmax(teacher / temperature, dim=-1)
    divergence = functional.kl_div(student, wanted, reduction="sum", log_target=True)
    return divergence * temperature**2


HEADS: dict[str, type[TokenHead] | type[AnswerHead] | type[TextHead]] = {
    "token-classification": TokenHead,
    "question-answering": AnswerHead,
    "text-classification": TextHead,
}
