"""Families of encoders in the padded graph: it gives what torch gives, whatever the batch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from transformers import (
    AutoModel,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    LongformerConfig,
    ModernBertConfig,
    PretrainedConfig,
    RobertaConfig,
)

from tests.export.shapes import DEBERTA_V3, MODERNBERT
from tests.small import Corpus, wordpiece
from trunkline.decode.numeric import Floats
from trunkline.encode import TextEncoder
from trunkline.kinds import task_outputs
from trunkline.tasks import AnswerOptions, TaskSpec, TextOptions, TokenOptions
from trunkline_export.families import Unexportable
from trunkline_export.graph import padded_model, read_graph, write_graphs
from trunkline_export.parity import check_signature, check_values, ragged_grid
from trunkline_train.checkpoint import Checkpoint, Progress
from trunkline_train.model.encoder import encoder_from_config
from trunkline_train.model.multitask import MultitaskModel
from trunkline_train.pretrained import longest_row
from trunkline_train.torch_runner import TorchRunner

# transformers 4 scripts helpers of some families at their import, which newer torch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")

VOCABULARY = 200
LONGEST = 64
GRAPH = "graph.onnx"
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": LONGEST,
    "pad_token_id": 0,
}
TASKS = (
    TaskSpec("ner", "token-classification", ("O", "B-PER", "I-PER"), TokenOptions()),
    TaskSpec("qa", "question-answering", (), AnswerOptions()),
    TaskSpec("topic", "text-classification", ("life", "weather"), TextOptions()),
)
NAMES = [output.name for spec in TASKS for output in task_outputs(spec)]
FAMILIES: dict[str, PretrainedConfig] = {
    "bert": BertConfig(**SIZES),
    "distilbert": DistilBertConfig(
        vocab_size=VOCABULARY,
        dim=32,
        n_layers=1,
        n_heads=2,
        hidden_dim=64,
        max_position_embeddings=LONGEST,
    ),
    "electra": ElectraConfig(**SIZES, embedding_size=16),
    "roberta": RobertaConfig(
        **SIZES | {"pad_token_id": 1, "max_position_embeddings": LONGEST + 2}, type_vocab_size=1
    ),
    "deberta-v3": DebertaV2Config(
        **SIZES,
        **DEBERTA_V3,
    ),
    # One layer of global and one of local attention.
    "modernbert": ModernBertConfig(
        **SIZES | {"num_hidden_layers": 2},
        **MODERNBERT,
    ),
}

Inputs = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Exported:
    """A family's graph, and what its model gave for the grid before it was exported."""

    path: Path
    checkpoint: Checkpoint
    before: list[list[Floats]]

    def run(self, inputs: Inputs) -> dict[str, Floats]:
        """Returns the graph's outputs."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(self.path), options)
        given = {name: inputs[name] for name in self.checkpoint.model.inputs}
        return dict(zip(NAMES, session.run(NAMES, given), strict=True))


def untrained(folder: Path, config: PretrainedConfig, corpus: Corpus) -> Checkpoint:
    """Returns a model built as a checkpoint's is, with weights that tell places apart."""
    config.save_pretrained(folder)
    torch.manual_seed(0)
    model = MultitaskModel(encoder_from_config(str(folder)), TASKS, dropout=0.1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.15)
    encoder = TextEncoder(wordpiece(), longest_row(config, config.pad_token_id), overlap=4)
    return Checkpoint(model, encoder, config.pad_token_id, corpus.load(), Progress())


@pytest.fixture(scope="module", params=FAMILIES)
def family(
    request: pytest.FixtureRequest, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = untrained(folder, FAMILIES[request.param], corpus)
    model = checkpoint.model
    runner = TorchRunner(model, checkpoint.pad_id)
    before = [
        runner.forward({name: inputs[name] for name in model.inputs}, NAMES)
        for inputs in ragged_grid(checkpoint)
    ]
    write_graphs(folder, {GRAPH: padded_model(model)}, TASKS, "")
    return Exported(folder / GRAPH, checkpoint, before)


def test_the_graph_gives_what_torch_gives(family: Exported) -> None:
    check_signature(read_graph(family.path.parent, GRAPH, "padded", "fp32"), family.checkpoint)
    assert family.checkpoint.encoder.max_length == LONGEST
    assert check_values(family.path, family.checkpoint) < 1e-4


def test_the_graph_gives_what_was_trained(family: Exported) -> None:
    """Training's attention is another one than the graph's."""
    for inputs, wanted in zip(ragged_grid(family.checkpoint), family.before, strict=True):
        mask = inputs["attention_mask"].astype(bool)
        for want, got in zip(wanted, family.run(inputs).values(), strict=True):
            assert want.shape == got.shape
            assert np.isfinite(got).all()
            real = mask if want.shape[:2] == mask.shape else mask.any(axis=1)
            np.testing.assert_allclose(got[real], want[real], atol=1e-4, rtol=0)


def companies(length: int) -> Iterator[tuple[int, list[int]]]:
    """Yields the width of a batch and the lengths of the rows beside one of `length` tokens."""
    yield length + 1, []
    yield LONGEST, []
    yield LONGEST, [LONGEST, 1, 0]


def batch(ids: NDArray[np.int64], width: int, mates: list[int], pad: int) -> Inputs:
    """Returns a row padded to `width`, with rows of random ids behind it."""
    random = np.random.default_rng(len(mates))
    rows = [ids, *(random.integers(4, VOCABULARY, length) for length in mates)]
    padded = [np.pad(row, (0, width - len(row)), constant_values=pad) for row in rows]
    mask = [np.arange(width) < len(row) for row in rows]
    return {
        "input_ids": np.array(padded),
        "attention_mask": np.array(mask, np.int64),
        "token_type_ids": np.zeros((len(rows), width), np.int64),
    }


@pytest.mark.parametrize("length", [1, 9, 40])
def test_padding_and_company_change_no_row(family: Exported, length: int) -> None:
    pad = family.checkpoint.pad_id
    ids = np.random.default_rng(length).integers(4, VOCABULARY, length)
    alone = family.run(batch(ids, length, [], pad))
    for width, mates in companies(length):
        together = family.run(batch(ids, width, mates, pad))
        for name, want in alone.items():
            got = together[name][:1]
            got = got[:, :length] if want.shape[1] == length and got.shape[1] == width else got
            np.testing.assert_allclose(got, want, atol=1e-5, rtol=0)


def test_a_batch_of_padding_alone_is_finite(family: Exported) -> None:
    inputs = batch(np.array([], np.int64), 5, [0], family.checkpoint.pad_id)
    assert all(np.isfinite(values).all() for values in family.run(inputs).values())


@pytest.mark.parametrize("family", ["bert", "electra"], indirect=True)
def test_segments_reach_the_graph(family: Exported) -> None:
    inputs = dict(batch(np.arange(4, 13), 12, [], 0))
    first = family.run(inputs)
    inputs["token_type_ids"] = np.ones_like(inputs["token_type_ids"])
    wanted = TorchRunner(family.checkpoint.model, 0).forward(inputs, NAMES)
    second = family.run(inputs)
    for name, want in zip(NAMES, wanted, strict=True):
        assert np.abs(second[name] - first[name]).max() > 1e-2
        np.testing.assert_allclose(second[name][:, :9], want[:, :9], atol=1e-4, rtol=0)


def test_what_cannot_be_exported_is_one_line() -> None:
    config = LongformerConfig(**SIZES, attention_window=8)
    model = MultitaskModel(AutoModel.from_config(config), TASKS, dropout=0.0)
    with pytest.raises(Unexportable, match="type 'longformer' cannot be exported") as caught:
        padded_model(model)
    assert len(str(caught.value).splitlines()) == 1
