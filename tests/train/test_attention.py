import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
)

from trunkline_train.hardware import use_bf16
from trunkline_train.model.attention import install_attention

SIZES = {"vocab_size": 50, "max_position_embeddings": 40}
BERT = {**SIZES, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
BERT |= {"intermediate_size": 48, "attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0}
DISTIL = {**SIZES, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, "dropout": 0.0}
DISTIL |= {"attention_dropout": 0.0}
MODELS = {
    "bert": lambda: BertModel(BertConfig(**BERT)),
    "roberta": lambda: RobertaModel(RobertaConfig(**BERT)),
    "distilbert": lambda: DistilBertModel(DistilBertConfig(**DISTIL)),
}


def encoder(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = MODELS[kind]().train()
    return model


def run(model: PreTrainedModel, *, bf16: bool = False) -> Tensor:
    ids = torch.arange(2, 2 + 24).view(2, 12)
    mask = torch.ones_like(ids)
    mask[0, 7:] = 0
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        hidden: Tensor = model(input_ids=ids, attention_mask=mask)[0]
    return hidden.float()[mask.bool()]


@pytest.mark.parametrize("kind", MODELS)
def test_without_autocast_nothing_changes(kind: str) -> None:
    model = encoder(kind)
    before = run(model)
    install_attention(model)
    assert torch.equal(run(model), before)


@pytest.mark.parametrize("kind", MODELS)
def test_padding_is_still_masked(kind: str) -> None:
    model = encoder(kind)
    install_attention(model)
    ids = torch.arange(2, 9)[None]
    alone = model(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
    for bf16, within in ((False, 1e-5), (True, 0.06)):
        assert torch.allclose(run(model, bf16=bf16)[:7], alone[0], atol=within)


def test_under_autocast_attention_is_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    fused = torch.nn.functional.scaled_dot_product_attention

    def watch(query: Tensor, *others: object, **options: object) -> Tensor:
        taken.append(query.dtype)
        return fused(query, *others, **options)

    model = encoder("bert")
    install_attention(model)
    if model.config._attn_implementation == "sdpa":
        pytest.skip("this transformers takes no attention functions for BERT")
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watch)
    run(model, bf16=True).square().sum().backward()
    assert taken == [torch.float32] * 2
    grads = [parameter.grad for parameter in model.encoder.parameters()]
    assert all(grad is not None and grad.isfinite().all() for grad in grads)


def test_the_function_is_not_written_to_the_configuration(tmp_path: Path) -> None:
    model = encoder("bert")
    plain = model.config.to_dict()
    install_attention(model)
    assert model.config.to_dict() == plain
    model.save_pretrained(tmp_path)
    assert "trunkline" not in (tmp_path / "config.json").read_text()
    assert "attn_implementation" not in json.loads((tmp_path / "config.json").read_text())
    assert AutoModel.from_pretrained(tmp_path).config._attn_implementation == "sdpa"


def test_an_encoder_without_fused_attention_keeps_its_own() -> None:
    small = {key: value for key, value in BERT.items() if "dropout" not in key}
    model = DebertaV2Model(DebertaV2Config(**small))
    install_attention(model)
    assert model.config._attn_implementation == "eager"


def test_eager_attention_can_still_be_chosen() -> None:
    model = encoder("bert")
    before = run(model)
    install_attention(model)
    model.set_attn_implementation("eager")
    assert torch.allclose(run(model), before, atol=1e-5)


@pytest.mark.parametrize(("amx", "pairs"), [(True, False), (False, True), (False, False)])
def test_bf16_on_a_cpu_needs_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, amx: bool, pairs: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: pairs)
    cpu = torch.device("cpu")
    assert use_bf16("auto", cpu) == (amx or pairs)
    assert use_bf16("bf16", cpu)
    assert not use_bf16("fp32", cpu)


@pytest.mark.parametrize(("capability", "fast"), [(7, False), (8, True), (9, True)])
def test_bf16_that_a_gpu_emulates_does_not_count(
    monkeypatch: pytest.MonkeyPatch, capability: int, fast: bool
) -> None:
    """T4 (7.5) and V100 (7.0) compute bf16, slower than fp32."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)
    properties = SimpleNamespace(major=capability)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert use_bf16("auto", torch.device("cuda", 0)) == fast
    assert use_bf16("bf16", torch.device("cuda", 0))
