"""Hugging Face pipelines in torch behind a plain gRPC server: a model and a pipeline per task.

Each task gets a stock BERT of transformers with the checkpoint's encoder and its own head, and the
task's own pipeline. Documents are run one at a time, as transformers' manual advises for a CPU.
Nothing of Trunkline runs in here.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertPreTrainedModel,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    QuestionAnsweringPipeline,
    TextClassificationPipeline,
    TokenClassificationPipeline,
)

from benchmarks.serving.peers.options import given
from benchmarks.serving.peers.plain import Answer, started_server

Json = dict[str, Any]
Texts = Callable[[str], list[Json]]
"""A text to its annotations."""


@dataclass(frozen=True)
class Trained:
    """What a checkpoint's folder holds."""

    config: PretrainedConfig  # the encoder's
    weights: Mapping[str, Tensor]  # of encoder and heads, by name
    tokenizer: PreTrainedTokenizerFast
    tasks: tuple[Json, ...]  # as in checkpoint.json
    overlap: int  # tokens that neighbouring windows share
    models: dict[str, BertPreTrainedModel] = field(default_factory=dict)  # made so far, by task


def open_run(folder: Path) -> Trained:
    """Reads a checkpoint, or the best one of a run's folder.

    Raises:
        ValueError: The encoder is no BERT.
    """
    if not (folder / "checkpoint.json").exists():
        folder = folder / "best"
    meta = json.loads((folder / "checkpoint.json").read_text(encoding="utf-8"))
    config = AutoConfig.from_pretrained(folder)
    if config.model_type != "bert":
        raise ValueError(f"the pipelines are written for BERT, not for {config.model_type!r}")
    special = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        model_max_length=meta["config"]["rows"]["max_length"],
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **{f"{name}_token": token for name, token in special.items()},
    )
    weights = load_file(folder / "model.safetensors")
    overlap = meta["config"]["rows"]["overlap"]
    return Trained(config, weights, tokenizer, tuple(meta["tasks"]), overlap)


class FirstToken(nn.Module):
    """In the place of BERT's pooler: the checkpoint's heads read the first token as it is."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Returns the first of the hidden states [B, S, H]."""
        return hidden[:, 0]


class Tags(TokenClassificationPipeline):  # type: ignore[misc]  # transformers has no types
    """Gives every word its label, where the stock pipeline joins neighbours of one label."""

    def group_entities(self, entities: list[Json]) -> list[Json]:
        """Returns each word as a group."""
        return [{"entity_group": one["entity"], **one} for one in entities]


def _model(trained: Trained, task: Json, kind: Any, head: str) -> BertPreTrainedModel:
    """Returns a stock model with the checkpoint's encoder, and a task's weights as its head.

    It is made once: pipelines of a task share it.
    """
    if task["name"] in trained.models:
        return trained.models[task["name"]]
    names = dict(enumerate(task["labels"] or ["start", "end"]))
    config = AutoConfig.for_model(**trained.config.to_dict() | {"id2label": names})
    config.label2id = {name: at for at, name in names.items()}
    model = kind(config)
    if getattr(model.bert, "pooler", None) is not None:
        model.bert.pooler = FirstToken()
    places = {"encoder.": "bert.", f"heads.task_{task['name']}.linear.": f"{head}."}
    weights = {
        place + name.removeprefix(prefix): value
        for name, value in trained.weights.items()
        for prefix, place in places.items()
        if name.startswith(prefix)
    }
    model.load_state_dict(weights)
    trained.models[task["name"]] = model.eval()
    return model


def labeller(trained: Trained, task: Json) -> Texts:
    """Returns what finds spans or tags, in windows where a text is long."""
    spans = task["options"]["aggregation"] == "spans"
    run = (TokenClassificationPipeline if spans else Tags)(
        model=_model(trained, task, BertForTokenClassification, "classifier"),
        tokenizer=trained.tokenizer,
        aggregation_strategy="first",
        stride=trained.overlap,
        ignore_labels=["O"] if spans else [],
    )

    def find(text: str) -> list[Json]:
        return [
            {
                **{name: one[name] for name in ("start", "end")},
                "text": text[one["start"] : one["end"]],
                "label": one["entity_group"],
                "score": float(one["score"]),
            }
            for one in run(text)
        ]

    return find


def classifier(trained: Trained, task: Json) -> Texts:
    """Returns what tells a text's labels; of a long text the pipeline reads the beginning."""
    options = task["options"]
    several = options["multi_label"]
    run = TextClassificationPipeline(
        model=_model(trained, task, BertForSequenceClassification, "classifier"),
        tokenizer=trained.tokenizer,
        top_k=options["n_best"],
        function_to_apply="sigmoid" if several else "softmax",
    )

    def classify(text: str) -> list[Json]:
        (found,) = run([text], truncation=True)
        return [one for one in found if not several or one["score"] > options["threshold"]]

    return classify


def answerer(trained: Trained, task: Json) -> Callable[[str, str], list[Json]]:
    """Returns what answers a question about a text, in windows where the text is long."""
    options, longest = task["options"], trained.tokenizer.model_max_length
    run = QuestionAnsweringPipeline(
        model=_model(trained, task, BertForQuestionAnswering, "qa_outputs"),
        tokenizer=trained.tokenizer,
        top_k=options["n_best"],
        max_answer_len=options["max_answer_tokens"],
        max_seq_len=longest,
        max_question_len=longest // 2,
        doc_stride=trained.overlap,
        handle_impossible_answer=options["no_answer_threshold"] is not None,
        align_to_words=False,
    )

    def answer(question: str, text: str) -> list[Json]:
        found = run(question=question, context=text)
        found = [found] if isinstance(found, dict) else found
        names = {"start": "start", "end": "end", "text": "answer", "score": "score"}
        return [{to: one[name] for to, name in names.items()} for one in found if one["answer"]]

    return answer


def pipelines(trained: Trained) -> Answer:
    """Returns what answers documents, for one thread at a time.

    All tasks of the checkpoint take part but those that read pairs of texts. The tokenizer is its
    own: two threads cannot use one, which then raises "Already borrowed".
    """
    trained = replace(trained, tokenizer=copy.deepcopy(trained.tokenizer))
    makers = {"token-classification": labeller, "text-classification": classifier}
    texts = {
        task["name"]: makers[task["kind"]](trained, task)
        for task in trained.tasks
        if task["kind"] in makers and not task["options"].get("pair")
    }
    questions = {
        task["name"]: answerer(trained, task)
        for task in trained.tasks
        if task["kind"] == "question-answering"
    }

    def answer(document: Mapping[str, Any]) -> Json:
        text = document["text"]
        return {
            "text": text,
            "tasks": {name: texts[name](text) for name in document["tasks"]},
            "questions": [
                one | {"answers": questions[one["task"]](one["question"], text)}
                for one in document["questions"]
            ],
        }

    return answer


def pooled(trained: Trained, threads: int) -> Answer:
    """Returns what answers documents on several threads, with pipelines that nobody else uses."""
    waiting: SimpleQueue[Answer] = SimpleQueue()
    for _ in range(threads):
        waiting.put(pipelines(trained))

    def answer(document: Mapping[str, Any]) -> Mapping[str, Any]:
        own = waiting.get()
        try:
            return own(document)
        finally:
            waiting.put(own)

    return answer


def main() -> None:
    """Serves until it is killed."""
    options = given()
    assert options.run is not None
    torch.set_num_threads(options.setting.threads)
    workers = options.setting.workers
    answer = pooled(open_run(Path(options.run)), workers)
    server = started_server(answer, options.port, workers)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
