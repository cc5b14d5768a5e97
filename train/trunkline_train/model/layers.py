"""Drops, freezes and recomputes layers of an encoder of any architecture."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from trunkline.errors import ConfigError
from trunkline_train.settings import ModelConfig


def find_layers(encoder: PreTrainedModel, setting: str) -> tuple[str, nn.ModuleList]:
    """Returns the name and the list of an encoder's layers, lowest first.

    Args:
        encoder: Any encoder that keeps its layers in one list.
        setting: Key of the configuration that needs them, for the error.

    Raises:
        ConfigError: The encoder has no such list, e.g. because its layers share their weights.
    """
    count = encoder.config.num_hidden_layers
    for name, module in encoder.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    kind = encoder.config.model_type
    raise ConfigError(f"{setting}: an encoder of type {kind!r} has no list of layers; leave it out")


def is_embedding(name: str) -> bool:
    """Returns whether the name of an encoder's parameter is that of an embedding."""
    return name.startswith(("embeddings", "word_embedding"))


def keep_layers(encoder: PreTrainedModel, count: int) -> None:
    """Drops layers, keeping `count` evenly spaced ones including the last.

    Raises:
        ConfigError: There are fewer layers, or they differ in more than their weights.
    """
    _, layers = find_layers(encoder, "model.layers")
    total = len(layers)
    if count > total:
        raise ConfigError(f"model.layers: {count} is over the encoder's {total} layers")
    if count == total:
        return
    _check_alike(encoder, layers)
    kept = {(place + 1) * total // count - 1 for place in range(count)}
    for index in reversed(range(total)):
        if index not in kept:
            del layers[index]
    encoder.config.num_hidden_layers = count


def _check_alike(encoder: PreTrainedModel, layers: nn.ModuleList) -> None:
    """Checks that layers do not depend on position: config.json cannot say which were kept."""
    shapes = [{name: part.shape for name, part in layer.state_dict().items()} for layer in layers]
    typed = getattr(encoder.config, "layer_types", None) is not None
    if typed or any(shape != shapes[0] for shape in shapes):
        kind = encoder.config.model_type
        raise ConfigError(f"model.layers: the layers of {kind!r} are not all alike; leave it out")


def freeze(encoder: PreTrainedModel, model: ModelConfig) -> None:
    """Freezes the embeddings and lowest layers as configured.

    Raises:
        ConfigError: There are fewer layers.
    """
    if model.freeze_embeddings:
        for name, parameter in encoder.named_parameters():
            if is_embedding(name):
                parameter.requires_grad_(False)
    if model.freeze_layers:
        _, layers = find_layers(encoder, "model.freeze_layers")
        if model.freeze_layers > len(layers):
            raise ConfigError(
                f"model.freeze_layers: {model.freeze_layers} is over the encoder's "
                f"{len(layers)} layers"
            )
        for layer in layers[: model.freeze_layers]:
            layer.requires_grad_(False)


def recompute_activations(encoder: PreTrainedModel) -> None:
    """Makes an encoder recompute activations in the backward pass instead of storing them.

    Raises:
        ConfigError: The architecture does not support it.
    """
    if not encoder.supports_gradient_checkpointing:
        kind = encoder.config.model_type
        raise ConfigError(f"training.gradient_checkpointing: {kind!r} cannot; leave it out")
    # transformers 5 renamed it. Torch's reentrant mode needs inputs that require a gradient, which
    # token ids do not.
    new = "activation_checkpointing_enable"
    enable = getattr(encoder, new, encoder.gradient_checkpointing_enable)
    enable({"use_reentrant": False})
