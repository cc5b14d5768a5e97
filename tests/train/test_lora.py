import sys

import pytest
import torch
from torch import Tensor

from tests.small import bert
from trunkline.errors import ConfigError, MissingExtra
from trunkline.tasks import AnswerOptions, TaskSpec, TokenOptions
from trunkline_train.model.layers import freeze, recompute_activations
from trunkline_train.model.lora import add_lora, plain_state
from trunkline_train.model.multitask import MultitaskModel
from trunkline_train.optimizer import parameter_groups
from trunkline_train.settings import ModelConfig, TrainingConfig

pytest.importorskip("peft", reason="needs the extra lora")

RANK = ModelConfig(lora_rank=4, lora_alpha=8.0)
TASKS = (
    TaskSpec("ner", "token-classification", ("O", "B-PER", "I-PER"), TokenOptions()),
    TaskSpec("qa", "question-answering", (), AnswerOptions()),
)
IDS = torch.arange(6, 36).view(3, 10)


def plain_model() -> MultitaskModel:
    torch.manual_seed(0)
    return MultitaskModel(bert(), TASKS, 0.0)


def with_lora(config: ModelConfig = RANK, seed: int = 1) -> MultitaskModel:
    model = plain_model()
    freeze(model.encoder, config)
    torch.manual_seed(seed)
    add_lora(model, config)
    return model


def trained(model: MultitaskModel, steps: int = 3) -> MultitaskModel:
    """Returns the model after a few steps towards nothing of use."""
    optimizer = torch.optim.AdamW(parameter_groups(model, TrainingConfig(learning_rate=1e-2)))
    for step in range(steps):
        torch.manual_seed(step)
        outputs = model.train()(IDS, torch.ones_like(IDS))
        sum(value.square().mean() for value in outputs.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@torch.no_grad()
def outputs(model: MultitaskModel) -> dict[str, Tensor]:
    return model.eval()(IDS, torch.ones_like(IDS))


def targets(model: MultitaskModel) -> set[str]:
    return {name.partition(".lora_A")[0] for name in model.state_dict() if ".lora_A" in name}


def test_rank_nothing_changes_nothing() -> None:
    model = plain_model()
    add_lora(model, ModelConfig())
    assert (
        plain_state(model).keys() == model.state_dict().keys() == plain_model().state_dict().keys()
    )
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_updates_begin_at_nothing() -> None:
    one, other = outputs(plain_model()), outputs(with_lora())
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_only_updates_and_heads_learn() -> None:
    before = with_lora().state_dict()
    after = trained(with_lora()).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if ".lora_" in name or name.startswith("heads.")}


def test_merged_weights_fit_a_plain_model_and_give_the_same() -> None:
    model = trained(with_lora())
    plain = plain_model()
    plain.load_state_dict(plain_state(model))
    one, other = outputs(model), outputs(plain)
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)
    assert not torch.allclose(one["qa.start_logits"], outputs(with_lora())["qa.start_logits"])


def test_merging_leaves_the_model_as_it_is() -> None:
    model = trained(with_lora())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plain_state(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_rebuilt_model_goes_on_exactly() -> None:
    config = ModelConfig(lora_rank=4, lora_dropout=0.2)
    halfway = trained(with_lora(config))
    again = with_lora(config, seed=9)
    again.load_state_dict(halfway.state_dict())
    one, other = trained(halfway).state_dict(), trained(again).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_by_default_every_linear_layer_is_updated() -> None:
    wanted = {
        name for name, part in plain_model().named_modules() if isinstance(part, torch.nn.Linear)
    }
    assert targets(with_lora()) == {name for name in wanted if name.startswith("encoder.")}


@pytest.mark.parametrize(
    ("given", "ends"),
    [
        (("query", "value"), ("self.query", "self.value")),
        (("attention.output.dense",), ("attention.output.dense",)),
    ],
)
def test_targets_are_named_by_their_ends(given: tuple[str, ...], ends: tuple[str, ...]) -> None:
    found = targets(with_lora(ModelConfig(lora_rank=2, lora_targets=given)))
    layers = "encoder.encoder.layer.{}.attention.{}"
    names = (end.removeprefix("attention.") for end in ends)
    assert found == {layers.format(at, name) for name in names for at in range(2)}


def test_frozen_layers_get_no_update() -> None:
    found = targets(with_lora(ModelConfig(lora_rank=2, freeze_layers=1)))
    assert found
    assert not any(".layer.0." in name for name in found)
    with pytest.raises(ConfigError, match="every linear layer is frozen"):
        with_lora(ModelConfig(lora_rank=2, freeze_layers=2))


def test_an_unknown_target_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no linear layer 'querry' \(did you mean 'query'\?\)"):
        with_lora(ModelConfig(lora_rank=2, lora_targets=("value", "querry")))


def test_updates_learn_with_recomputed_activations() -> None:
    model = with_lora()
    recompute_activations(model.encoder)
    one, other = trained(with_lora()).state_dict(), trained(model).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_without_peft_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra, match=r"needs peft, .*\[lora\]'"):
        add_lora(plain_model(), RANK)
