"""The shared encoder with the heads of all tasks."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from trunkline.bundle import EncoderFacts
from trunkline.kinds import task_outputs
from trunkline.tasks import TaskSpec
from trunkline_train.model.heads import HEADS, Head


class MultitaskModel(nn.Module):
    """One encoder with a head per task.

    Args:
        encoder: A Hugging Face encoder whose first output is the last hidden states.
        tasks: The tasks, in the order of their heads.
        dropout: Dropout before the heads.
    """

    def __init__(self, encoder: PreTrainedModel, tasks: Sequence[TaskSpec], dropout: float) -> None:
        super().__init__()
        # No head uses the pooler, so it would only add unused parameters to every graph.
        if getattr(encoder, "pooler", None) is not None:
            encoder.register_module("pooler", None)
        self.encoder = encoder
        self.tasks = tuple(tasks)
        hidden = encoder.config.hidden_size
        heads = {key(spec.name): HEADS[spec.kind](spec, hidden, dropout) for spec in tasks}
        self.heads = nn.ModuleDict(heads)

    @property
    def config(self) -> PretrainedConfig:
        """The encoder's configuration."""
        return self.encoder.config

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs the encoder takes, in the order of `forward`."""
        names = ("input_ids", "attention_mask", "token_type_ids")
        taken = inspect.signature(self.encoder.forward).parameters
        return tuple(name for name in names if name in taken)

    def head(self, task: str) -> Head:
        """Returns the head of a task."""
        head = self.heads[key(task)]
        assert isinstance(head, Head)
        return head

    def hidden(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Returns the last hidden states [B, S, H] for ids and mask [B, S]."""
        segments = {"token_type_ids": token_type_ids} if "token_type_ids" in self.inputs else {}
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **segments)
        hidden: Tensor = output[0]
        return hidden

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Returns the outputs of all heads by name, e.g. `ner.logits` [B, S, labels]."""
        hidden = self.hidden(input_ids, attention_mask, token_type_ids)
        outputs: dict[str, Tensor] = {}
        for spec in self.tasks:
            names = [output.name for output in task_outputs(spec)]
            outputs.update(zip(names, self.head(spec.name)(hidden), strict=True))
        return outputs

    def facts(self, max_length: int, overlap: int, pad_id: int) -> EncoderFacts:
        """Returns the facts about the encoder for a manifest."""
        config = self.config
        return EncoderFacts(
            model_type=config.model_type,
            hidden_size=config.hidden_size,
            layers=config.num_hidden_layers,
            parameters=sum(parameter.numel() for parameter in self.parameters()),
            max_length=max_length,
            overlap=overlap,
            pad_id=pad_id,
            # DistilBERT calls it hidden_dim.
            inner_size=getattr(config, "intermediate_size", getattr(config, "hidden_dim", 0)),
        )


def key(task: str) -> str:
    """Returns the ModuleDict key of a task; the bare name could clash with a method."""
    return f"task_{task}"
