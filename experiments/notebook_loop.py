"""A multitask loop as courses teach it, to be measured against: written anew, for its costs.

What makes it what it is: every entity row is padded to 128 tokens and every question row to 384,
when the data is read; a step takes one batch of one task, the tasks in turn; the encoder comes as
the library gives it, pooler and dropouts included; AdamW, gradients clipped at 1, a linear
schedule, fp32; the loss is read back after every step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.utils.data import DataLoader
from transformers import AutoModel, AutoTokenizer, get_linear_schedule_with_warmup

from trunkline_train.data.examples import AnswerExample, TokenExample

TOKENS, ANSWERS = "tokens", "answers"
WIDTHS = {TOKENS: 128, ANSWERS: 384}
_STRIDE = 128
_IGNORE = -100
Item = dict[str, Tensor]


@dataclass(frozen=True)
class StepCost:
    """Tokens of one optimiser step: real ones, and all that were computed."""

    real: int
    computed: int


class TwoHeads(nn.Module):
    """The encoder with a head for entities and one for answers; a call does one of the tasks."""

    def __init__(self, encoder: str | Path, labels: int) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(encoder).float()
        width = self.encoder.config.hidden_size
        self.dropout = nn.Dropout(0.1)
        self.tokens = nn.Linear(width, labels)
        self.answers = nn.Linear(width, 2)

    def forward(self, task: str, inputs: Item, targets: Item) -> Tensor:
        """Returns the mean loss of a batch of the task."""
        hidden = self.dropout(self.encoder(**inputs).last_hidden_state)
        if task == TOKENS:
            logits = self.tokens(hidden)
            return nn.functional.cross_entropy(logits.flatten(0, 1), targets["labels"].flatten())
        starts, ends = self.answers(hidden).unbind(-1)
        return 0.5 * (
            nn.functional.cross_entropy(starts, targets["start"])
            + nn.functional.cross_entropy(ends, targets["end"])
        )


class NotebookLoop:
    """Trains step by step.

    Args:
        encoder: A folder or a name on the hub.
        tokens: Sentences with tags.
        answers: Questions with answers.
        batch: Rows of a batch, of either task.
        device: To train on.
    """

    def __init__(
        self,
        encoder: str | Path,
        *,
        tokens: Sequence[TokenExample],
        answers: Sequence[AnswerExample],
        batch: int,
        device: torch.device,
    ) -> None:
        tokenizer = AutoTokenizer.from_pretrained(encoder)
        tags = sorted({tag for example in tokens for tag in example.tags})
        items = {
            TOKENS: _token_items(tokenizer, tokens, tags),
            ANSWERS: _answer_items(tokenizer, answers),
        }
        self._turns = cycle(
            [
                (task, _endless(DataLoader(rows, batch, shuffle=True)))
                for task, rows in items.items()
            ]
        )
        self._device = device
        self._model = TwoHeads(encoder, len(tags)).to(device).train()
        self._optimizer = AdamW(self._model.parameters(), lr=5e-5, weight_decay=0.01)
        steps = sum(len(rows) for rows in items.values()) // batch * 3
        self._schedule = get_linear_schedule_with_warmup(self._optimizer, steps // 10, steps)

    def step(self) -> StepCost:
        """Does one optimiser step, on a batch of the task whose turn it is."""
        task, batches = next(self._turns)
        batch = {name: tensor.to(self._device) for name, tensor in next(batches).items()}
        inputs = {name: batch.pop(name) for name in ("input_ids", "attention_mask")}
        loss = self._model(task, inputs, batch)
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._schedule.step()
        loss.item()
        mask = inputs["attention_mask"]
        return StepCost(int(mask.sum()), mask.numel())


def _endless(loader: DataLoader[Item]) -> Iterator[Item]:
    while True:
        yield from loader


def _token_items(
    tokenizer: Any, examples: Sequence[TokenExample], tags: Sequence[str]
) -> list[Item]:
    """Returns padded rows; the first piece of a word has its label, all else has none."""
    encoded = tokenizer(
        [[example.text[start:end] for start, end in example.words] for example in examples],
        is_split_into_words=True,
        truncation=True,
        padding="max_length",
        max_length=WIDTHS[TOKENS],
        return_tensors="pt",
    )
    items = []
    for at, example in enumerate(examples):
        words = encoded.word_ids(at)
        firsts = [
            word is not None and (number == 0 or words[number - 1] != word)
            for number, word in enumerate(words)
        ]
        labels = [
            tags.index(example.tags[word]) if first else _IGNORE
            for word, first in zip(words, firsts, strict=True)
        ]
        items.append({**_inputs(encoded, at), "labels": torch.tensor(labels)})
    return items


def _answer_items(tokenizer: Any, examples: Sequence[AnswerExample]) -> list[Item]:
    """Returns padded windows; one without the answer points to the first token."""
    encoded = tokenizer(
        [example.question for example in examples],
        [example.context for example in examples],
        truncation="only_second",
        max_length=WIDTHS[ANSWERS],
        stride=_STRIDE,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        padding="max_length",
        return_tensors="pt",
    )
    items = []
    for at, number in enumerate(encoded["overflow_to_sample_mapping"].tolist()):
        start, end = _answer_place(encoded, at, examples[number])
        targets = {"start": torch.tensor(start), "end": torch.tensor(end)}
        items.append({**_inputs(encoded, at), **targets})
    return items


def _answer_place(encoded: Any, at: int, example: AnswerExample) -> tuple[int, int]:
    if not example.answers:
        return 0, 0
    first, last = example.starts[0], example.starts[0] + len(example.answers[0])
    spans = encoded["offset_mapping"][at].tolist()
    context = [number for number, part in enumerate(encoded.sequence_ids(at)) if part == 1]
    inside = [number for number in context if spans[number][0] < last and spans[number][1] > first]
    whole = spans[context[0]][0] <= first and last <= spans[context[-1]][1]
    return (inside[0], inside[-1]) if whole and inside else (0, 0)


def _inputs(encoded: Any, at: int) -> Item:
    return {name: encoded[name][at] for name in ("input_ids", "attention_mask")}
