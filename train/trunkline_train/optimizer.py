"""Parameter groups and learning rates for AdamW, and the learning rate schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch.nn import Parameter

from trunkline_train.model.layers import find_layers, is_embedding
from trunkline_train.model.multitask import MultitaskModel
from trunkline_train.settings import TrainingConfig

# Default rates (docs/adr/0020): BERT-base's, higher for narrower encoders.
_BASE_RATE, _BASE_WIDTH, _MOST_RATE = 5e-5, 768, 5e-4
_HEAD_RATE = 1e-3


def parameter_groups(model: MultitaskModel, settings: TrainingConfig) -> list[dict[str, Any]]:
    """Returns AdamW's parameter groups of all parameters that require a gradient.

    Biases, norms and other vectors have no weight decay. Heads may have a rate of their own. With
    `layer_decay` below 1, the top layer learns at the encoder's rate, each lower layer at that
    share of the rate above, and embeddings slowest. The encoder's groups come first, fastest
    first. Each group also stores its peak rate as `peak`.

    Raises:
        ConfigError: `layer_decay` is set for an encoder without a list of layers.
    """
    groups: dict[tuple[bool, float, float], list[Parameter]] = {}
    for is_head, rate, parameter in _rated(model, settings):
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((is_head, rate, decay), []).append(parameter)
    order = sorted(groups, key=lambda group: (group[0], -group[1], -group[2]))
    return [
        {"params": groups[key], "lr": key[1], "peak": key[1], "weight_decay": key[2]}
        for key in order
    ]


def _rated(
    model: MultitaskModel, settings: TrainingConfig
) -> Iterator[tuple[bool, float, Parameter]]:
    """Yields (is in a head, rate, parameter) of each trained parameter, the encoder's first."""
    depth = _depths(model, settings.layer_decay)
    rate, head_rate = peak_rates(model, settings)
    for name, parameter in model.encoder.named_parameters():
        if parameter.requires_grad:
            yield False, rate * settings.layer_decay ** depth(name), parameter
    for parameter in model.heads.parameters():
        yield True, head_rate, parameter


def peak_rates(model: MultitaskModel, settings: TrainingConfig) -> tuple[float, float]:
    """Returns the peak learning rates of encoder and heads, as configured or by default."""
    width = model.encoder.config.hidden_size
    rate = settings.learning_rate or min(_BASE_RATE * (_BASE_WIDTH / width) ** 2, _MOST_RATE)
    return rate, settings.head_learning_rate or max(_HEAD_RATE, rate)


def _depths(model: MultitaskModel, layer_decay: float) -> Callable[[str], int]:
    """Returns a function from an encoder parameter's name to its depth below the top layer."""
    if layer_decay == 1.0:
        return lambda name: 0
    prefix, layers = find_layers(model.encoder, "training.layer_decay")
    total = len(layers)

    def depth(name: str) -> int:
        if is_embedding(name):
            return total
        if name.startswith(prefix + "."):
            return total - 1 - int(name[len(prefix) + 1 :].partition(".")[0])
        return 0

    return depth


def schedule(total: int, warmup: float) -> Callable[[int], float]:
    """Returns the rate's factor by step: it rises over the warm-up, then falls linearly to zero.

    Args:
        total: Steps of the run.
        warmup: Share of the steps with a rising rate.
    """
    rising = max(1, int(warmup * total))

    def factor(step: int) -> float:
        return min((step + 1) / rising, (total - step) / max(1, total - rising), 1.0)

    return factor
