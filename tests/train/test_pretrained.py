from pathlib import Path

import pytest
import torch
from transformers import RobertaConfig

from tests.small import POSITIONS, Corpus, bert, save_encoder, wordpiece
from trunkline.errors import ConfigError
from trunkline_train.config import RowsConfig
from trunkline_train.model.pretrained import (
    encoder_from_config,
    load_pretrained,
    longest_row,
    text_encoder,
)


def test_a_local_folder_loads_as_it_was_saved(corpus: Corpus) -> None:
    found = load_pretrained(str(corpus.encoder))
    assert found.pad_id == 0
    assert found.tokenizer.encode("Ada Brown").tokens == ["[CLS]", "Ada", "Brown", "[SEP]"]
    before, after = bert().state_dict(), found.encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_attention_dropout_is_set_on_request(corpus: Corpus) -> None:
    kept = load_pretrained(str(corpus.encoder)).encoder.config
    changed = load_pretrained(str(corpus.encoder), 0.0).encoder.config
    assert (kept.attention_probs_dropout_prob, changed.attention_probs_dropout_prob) == (0.1, 0.0)
    assert changed.hidden_dropout_prob == kept.hidden_dropout_prob


def test_half_precision_weights_are_trained_and_run_in_full(tmp_path: Path) -> None:
    save_encoder(tmp_path, bert().half(), wordpiece())
    for encoder in (load_pretrained(str(tmp_path)).encoder, encoder_from_config(str(tmp_path))):
        assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["no/such-encoder", "/nowhere/at/all"])
def test_an_encoder_that_is_not_there_is_one_line(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        load_pretrained(name)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_that_lacks_a_file_is_one_line(tmp_path: Path, name: str) -> None:
    save_encoder(tmp_path, bert(), wordpiece())
    (tmp_path / name).unlink()
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        load_pretrained(str(tmp_path))
    assert len(str(caught.value).splitlines()) == 1


def test_rows_over_the_positions_are_refused(corpus: Corpus) -> None:
    pretrained = load_pretrained(str(corpus.encoder))
    assert text_encoder(pretrained, RowsConfig(POSITIONS, 8)).max_length == POSITIONS
    with pytest.raises(ConfigError, match=r"rows.max_length: 65 is over the encoder's 64 tokens"):
        text_encoder(pretrained, RowsConfig(POSITIONS + 1, 8))


@pytest.mark.parametrize("rows", [RowsConfig(32, 16), RowsConfig(4, 0), RowsConfig(32, -1)])
def test_rows_without_room_are_refused(corpus: Corpus, rows: RowsConfig) -> None:
    with pytest.raises(ConfigError, match=r"^rows: "):
        text_encoder(load_pretrained(str(corpus.encoder)), rows)


def test_positions_of_roberta_begin_after_padding() -> None:
    config = RobertaConfig(max_position_embeddings=514)
    assert longest_row(config, pad_id=1) == 512
