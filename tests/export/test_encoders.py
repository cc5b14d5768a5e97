"""Encoders of other families: what they take, and how long their rows may be."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
)

import trunkline
from tests.export.shapes import DEBERTA_V3, MODERNBERT
from tests.small import Corpus, save_encoder, sentences, wordpiece
from trunkline.errors import ConfigError
from trunkline_export.write import ExportOptions, export_bundle
from trunkline_train.loop import train

LONGEST = 96
SIZES = {
    "vocab_size": wordpiece().get_vocab_size(),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": LONGEST,
    "pad_token_id": 0,
}
SHORT = ("training.epochs=1", "tasks.ner.limit.train=16", "tasks.qa.limit.train=16")


def distilbert() -> tuple[PreTrainedModel, Tokenizer]:
    config = DistilBertConfig(
        vocab_size=wordpiece().get_vocab_size(),
        dim=32,
        n_layers=1,
        n_heads=2,
        hidden_dim=64,
        max_position_embeddings=LONGEST,
    )
    return DistilBertModel(config), wordpiece()


def roberta() -> tuple[PreTrainedModel, Tokenizer]:
    tokenizer = bytelevel()
    config = RobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=LONGEST + 2,
        type_vocab_size=1,
    )
    return RobertaModel(config), tokenizer


def electra() -> tuple[PreTrainedModel, Tokenizer]:
    return ElectraModel(ElectraConfig(**SIZES, embedding_size=16)), wordpiece()


def deberta() -> tuple[PreTrainedModel, Tokenizer]:
    config = DebertaV2Config(
        **SIZES,
        **DEBERTA_V3,
    )
    return DebertaV2Model(config), wordpiece()


def modernbert() -> tuple[PreTrainedModel, Tokenizer]:
    config = ModernBertConfig(
        **SIZES,
        **MODERNBERT,
    )
    return ModernBertModel(config), wordpiece()


def bytelevel() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [" ".join(word for word, _ in sentence) for sentence in sentences(60, 1)]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


FAMILIES: dict[str, tuple[Callable[[], tuple[PreTrainedModel, Tokenizer]], list[str], int]] = {
    "distilbert": (distilbert, ["input_ids", "attention_mask"], 0),
    "roberta": (roberta, ["input_ids", "attention_mask", "token_type_ids"], 1),
    "electra": (electra, ["input_ids", "attention_mask", "token_type_ids"], 0),
    "deberta-v2": (deberta, ["input_ids", "attention_mask", "token_type_ids"], 0),
    "modernbert": (modernbert, ["input_ids", "attention_mask"], 0),
}
QUICK = ("distilbert", "roberta")  # graphs of the others are checked in test_families.py


@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAMILIES],
)
def test_family_trains_exports_and_answers(corpus: Corpus, tmp_path: Path, family: str) -> None:
    make, inputs, pad = FAMILIES[family]
    torch.manual_seed(0)
    save_encoder(tmp_path / "encoder", *make())
    given = (f"encoder={tmp_path / 'encoder'}", f"rows.max_length={LONGEST}")
    train(corpus.load(*SHORT, *given), tmp_path / "run")
    options = ExportOptions(gate=False)  # two steps teach it nothing
    bundle = export_bundle(tmp_path / "run", tmp_path / "bundle", options, lambda line: None)
    padded = next(graph for graph in bundle.manifest.graphs if graph.layout == "padded")
    assert [tensor.name for tensor in padded.inputs] == inputs
    assert bundle.manifest.encoder.model_type == family
    assert bundle.manifest.encoder.pad_id == pad
    model = trunkline.load(bundle.path, 1, allow_ungated=True)
    assert model.self_test() > 10
    text = "Ada Brown lives in Hamburg. " * 20
    result = model.analyze(text, ["Where does Ada Brown live?"])
    assert all(text[a.start : a.end] == a.text for a in result.questions[0].answers)
    with pytest.raises(ConfigError, match=f"{LONGEST + 1} is over the encoder's {LONGEST} tokens"):
        train(corpus.load(*given, f"rows.max_length={LONGEST + 1}"), tmp_path / "long")
