"""Prepares transformers' encoders for training."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, PreTrainedModel

from trunkline_train.model.attention import install_attention
from trunkline_train.model.dropout import quicken_dropout


def encoder_from_config(folder: str) -> PreTrainedModel:
    """Creates an encoder with random weights from a folder's config.json."""
    return ready(AutoModel.from_config(AutoConfig.from_pretrained(folder)))


def ready(encoder: PreTrainedModel) -> PreTrainedModel:
    """Converts an encoder to fp32, and installs fast attention and dropout for training."""
    install_attention(encoder)
    quicken_dropout(encoder)
    encoder.float()
    return encoder
