"""Low-rank updates (LoRA, Hu et al. 2021, arXiv 2106.09685) of a frozen encoder, using PEFT.

They exist only in training: saved models have them merged into the encoder's weights.
"""

from __future__ import annotations

from torch import Tensor, nn

from trunkline.errors import ConfigError, did_you_mean
from trunkline.extras import explained
from trunkline_train.model.dropout import quicken_dropout
from trunkline_train.model.multitask import MultitaskModel
from trunkline_train.settings import ModelConfig

_ADAPTER = "default"


def add_lora(model: MultitaskModel, config: ModelConfig) -> None:
    """Freezes the encoder and adds low-rank updates to its linear layers; heads are fully trained.

    Does nothing at rank 0. Layers that are already frozen get no update.

    Raises:
        ConfigError: `model.lora_targets` names no linear layer of the encoder.
        MissingExtra: PEFT is not installed.
    """
    if config.lora_rank == 0:
        return
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError as error:
        raise explained(error, "lora") from None
    targets = _targets(model.encoder, config.lora_targets)
    model.encoder.requires_grad_(False)
    settings = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # PEFT only divides it by the rank
        lora_dropout=config.lora_dropout,
        target_modules=targets,
    )
    inject_adapter_in_model(settings, model.encoder, _ADAPTER)
    quicken_dropout(model.encoder)


def _targets(encoder: nn.Module, wanted: tuple[str, ...]) -> list[str]:
    """Returns the full names of the linear layers to update."""
    linear = {
        name: module.weight.requires_grad
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Linear)
    }
    for target in wanted:
        if not any(_matches(name, target) for name in linear):
            known = sorted({name.rpartition(".")[2] for name in linear})
            near = did_you_mean(target, known)
            raise ConfigError(
                f"model.lora_targets: the encoder has no linear layer {target!r}{near}; "
                f"it has: {', '.join(known)}"
            )
    chosen = [
        name
        for name, trained in linear.items()
        if trained and (not wanted or any(_matches(name, target) for target in wanted))
    ]
    if not chosen:
        raise ConfigError("model.lora_rank: every linear layer is frozen; lower freeze_layers")
    return chosen


def _matches(name: str, target: str) -> bool:
    """Returns whether a full name is `target` or ends with `.target`."""
    return f".{name}".endswith(f".{target}")


def plain_state(model: MultitaskModel) -> dict[str, Tensor]:
    """Returns the weights with updates merged, named as in a model without updates."""
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        owner, updated, part = name.partition(".base_layer.")
        if updated and part == "weight":
            state[f"{owner}.{part}"] = tensor + _update(model.get_submodule(owner))
        elif updated:
            state[f"{owner}.{part}"] = tensor
        elif ".lora_" not in name:
            state[name] = tensor
    return state


def _update(layer: nn.Module) -> Tensor:
    """Returns the update to a layer's own weight."""
    from peft.tuners.lora import Linear

    assert isinstance(layer, Linear)
    return layer.get_delta_weight(_ADAPTER).detach()
