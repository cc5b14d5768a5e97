from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from tokenizers import Regex, normalizers, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModel,
    BertConfig,
    FNetConfig,
    GPT2Config,
    MPNetConfig,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaTokenizerFast,
    T5Config,
)

from tests.small import POSITIONS, Corpus, bert, save_encoder, wordpiece
from trunkline.encode import TextEncoder
from trunkline.errors import ConfigError
from trunkline_train import pretrained
from trunkline_train.checkpoint import Checkpoint
from trunkline_train.model.dropout import quicken_dropout
from trunkline_train.model.encoder import encoder_from_config
from trunkline_train.model.layers import find_layers, freeze, keep_layers, recompute_activations
from trunkline_train.pretrained import (
    load_pretrained,
    longest_row,
    text_encoder,
)
from trunkline_train.settings import ModelConfig, RowsConfig

SIZES = {
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}

FNET = FNetConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, intermediate_size=16)


def small(kind: str, layers: int) -> PreTrainedModel:
    """Returns an untrained encoder of an architecture, always the same."""
    torch.manual_seed(0)
    names = {"distilbert": {"hidden_size": "dim", "num_attention_heads": "n_heads"}}.get(kind, {})
    sizes = {**SIZES, "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": layers}
    if kind == "distilbert":
        sizes["hidden_dim"] = sizes["intermediate_size"]
    config = AutoConfig.for_model(kind, **{names.get(key, key): v for key, v in sizes.items()})
    model: PreTrainedModel = AutoModel.from_config(config)
    return model


def test_a_local_folder_loads_as_it_was_saved(corpus: Corpus) -> None:
    found = load_pretrained(str(corpus.encoder))
    assert found.pad_id == 0
    assert found.tokenizer.encode("Ada Brown").tokens == ["[CLS]", "Ada", "Brown", "[SEP]"]
    before, after = bert().state_dict(), found.encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_dropouts_are_set_on_request(corpus: Corpus) -> None:
    kept = load_pretrained(str(corpus.encoder)).encoder.config
    changed = load_pretrained(str(corpus.encoder), ModelConfig(attention_dropout=0.0)).encoder
    assert (kept.attention_probs_dropout_prob, kept.hidden_dropout_prob) == (0.1, 0.1)
    assert changed.config.attention_probs_dropout_prob == 0.0
    assert changed.config.hidden_dropout_prob == 0.1
    changed = load_pretrained(str(corpus.encoder), ModelConfig(hidden_dropout=0.3)).encoder
    shares = {part.p for part in changed.modules() if isinstance(part, torch.nn.Dropout)}
    assert shares == {0.1, 0.3}


def test_dropouts_have_other_names_elsewhere(tmp_path: Path) -> None:
    save_encoder(tmp_path, small("distilbert", 2), wordpiece())
    wanted = ModelConfig(hidden_dropout=0.2, attention_dropout=0.0)
    config = load_pretrained(str(tmp_path), wanted).encoder.config
    assert (config.dropout, config.attention_dropout) == (0.2, 0.0)


def test_a_dropout_that_the_encoder_lacks_is_refused(tmp_path: Path) -> None:
    save_encoder(tmp_path, AutoModel.from_config(FNET), wordpiece())
    with pytest.raises(ConfigError, match=r"model.attention_dropout: .*'fnet' has none to set"):
        load_pretrained(str(tmp_path), ModelConfig(attention_dropout=0.0))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (T5Config(), "'t5' is an encoder with a decoder; give an encoder, e.g. of type bert"),
        (GPT2Config(), "'gpt2' is a decoder, made to go on with a text and not to read it whole"),
        (BertConfig(is_decoder=True), "is set up as a decoder; set is_decoder to false"),
    ],
    ids=["encoder-decoder", "decoder", "encoder as decoder"],
)
def test_what_generates_text_is_refused(
    tmp_path: Path, config: PretrainedConfig, told: str
) -> None:
    config.save_pretrained(tmp_path)  # refused before tokenizer and weights are looked for
    with pytest.raises(ConfigError, match=f"^encoder '{tmp_path}'.*{told}") as caught:
        load_pretrained(str(tmp_path))
    assert len(str(caught.value).splitlines()) == 1


def test_an_encoder_that_cannot_tell_padding_is_refused(tmp_path: Path) -> None:
    save_encoder(tmp_path, AutoModel.from_config(FNET), wordpiece())
    with pytest.raises(ConfigError, match="'fnet' has no input attention_mask, which rows need"):
        load_pretrained(str(tmp_path))


KINDS = ("bert", "roberta", "electra", "distilbert", "deberta-v2")


@pytest.mark.parametrize("kind", KINDS)
def test_evenly_spaced_layers_stay(tmp_path: Path, kind: str) -> None:
    whole = small(kind, 6)
    save_encoder(tmp_path / "whole", whole, wordpiece())
    cut = load_pretrained(str(tmp_path / "whole"), ModelConfig(layers=3)).encoder
    name, layers = find_layers(cut, "model.layers")
    before = whole.get_submodule(name)
    for kept, index in zip(layers, (1, 3, 5), strict=True):
        for one, other in zip(kept.parameters(), before[index].parameters(), strict=True):
            assert torch.equal(one, other)
    save_encoder(tmp_path / "cut", cut, wordpiece())
    again = encoder_from_config(str(tmp_path / "cut"))
    assert again.config.num_hidden_layers == 3
    again.load_state_dict(cut.state_dict())
    ids = torch.arange(4, 14)[None]
    with torch.no_grad():
        assert torch.equal(again.eval()(ids)[0], cut.eval()(ids)[0])


@pytest.mark.parametrize(
    ("total", "count", "kept"), [(12, 4, [2, 5, 8, 11]), (6, 4, [0, 2, 3, 5]), (6, 1, [5])]
)
def test_the_last_layer_is_among_them(total: int, count: int, kept: list[int]) -> None:
    encoder = small("bert", total)
    before = list(encoder.encoder.layer)
    keep_layers(encoder, count)
    assert [before.index(layer) for layer in encoder.encoder.layer] == kept


def test_more_layers_than_there_are_are_refused(corpus: Corpus) -> None:
    with pytest.raises(ConfigError, match=r"^model.layers: 3 is over the encoder's 2 layers$"):
        load_pretrained(str(corpus.encoder), ModelConfig(layers=3))
    with pytest.raises(ConfigError, match=r"^model.freeze_layers: 3 is over .* 2 layers$"):
        load_pretrained(str(corpus.encoder), ModelConfig(freeze_layers=3))


def test_layers_that_share_weights_or_differ_cannot_be_dropped() -> None:
    with pytest.raises(ConfigError, match="'albert' has no list of layers"):
        keep_layers(small("albert", 4), 2)
    with pytest.raises(ConfigError, match="layers of 'modernbert' are not all alike"):
        keep_layers(small("modernbert", 4), 2)


@pytest.mark.parametrize("kind", [*KINDS, "modernbert"])
def test_frozen_parts_need_no_gradient(kind: str) -> None:
    encoder = small(kind, 3)
    freeze(encoder, ModelConfig(freeze_embeddings=True, freeze_layers=2))
    name, _ = find_layers(encoder, "")
    trained = [key for key, value in encoder.named_parameters() if value.requires_grad]
    assert any(key.startswith(f"{name}.2.") for key in trained)
    assert not any(key.startswith(("embeddings", f"{name}.0.", f"{name}.1.")) for key in trained)
    assert not encoder.get_input_embeddings().weight.requires_grad


def test_an_encoder_that_cannot_recompute_is_refused() -> None:
    encoder = small("bert", 1)
    encoder.supports_gradient_checkpointing = False
    with pytest.raises(ConfigError, match=r"^training.gradient_checkpointing: 'bert' cannot"):
        recompute_activations(encoder)


def test_a_trained_run_can_be_the_encoder(trained: Path, checkpoint: Checkpoint) -> None:
    for folder in (trained, trained / "best"):
        found = load_pretrained(str(folder), ModelConfig(layers=1, hidden_dropout=0.3))
        source = checkpoint.model.encoder
        assert found.pad_id == checkpoint.pad_id
        assert found.tokenizer.get_vocab() == wordpiece().get_vocab()
        assert torch.equal(
            found.encoder.embeddings.word_embeddings.weight,
            source.embeddings.word_embeddings.weight,
        )
        (layer,) = found.encoder.encoder.layer
        for one, other in zip(
            layer.parameters(), source.encoder.layer[1].parameters(), strict=True
        ):
            assert torch.equal(one, other)
        assert layer.output.dropout.p == 0.3
    assert len(source.encoder.layer) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_checkpointing_gives_the_same_gradients(kind: str) -> None:
    found = []
    for recompute in (False, True):
        encoder = small(kind, 2).train()
        quicken_dropout(encoder)
        if recompute:
            recompute_activations(encoder)
        keys = set(encoder.state_dict())
        torch.manual_seed(1)
        encoder(torch.arange(4, 34).view(3, 10))[0].square().sum().backward()
        assert set(encoder.state_dict()) == keys
        found.append([p.grad for p in encoder.parameters() if p.grad is not None])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_half_precision_weights_are_trained_and_run_in_full(tmp_path: Path) -> None:
    save_encoder(tmp_path, bert().half(), wordpiece())
    for encoder in (load_pretrained(str(tmp_path)).encoder, encoder_from_config(str(tmp_path))):
        assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


def test_an_encoder_that_is_not_there_is_one_line() -> None:
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        load_pretrained("no/such-encoder")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./encoder", "models/mine/encoder"])
def test_a_path_that_is_not_there_is_refused_without_asking_the_hub(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(pretrained, "hf_hub_download", None)
    with pytest.raises(ConfigError, match=f"^encoder '{name}': there is no such file or folder"):
        load_pretrained(name)


COMMITS = {"main": "1" * 40, "v1": "2" * 40}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, with a model of two layers that once had one."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--acme--small"
    for layers, (revision, commit) in zip((2, 1), COMMITS.items(), strict=True):
        save_encoder(repository / "snapshots" / commit, small("bert", layers), wordpiece())
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / revision).write_text(commit)
    return repository


@pytest.mark.parametrize(
    ("name", "commit", "layers"),
    [
        ("acme/small", COMMITS["main"], 2),
        ("acme/small@main", COMMITS["main"], 2),
        ("acme/small@v1", COMMITS["v1"], 1),
        (f"acme/small@{COMMITS['v1']}", COMMITS["v1"], 1),
    ],
)
@pytest.mark.usefixtures("hub")
def test_an_encoder_of_the_hub_is_taken_at_a_revision(name: str, commit: str, layers: int) -> None:
    found = load_pretrained(name)
    assert (found.commit, found.encoder.config.num_hidden_layers) == (commit, layers)


@pytest.mark.usefixtures("hub")
def test_a_revision_that_is_not_there_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^encoder 'acme/small@v9' cannot be loaded") as caught:
        load_pretrained("acme/small@v9")
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
    for config in (RobertaConfig, MPNetConfig):
        assert longest_row(config(max_position_embeddings=514), pad_id=1) == 512


def test_an_added_token_leaves_a_comma_behind_it_to_roberta() -> None:
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *pre_tokenizers.ByteLevel.alphabet()]
    vocabulary = {piece: at for at, piece in enumerate([*pieces, "Ġ,"])}
    tokenizer = RobertaTokenizerFast(vocab=vocabulary, merges=[("Ġ", ",")], add_prefix_space=True)
    tokenizer.add_tokens(["COVID-19"])
    tokens = TextEncoder(tokenizer.backend_tokenizer, 64, 8).tokenize("in COVID-19, A city")
    bounds = zip(tokens.words.starts, tokens.words.ends, strict=True)
    assert [tokens.text[a:b] for a, b in bounds] == ["in", "COVID-19", ",", "A", "city"]


def test_an_encoder_whose_tokenizer_leaves_characters_out_is_refused(tmp_path: Path) -> None:
    tokenizer = wordpiece()
    tokenizer.normalizer = normalizers.Replace(Regex(r"\d"), "")
    save_encoder(tmp_path, bert(), tokenizer)
    with pytest.raises(ConfigError, match=r"^encoder: the tokenizer leaves out '1' of 'In 1984,"):
        text_encoder(load_pretrained(str(tmp_path)), RowsConfig(32, 8))
