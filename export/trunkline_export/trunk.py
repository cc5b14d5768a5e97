"""An encoder's weights as plain arrays: what the packed graphs are built of.

Two forms of encoder can be read. That of BERT (Devlin et al. 2018, arXiv 1810.04805): learned
absolute positions, attention over all tokens, normalisation behind each residual sum. And that of
ModernBERT (Warner et al. 2024, arXiv 2412.13663). Their attention needs to know of a token only
which row it is in and at what place, so rows can be packed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from trunkline.errors import TrunklineError

Array = NDArray[np.float32]
_ACTIVATIONS = ("gelu", "gelu_new", "relu")


class Unpackable(TrunklineError):
    """An encoder that the packed graphs cannot express; the message says which and why."""


@dataclass(frozen=True)
class Linear:
    """x @ weight + bias; weight [in, out], bias [out]."""

    weight: Array
    bias: Array


@dataclass(frozen=True)
class Norm:
    """Layer normalisation over the last axis."""

    weight: Array
    bias: Array
    epsilon: float


@dataclass(frozen=True)
class Layer:
    """One transformer layer; the three products of attention read the same rows."""

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    attention_norm: Norm
    up: Linear
    down: Linear
    output_norm: Norm


@dataclass(frozen=True)
class Trunk:
    """An encoder of BERT's form.

    Attributes:
        words: [vocabulary, width] of the word embeddings.
        positions: [positions, width].
        first_position: The number of a row's first position.
        types: [2, width] of the segments; None where there are none.
        takes_types: Whether segments are an input; if not, all tokens have the first.
        norm: Of the summed embeddings.
        projection: From embeddings to hidden states, where their widths differ.
        layers: From the bottom.
        heads: Of attention.
        activation: Between `up` and `down`: `gelu`, `gelu_new` or `relu`.
    """

    words: Array
    positions: Array
    first_position: int
    types: Array | None
    takes_types: bool
    norm: Norm
    projection: Linear | None
    layers: tuple[Layer, ...]
    heads: int
    activation: str

    @property
    def width(self) -> int:
        """Of the hidden states."""
        return len(self.layers[0].output.bias)


@dataclass(frozen=True)
class ModernLayer:
    """One layer of ModernBERT.

    Attributes:
        attention_norm: In front of attention; None where nothing is.
        qkv: Query, key and value side by side.
        output: Of attention.
        norm: In front of `up`.
        up: What is activated, and its gate, side by side.
        down: Back to the width of hidden states.
        is_local: Whether attention reaches near tokens only.
    """

    attention_norm: Norm | None
    qkv: Linear
    output: Linear
    norm: Norm
    up: Linear
    down: Linear
    is_local: bool


@dataclass(frozen=True)
class ModernTrunk:
    """An encoder of ModernBERT's form.

    Attributes:
        words: [vocabulary, width] of the word embeddings.
        norm: Of the embeddings.
        layers: From the bottom.
        last_norm: Of the last hidden states.
        heads: Of attention.
        activation: As of a `Trunk`.
        longest: Tokens of the longest row.
        window: How many tokens away local attention reaches.
        thetas: Bases of the rotary positions' speeds, of global and of local layers.
    """

    words: Array
    norm: Norm
    layers: tuple[ModernLayer, ...]
    last_norm: Norm
    heads: int
    activation: str
    longest: int
    window: int
    thetas: tuple[float, float]

    @property
    def width(self) -> int:
        """Of the hidden states."""
        return int(self.words.shape[1])


AnyTrunk = Trunk | ModernTrunk


def read_trunk(encoder: PreTrainedModel) -> AnyTrunk:
    """Returns an encoder's weights.

    Raises:
        Unpackable: Its architecture has no packed form.
    """
    kind = encoder.config.model_type
    if kind not in _READERS:
        known = ", ".join(sorted(_READERS))
        why = _REASONS.get(kind, "its layers are of no form that is known here")
        raise Unpackable(f"no packed graph for {kind!r}: {why}; there is one for {known}")
    return _READERS[kind](encoder)


def _read_bert(encoder: PreTrainedModel) -> Trunk:
    config = encoder.config
    if getattr(config, "position_embedding_type", "absolute") != "absolute":
        raise Unpackable(f"no packed graph for relative positions in {config.model_type!r}")
    positions = _embedding(encoder, "embeddings.position_embeddings")
    projection = getattr(encoder, "embeddings_project", None)
    return Trunk(
        words=_array(_embedding(encoder, "embeddings.word_embeddings").weight),
        positions=_array(positions.weight),
        first_position=_first_position(positions),
        types=_array(_embedding(encoder, "embeddings.token_type_embeddings").weight),
        takes_types=True,
        norm=_norm(encoder, "embeddings.LayerNorm"),
        projection=None if projection is None else linear(projection),
        layers=tuple(_bert_layer(layer) for layer in _layers(encoder, "encoder.layer")),
        heads=config.num_attention_heads,
        activation=_activation(config.model_type, config.hidden_act),
    )


def _first_position(positions: nn.Embedding) -> int:
    """Returns 0; RoBERTa and its kin count from behind the position of padding."""
    return 0 if positions.padding_idx is None else positions.padding_idx + 1


def _bert_layer(layer: nn.Module) -> Layer:
    return Layer(
        query=_linear(layer, "attention.self.query"),
        key=_linear(layer, "attention.self.key"),
        value=_linear(layer, "attention.self.value"),
        output=_linear(layer, "attention.output.dense"),
        attention_norm=_norm(layer, "attention.output.LayerNorm"),
        up=_linear(layer, "intermediate.dense"),
        down=_linear(layer, "output.dense"),
        output_norm=_norm(layer, "output.LayerNorm"),
    )


def _read_distilbert(encoder: PreTrainedModel) -> Trunk:
    config = encoder.config
    return Trunk(
        words=_array(_embedding(encoder, "embeddings.word_embeddings").weight),
        positions=_array(_embedding(encoder, "embeddings.position_embeddings").weight),
        first_position=0,
        types=None,
        takes_types=False,
        norm=_norm(encoder, "embeddings.LayerNorm"),
        projection=None,
        layers=tuple(_distilbert_layer(layer) for layer in _layers(encoder, "transformer.layer")),
        heads=config.n_heads,
        activation=_activation(config.model_type, config.activation),
    )


def _distilbert_layer(layer: nn.Module) -> Layer:
    return Layer(
        query=_linear(layer, "attention.q_lin"),
        key=_linear(layer, "attention.k_lin"),
        value=_linear(layer, "attention.v_lin"),
        output=_linear(layer, "attention.out_lin"),
        attention_norm=_norm(layer, "sa_layer_norm"),
        up=_linear(layer, "ffn.lin1"),
        down=_linear(layer, "ffn.lin2"),
        output_norm=_norm(layer, "output_layer_norm"),
    )


def _read_modernbert(encoder: PreTrainedModel) -> ModernTrunk:
    config = encoder.config
    return ModernTrunk(
        words=_array(_embedding(encoder, "embeddings.tok_embeddings").weight),
        norm=_norm(encoder, "embeddings.norm"),
        layers=tuple(_modernbert_layer(layer) for layer in _layers(encoder, "layers")),
        last_norm=_norm(encoder, "final_norm"),
        heads=config.num_attention_heads,
        activation=_activation(config.model_type, config.hidden_activation),
        longest=config.max_position_embeddings,
        window=config.local_attention // 2,
        thetas=(_theta(config, "full_attention"), _theta(config, "sliding_attention")),
    )


def _modernbert_layer(layer: nn.Module) -> ModernLayer:
    first = isinstance(layer.attn_norm, nn.Identity)
    return ModernLayer(
        attention_norm=None if first else _norm(layer, "attn_norm"),
        qkv=_linear(layer, "attn.Wqkv"),
        output=_linear(layer, "attn.Wo"),
        norm=_norm(layer, "mlp_norm"),
        up=_linear(layer, "mlp.Wi"),
        down=_linear(layer, "mlp.Wo"),
        is_local=_is_local(layer),
    )


def _is_local(layer: nn.Module) -> bool:
    if hasattr(layer, "attention_type"):
        return bool(layer.attention_type == "sliding_attention")
    attention = layer.get_submodule("attn")
    return bool(attention.local_attention != (-1, -1))  # transformers 4


def _theta(config: PretrainedConfig, kind: str) -> float:
    if not hasattr(config, "rope_parameters"):  # transformers 4
        local = config.local_rope_theta if kind == "sliding_attention" else None
        return float(local or config.global_rope_theta)
    found = config.rope_parameters[kind]
    if found["rope_type"] != "default":
        kinds = f"{config.model_type!r} with rotary positions of type {found['rope_type']!r}"
        raise Unpackable(f"no packed graph for {kinds}; known: 'default'")
    return float(found["rope_theta"])


_READERS: dict[str, Callable[[PreTrainedModel], AnyTrunk]] = {
    "bert": _read_bert,
    "electra": _read_bert,
    "roberta": _read_bert,
    "xlm-roberta": _read_bert,
    "camembert": _read_bert,
    "distilbert": _read_distilbert,
    "modernbert": _read_modernbert,
}
_REASONS = {
    "deberta": "its attention weighs the distance of every two tokens",
    "deberta-v2": "its attention weighs the distance of every two tokens",
}


def linear(module: nn.Module) -> Linear:
    """Returns a linear module's weights."""
    assert isinstance(module, nn.Linear)
    weight = _array(module.weight.T)
    return Linear(weight, _bias(module.bias, weight.shape[1]))


def _linear(owner: nn.Module, path: str) -> Linear:
    return linear(owner.get_submodule(path))


def _norm(owner: nn.Module, path: str) -> Norm:
    module = owner.get_submodule(path)
    assert isinstance(module, nn.LayerNorm)
    weight = _array(module.weight)
    return Norm(weight, _bias(module.bias, len(weight)), module.eps)


def _embedding(owner: nn.Module, path: str) -> nn.Embedding:
    module = owner.get_submodule(path)
    assert isinstance(module, nn.Embedding)
    return module


def _layers(owner: nn.Module, path: str) -> nn.ModuleList:
    module = owner.get_submodule(path)
    assert isinstance(module, nn.ModuleList)
    return module


def _bias(bias: Tensor | None, width: int) -> Array:
    return np.zeros(width, np.float32) if bias is None else _array(bias)


def _array(tensor: Tensor) -> Array:
    return np.ascontiguousarray(tensor.detach().float().cpu().numpy())


def _activation(kind: str, name: object) -> str:
    if name not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise Unpackable(f"no packed graph for {kind!r} with activation {name!r}; known: {known}")
    return str(name)
