"""Loads a pretrained encoder and its tokenizer from the hub, a local folder or a trained model."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel, AutoTokenizer, PretrainedConfig, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from trunkline.coverage import Uncovered
from trunkline.encode import TextEncoder
from trunkline.errors import ConfigError
from trunkline_train.checkpoint import load_checkpoint
from trunkline_train.model.architectures import check_config, check_encoder
from trunkline_train.model.encoder import ready
from trunkline_train.model.layers import freeze, keep_layers
from trunkline_train.paths import is_path, split_revision
from trunkline_train.settings import ModelConfig, RowsConfig

# Names of the dropout settings in different architectures.
_DROPOUTS = {
    "hidden_dropout": ("hidden_dropout_prob", "dropout", "embedding_dropout", "mlp_dropout"),
    "attention_dropout": ("attention_probs_dropout_prob", "attention_dropout"),
}
# Architectures that number positions from pad_id + 1 on.
_SHIFTED = {
    "camembert",
    "data2vec-text",
    "esm",
    "ibert",
    "longformer",
    "luke",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}
_TRAINED = ("checkpoint.json", "best/checkpoint.json")  # in a checkpoint, in a run


@dataclass(frozen=True)
class Pretrained:
    """An encoder with its tokenizer.

    Attributes:
        encoder: The pretrained weights.
        tokenizer: The `tokenizers` object.
        pad_id: Vocabulary id of padding.
        commit: Commit of the repository on the hub; empty for other sources.
    """

    encoder: PreTrainedModel
    tokenizer: Tokenizer
    pad_id: int
    commit: str = ""


def load_pretrained(name: str, model: ModelConfig | None = None, commit: str = "") -> Pretrained:
    """Loads an encoder, drops layers and freezes parts of it as configured.

    Args:
        name: NAME or NAME@REVISION of a model on the hub, a local folder, or a Trunkline run or
            checkpoint, whose encoder and tokenizer are used.
        model: Changes to the encoder; None for none.
        commit: Commit of a model on the hub; overrides its branch or tag.

    Raises:
        ConfigError: The encoder cannot be loaded, has no fast tokenizer, or lacks a setting.
        CheckpointError: The run or checkpoint is broken.
    """
    if not sys.stderr.isatty():
        disable_progress_bar()
    model = model or ModelConfig()
    if any((Path(name) / file).exists() for file in _TRAINED):
        found = _from_run(Path(name), model)
    elif Path(name).exists():
        found = _from_files(name, name, model, {})
    else:
        found = _from_hub(name, model, commit)
    if model.layers is not None:
        keep_layers(found.encoder, model.layers)
    freeze(found.encoder, model)
    return found


def _from_hub(name: str, model: ModelConfig, commit: str) -> Pretrained:
    if is_path(name):
        mend = "give a folder that is, or a name on the Hugging Face hub"
        raise ConfigError(f"encoder {name!r}: there is no such file or folder; {mend}")
    repository, revision = split_revision(name)
    with _one_line(name):
        # The cache folder of a file is named by the commit, even offline.
        file = _config_file(repository, commit or revision)
    commit = Path(file).parent.name
    found = _from_files(repository, name, model, {"revision": commit})
    return replace(found, commit=commit)


def _config_file(repository: str, revision: str | None) -> str:
    try:
        return hf_hub_download(repository, "config.json", revision=revision)
    except RevisionNotFoundError:  # its own first line is "404 Client Error."
        raise ValueError(f"{repository} has no revision {revision!r}") from None
    except RepositoryNotFoundError:
        raise ValueError(f"the hub has no {repository}, or it is not for all to see") from None


def _from_files(place: str, name: str, model: ModelConfig, at: Mapping[str, str]) -> Pretrained:
    with _one_line(name):
        config = AutoConfig.from_pretrained(place, **at)
    check_config(config, name)
    _set_dropouts(config, model)
    with _one_line(name):
        tokenizer = AutoTokenizer.from_pretrained(place, **at)
        encoder = ready(AutoModel.from_pretrained(place, config=config, **at))
    check_encoder(encoder, name)
    if not getattr(tokenizer, "is_fast", False) or tokenizer.pad_token_id is None:
        raise ConfigError(f"encoder {name!r} has no fast tokenizer with padding, which rows need")
    return Pretrained(encoder, tokenizer.backend_tokenizer, tokenizer.pad_token_id)


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    """Converts any error of the hub client or transformers to a one-line ConfigError."""
    try:
        yield
    except Exception as error:  # anything from OSError to ValueError
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"encoder {name!r} cannot be loaded: {reason}; "
            "give a folder with config.json and weights, or NAME or NAME@REVISION on the hub"
        ) from None


def _from_run(folder: Path, model: ModelConfig) -> Pretrained:
    checkpoint = load_checkpoint(folder)
    source = checkpoint.model.encoder
    config = copy.deepcopy(source.config)
    _set_dropouts(config, model)
    # Built anew because modules read their dropout at construction. Checkpoints have no poolers.
    encoder = ready(AutoModel.from_config(config))
    encoder.load_state_dict(source.state_dict(), strict=False)
    tokenizer = Tokenizer.from_str(checkpoint.encoder.to_json())
    return Pretrained(encoder, tokenizer, checkpoint.pad_id)


def _set_dropouts(config: PretrainedConfig, model: ModelConfig) -> None:
    for setting, keys in _DROPOUTS.items():
        value = getattr(model, setting)
        known = [key for key in keys if hasattr(config, key)]
        if value is not None and not known:
            kind = config.model_type
            raise ConfigError(f"model.{setting}: an encoder of type {kind!r} has none to set")
        for key in known if value is not None else ():
            setattr(config, key, value)


def text_encoder(pretrained: Pretrained, rows: RowsConfig) -> TextEncoder:
    """Creates the text encoder.

    Raises:
        ConfigError: The rows are too long for the model, or its tokenizer drops characters.
    """
    most = longest_row(pretrained.encoder.config, pretrained.pad_id)
    if rows.max_length > most:
        raise ConfigError(f"rows.max_length: {rows.max_length} is over the encoder's {most} tokens")
    try:
        return TextEncoder(pretrained.tokenizer, rows.max_length, rows.overlap)
    except Uncovered as error:
        raise ConfigError(f"encoder: {error}") from None
    except ValueError as error:
        raise ConfigError(f"rows: {error}") from None


def longest_row(config: PretrainedConfig, pad_id: int) -> int:
    """Returns the maximum number of tokens in a row.

    RoBERTa and related models number positions from pad_id + 1 on.
    """
    most = int(getattr(config, "max_position_embeddings", 0) or 512)
    return most - pad_id - 1 if config.model_type in _SHIFTED else most
