"""Encoders as transformers has them, made ready for training."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, PreTrainedModel

from trunkline_train.model.attention import install_attention
from trunkline_train.model.dropout import quicken_dropout


def encoder_from_config(folder: str) -> PreTrainedModel:
    """Returns an encoder with random weights, of the architecture in a folder's config.json."""
    return ready(AutoModel.from_config(AutoConfig.from_pretrained(folder)))


def ready(encoder: PreTrainedModel) -> PreTrainedModel:
    """Returns the encoder in fp32, with attention and dropout that are quick in training."""
    install_attention(encoder)
    quicken_dropout(encoder)
    encoder.float()
    return encoder
