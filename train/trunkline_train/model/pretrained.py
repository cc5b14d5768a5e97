"""Loads a pretrained encoder and its tokenizer, from the Hugging Face hub or a local folder."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel, AutoTokenizer, PretrainedConfig, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from trunkline.encode import TextEncoder
from trunkline.errors import ConfigError
from trunkline_train.config import RowsConfig

# Architectures name the setting differently.
_ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout")


@dataclass(frozen=True)
class Pretrained:
    """An encoder with its tokenizer.

    Attributes:
        encoder: The pretrained weights.
        tokenizer: The `tokenizers` object.
        pad_id: Vocabulary id of padding.
    """

    encoder: PreTrainedModel
    tokenizer: Tokenizer
    pad_id: int


def load_pretrained(name: str, attention_dropout: float | None = None) -> Pretrained:
    """Loads a model by its name on the hub, or from a local folder.

    Args:
        name: Of the model.
        attention_dropout: Replaces the pretrained setting, unless None.

    Raises:
        ConfigError: It cannot be loaded, or has no fast tokenizer.
    """
    if not sys.stderr.isatty():
        disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        config = AutoConfig.from_pretrained(name)
        for key in _ATTENTION_DROPOUT if attention_dropout is not None else ():
            if hasattr(config, key):
                setattr(config, key, attention_dropout)
        # Some weights are stored in half precision: they are trained, and run, in full.
        encoder = AutoModel.from_pretrained(name, config=config).float()
    except Exception as error:  # the hub client raises anything from OSError to ValueError
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"encoder {name!r} cannot be loaded: {reason}; "
            "give a name on the Hugging Face hub or a folder with config.json and weights"
        ) from None
    if not getattr(tokenizer, "is_fast", False) or tokenizer.pad_token_id is None:
        raise ConfigError(f"encoder {name!r} has no fast tokenizer with padding, which rows need")
    return Pretrained(encoder, tokenizer.backend_tokenizer, tokenizer.pad_token_id)


def text_encoder(pretrained: Pretrained, rows: RowsConfig) -> TextEncoder:
    """Returns the encoder of texts; refuses rows longer than the model's positions.

    Raises:
        ConfigError: The rows do not fit the model.
    """
    most = longest_row(pretrained.encoder.config, pretrained.pad_id)
    if rows.max_length > most:
        raise ConfigError(f"rows.max_length: {rows.max_length} is over the encoder's {most} tokens")
    try:
        return TextEncoder(pretrained.tokenizer, rows.max_length, rows.overlap)
    except ValueError as error:
        raise ConfigError(f"rows: {error}") from None


def longest_row(config: PretrainedConfig, pad_id: int) -> int:
    """Returns the most tokens a row may have.

    RoBERTa and its kin number positions from pad_id + 1 on.
    """
    most = int(getattr(config, "max_position_embeddings", 0) or 512)
    shifted = config.model_type in {"roberta", "xlm-roberta", "camembert"}
    return most - pad_id - 1 if shifted else most


def encoder_from_config(folder: str) -> PreTrainedModel:
    """Returns an encoder with random weights, of the architecture in a folder's config.json."""
    model: PreTrainedModel = AutoModel.from_config(AutoConfig.from_pretrained(folder))
    return model.float()
