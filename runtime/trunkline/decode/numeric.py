"""Softmax, sigmoid and the gathering of windows, shared by all decoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from trunkline.encode import Row
from trunkline.errors import RuntimeFault

Floats = NDArray[np.float32]
F = TypeVar("F", np.float32, np.float64)
_LEAST = np.finfo(np.float32).smallest_normal


def log_softmax(logits: Floats) -> Floats:
    """Returns log probabilities over the last axis, shifted by its maximum against overflow."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    scores: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return scores


def log_sigmoid(logits: Floats) -> Floats:
    """Returns log probabilities of independent yes-or-no decisions, safe against overflow."""
    scores: Floats = -np.logaddexp(0, -logits)
    return scores


def exp(logs: NDArray[F]) -> NDArray[F]:
    """Returns e to the power of log probabilities; what fp32 holds in fewer digits counts as 0.

    Threads differ in whether they keep such numbers: those that onnxruntime computes on do not.
    The same text must get the same scores on all of them.
    """
    found: NDArray[F] = np.exp(logs)
    found[found < _LEAST] = 0
    return found


def check_finite(name: str, values: Sequence[Floats]) -> None:
    """Raises RuntimeFault if a tensor holds NaN or infinity, which would decode to nonsense."""
    if not all(np.isfinite(value).all() for value in values):
        raise RuntimeFault(f"{name}: the model gave NaN or infinite logits")


def owned(rows: Sequence[Row], values: Sequence[Floats]) -> Floats:
    """Joins per-row values [S, ...] into one per document token [N, ...].

    Each token takes its value from the window where it has most context.
    """
    return np.concatenate([value[row.owned] for row, value in zip(rows, values, strict=True)])
