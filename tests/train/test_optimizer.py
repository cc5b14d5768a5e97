from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from transformers import BertConfig, BertModel

from tests.small import wordpiece
from trunkline.errors import ConfigError
from trunkline.tasks import AnswerOptions, TaskSpec
from trunkline_train.model.layers import freeze
from trunkline_train.model.multitask import MultitaskModel
from trunkline_train.optimizer import parameter_groups, peak_rates, schedule
from trunkline_train.settings import ModelConfig, TrainingConfig

SETTINGS = TrainingConfig(learning_rate=1e-3, head_learning_rate=5e-3, weight_decay=0.1)


@pytest.fixture
def model() -> MultitaskModel:
    config = BertConfig(
        vocab_size=wordpiece().get_vocab_size(),
        hidden_size=8,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=16,
    )
    tasks = [TaskSpec("qa", "question-answering", (), AnswerOptions())]
    return MultitaskModel(BertModel(config), tasks, dropout=0.1)


def given(model: MultitaskModel, settings: TrainingConfig) -> dict[str, tuple[float, float]]:
    """Returns (peak rate, decay) of each parameter by name; each must stand in one group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, tuple[float, float]] = {}
    for group in parameter_groups(model, settings):
        assert group["lr"] == group["peak"]
        for parameter in group["params"]:
            assert found.setdefault(names[id(parameter)], (group["lr"], group["weight_decay"]))
    assert sum(len(g["params"]) for g in parameter_groups(model, settings)) == len(found)
    return found


def test_every_parameter_has_its_rate_and_only_matrices_decay(model: MultitaskModel) -> None:
    found = given(model, SETTINGS)
    for name, parameter in model.named_parameters():
        rate = 5e-3 if name.startswith("heads.") else 1e-3
        assert found[name] == (rate, 0.1 if parameter.ndim > 1 else 0.0)


@pytest.mark.parametrize(
    ("width", "rate"), [(1024, 2.8e-5), (768, 5e-5), (384, 2e-4), (256, 4.5e-4), (128, 5e-4)]
)
def test_narrow_encoders_learn_faster_where_no_rate_is_set(
    model: MultitaskModel, width: int, rate: float
) -> None:
    model.encoder.config.hidden_size = width
    assert peak_rates(model, TrainingConfig()) == (pytest.approx(rate, rel=0.01), 1e-3)


def test_a_rate_that_is_set_is_kept(model: MultitaskModel) -> None:
    assert peak_rates(model, TrainingConfig(learning_rate=3e-5)) == (3e-5, 1e-3)
    assert peak_rates(model, SETTINGS) == (1e-3, 5e-3)
    slow = TrainingConfig(learning_rate=1e-3, head_learning_rate=1e-4)
    assert peak_rates(model, slow) == (1e-3, 1e-4)


def test_heads_learn_no_slower_than_the_encoder(model: MultitaskModel) -> None:
    assert peak_rates(model, TrainingConfig(learning_rate=1e-2)) == (1e-2, 1e-2)


def test_lower_layers_learn_more_slowly(model: MultitaskModel) -> None:
    found = given(model, replace(SETTINGS, layer_decay=0.5))
    rates = {name: rate for name, (rate, _) in found.items()}
    for layer, rate in enumerate((2.5e-4, 5e-4, 1e-3)):
        at = f"encoder.encoder.layer.{layer}."
        assert {value for name, value in rates.items() if name.startswith(at)} == {rate}
    assert rates["encoder.embeddings.LayerNorm.bias"] == 1.25e-4
    assert rates["heads.task_qa.linear.weight"] == 5e-3
    first = parameter_groups(model, replace(SETTINGS, layer_decay=0.5))[0]
    assert (first["lr"], first["weight_decay"]) == (1e-3, 0.1)


def test_frozen_parameters_stand_in_no_group(model: MultitaskModel) -> None:
    freeze(model.encoder, ModelConfig(freeze_embeddings=True, freeze_layers=2))
    names = set(given(model, SETTINGS))
    assert names == {name for name, value in model.named_parameters() if value.requires_grad}
    assert not any("embeddings" in name or "layer.1." in name for name in names)


def test_layer_decay_needs_layers(model: MultitaskModel) -> None:
    model.encoder.encoder.layer = torch.nn.Sequential(*model.encoder.encoder.layer)
    with pytest.raises(ConfigError, match=r"^training.layer_decay: "):
        parameter_groups(model, replace(SETTINGS, layer_decay=0.9))


def test_the_rate_rises_then_falls_to_nothing() -> None:
    factor = schedule(total=100, warmup=0.1)
    rates = [factor(step) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert max(rates) == 1.0
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))
    assert factor(100) == 0.0


@pytest.mark.parametrize(("total", "warmup"), [(1, 0.0), (1, 1.0), (5, 0.0), (5, 1.0)])
def test_a_short_run_still_learns(total: int, warmup: float) -> None:
    assert all(0 < schedule(total, warmup)(step) <= 1 for step in range(total))
