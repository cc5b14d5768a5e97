"""Checks that an architecture can be the shared encoder: bidirectional, with text input only."""

from __future__ import annotations

import inspect

from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from trunkline.errors import ConfigError

_MEND = "give an encoder, e.g. of type bert, roberta, distilbert, deberta-v2 or modernbert"
_INPUTS = ("input_ids", "attention_mask")
_SIZES = ("hidden_size", "num_hidden_layers")


def check_config(config: PretrainedConfig, name: str) -> None:
    """Rejects architectures that generate text, before their weights are loaded.

    Args:
        config: Configuration of the architecture.
        name: Name of the encoder as configured.

    Raises:
        ConfigError: The architecture is not encoder-only.
    """
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise ConfigError(f"encoder {name!r}: {kind!r} is an encoder with a decoder; {_MEND}")
    if getattr(config, "is_decoder", False):
        raise ConfigError(
            f"encoder {name!r} is set up as a decoder; set is_decoder to false in its config.json"
        )
    # Encoders such as BERT are in both lists.
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        raise ConfigError(
            f"encoder {name!r}: {kind!r} is a decoder, made to go on with a text and not to read "
            f"it whole; {_MEND}"
        )


def check_encoder(encoder: PreTrainedModel, name: str) -> None:
    """Rejects encoders without an attention mask, or with input other than text.

    Raises:
        ConfigError: The encoder lacks an input or a size.
    """
    kind, taken = encoder.config.model_type, inspect.signature(encoder.forward).parameters
    lacks = [f"input {part}" for part in _INPUTS if part not in taken]
    lacks += [part for part in _SIZES if not isinstance(getattr(encoder.config, part, None), int)]
    if lacks:
        raise ConfigError(f"encoder {name!r}: {kind!r} has no {lacks[0]}, which rows need; {_MEND}")
