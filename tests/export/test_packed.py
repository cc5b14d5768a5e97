"""The packed graphs: what torch gives, and for int8 and fp32 alike the same bits in any company."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import (
    BertConfig,
    CamembertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    PretrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

import trunkline
from tests.export.shapes import MODERNBERT
from tests.small import Corpus, wordpiece
from trunkline import calibration, session
from trunkline.bundle import Graph, open_bundle
from trunkline.calibration import Choice
from trunkline.decode.numeric import Floats
from trunkline.encode import Row, TextEncoder
from trunkline.kinds import Output, all_outputs
from trunkline.runner import PACK_TOKENS, OrtRunner, PackedRunner, Runner
from trunkline.tasks import AnswerOptions, TaskSpec, TextOptions, TokenOptions
from trunkline_export import variants
from trunkline_export.channels import channel_sizes
from trunkline_export.fusions import check_fusions
from trunkline_export.packed import packed_model
from trunkline_export.parity import ParityError, check_rows, check_same_alone, random_rows
from trunkline_export.trunk import Unpackable, read_trunk
from trunkline_export.variants import (
    INT8,
    PACKED,
    PADDED,
    int8_model,
    is_packable,
    write_dynamic,
)
from trunkline_train.checkpoint import Checkpoint, Progress
from trunkline_train.model.encoder import encoder_from_config
from trunkline_train.model.multitask import MultitaskModel
from trunkline_train.pretrained import longest_row
from trunkline_train.torch_runner import TorchRunner

CALM = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
LONGEST = 64
lengths = st.lists(st.integers(2, LONGEST), min_size=1, max_size=10)
seeds = st.integers(0, 2**32 - 1)

RowOutputs = Mapping[str, Floats]


def some_rows(
    checkpoint: Checkpoint, given_: Sequence[int], seed: int, *, types: bool = True
) -> list[Row]:
    """Returns rows of random ids and segments, of these lengths; none holds padding."""
    random = np.random.default_rng(seed)
    pieces = np.delete(np.arange(checkpoint.model.config.vocab_size), checkpoint.pad_id)
    rows = []
    for size in given_:
        segments = random.integers(0, 2, size) if types else np.zeros(size, np.int64)
        rows.append(Row(random.choice(pieces, size), segments, 0, 0, size, 0, size))
    return rows


def same(one: RowOutputs, other: RowOutputs) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def largest_difference(one: Sequence[RowOutputs], other: Sequence[RowOutputs]) -> float:
    return max(
        float(np.abs(a[name] - b[name]).max())
        for a, b in zip(one, other, strict=True)
        for name in a
    )


def mixed(rows: Sequence[Row], runner: Runner, outputs: Sequence[Output], seed: int) -> list:
    """Returns the rows' outputs, run in another order."""
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    results = runner.run([rows[at] for at in order], outputs)
    return [results[order.index(at)] for at in range(len(rows))]


@pytest.fixture(scope="module")
def every_int8(every_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The int8 graph of the model with tasks of every kind."""
    path = tmp_path_factory.mktemp("every") / "int8.onnx"
    rows = some_rows(every_checkpoint, (20, 64, 9, 33), 0)
    onnx.save(int8_model(every_checkpoint, channel_sizes(every_checkpoint.model, rows)), path)
    return path


@pytest.fixture(scope="module", params=["fp32", "int8"])
def packed(
    request: pytest.FixtureRequest, every_exported: Path, every_int8: Path, corpus: Corpus
) -> Path:
    """A packed graph with outputs per token and per row."""
    return every_exported / PACKED if request.param == "fp32" else every_int8


@pytest.fixture(scope="module")
def runners(packed: Path, every_checkpoint: Checkpoint) -> list[PackedRunner]:
    """Of one thread and of two, with packs that are small and large."""
    outputs = all_outputs(every_checkpoint.tasks)
    return [PackedRunner(packed, outputs, *how) for how in ((1, 512), (2, 512), (2, 40))]


def test_packed_fp32_gives_what_torch_and_the_padded_graph_give(
    every_checkpoint: Checkpoint, every_exported: Path
) -> None:
    outputs = all_outputs(every_checkpoint.tasks)
    packed = PackedRunner(every_exported / PACKED, outputs, 1)
    padded = OrtRunner(every_exported / PADDED, every_checkpoint.pad_id, outputs, 1)
    reference = TorchRunner(every_checkpoint.model, every_checkpoint.pad_id)
    for seed in range(5):
        sizes = [2, LONGEST, *np.random.default_rng(seed).integers(2, LONGEST, 8).tolist()]
        rows = some_rows(every_checkpoint, sizes, seed)
        found = packed.run(rows, outputs)
        assert largest_difference(found, reference.run(rows, outputs)) < 1e-4
        assert largest_difference(found, padded.run(rows, outputs)) < 1e-4


def test_packed_int8_gives_nearly_what_torch_gives(
    every_checkpoint: Checkpoint, every_int8: Path
) -> None:
    outputs = all_outputs(every_checkpoint.tasks)
    rows = some_rows(every_checkpoint, [2, 64, 17, 33, 8], 3)
    wanted = TorchRunner(every_checkpoint.model, every_checkpoint.pad_id).run(rows, outputs)
    found = PackedRunner(every_int8, outputs, 1).run(rows, outputs)
    values = np.concatenate([row[output.name].ravel() for row in wanted for output in outputs])
    errors = np.concatenate(
        [
            (w[o.name] - f[o.name]).ravel()
            for w, f in zip(wanted, found, strict=True)
            for o in outputs
        ]
    )
    assert 0 < errors.std() < 0.05 * values.std()


@given(lengths, seeds)
@CALM
def test_a_row_gives_the_same_bits_alone_and_in_any_company(
    every_checkpoint: Checkpoint, runners: list[PackedRunner], given_: list[int], seed: int
) -> None:
    outputs = all_outputs(every_checkpoint.tasks)
    rows = some_rows(every_checkpoint, given_, seed)
    alone = [runners[0].run([row], outputs)[0] for row in rows]
    for runner in runners:
        for results in (runner.run(rows, outputs), mixed(rows, runner, outputs, seed)):
            assert all(map(same, alone, results))


def test_the_shortest_and_the_longest_rows_give_the_same_bits_too(
    every_checkpoint: Checkpoint, runners: list[PackedRunner]
) -> None:
    outputs = all_outputs(every_checkpoint.tasks)
    rows = some_rows(every_checkpoint, [2, LONGEST, 2, 16, 17, LONGEST, 2], 5)
    alone = [runners[0].run([row], outputs)[0] for row in rows]
    for runner in runners:
        assert all(map(same, alone, runner.run(rows, outputs)))


def test_many_rows_at_once_give_the_same_bits_too(
    every_checkpoint: Checkpoint, runners: list[PackedRunner]
) -> None:
    outputs = all_outputs(every_checkpoint.tasks)
    sizes = np.random.default_rng(1).integers(2, LONGEST + 1, 120).tolist()
    rows = some_rows(every_checkpoint, sizes, 8)
    wanted = [runners[0].run([row], outputs)[0] for row in rows]
    for runner in runners:
        assert all(map(same, wanted, runner.run(rows, outputs)))


def test_a_row_depends_on_its_own_tokens_and_segments(
    every_checkpoint: Checkpoint, runners: list[PackedRunner]
) -> None:
    outputs = all_outputs(every_checkpoint.tasks)
    (row,) = some_rows(every_checkpoint, [20], 2)
    ids, types = row.input_ids.copy(), row.token_type_ids.copy()
    ids[-1] = (ids[-1] + 1) % every_checkpoint.model.config.vocab_size
    types[0] = 1 - types[0]
    others = [
        Row(ids, row.token_type_ids, 0, 0, 20, 0, 20),
        Row(row.input_ids, types, 0, 0, 20, 0, 20),
    ]
    (before,) = runners[0].run([row], outputs)
    for after in runners[0].run(others, outputs):
        assert all(not np.array_equal(before[name], after[name]) for name in before)


def test_dynamic_int8_changes_with_batch_mates_and_ours_does_not(
    checkpoint: Checkpoint,
    exported: Path,
    quantised: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Why there is an int8 of our own: a scale for the whole batch lets texts change each other."""
    monkeypatch.setattr(variants, "padded_model", lambda model: onnx.load(exported / PADDED))
    graph = write_dynamic(checkpoint, tmp_path)
    outputs = all_outputs(checkpoint.tasks)
    dynamic = OrtRunner(tmp_path / graph.file, checkpoint.pad_id, outputs, 1)
    ours = PackedRunner(quantised / INT8, outputs, 1)
    # Of one length, so that not even padding tells the batches apart.
    rows = some_rows(checkpoint, [24] * 6, 4)
    for runner, changes in ((dynamic, True), (ours, False)):
        together = runner.run(rows, outputs)
        alone = [runner.run([row], outputs)[0] for row in rows]
        difference = largest_difference(together, alone)
        assert (difference > 1e-2) if changes else (difference == 0.0)
    check_same_alone(ours, checkpoint)
    with pytest.raises(
        ParityError, match=r"^ner\.logits: a row of 2 tokens differs by .* in company$"
    ):
        check_same_alone(dynamic, checkpoint)


@pytest.mark.parametrize("budget", [PACK_TOKENS, 1])
def test_rows_run_in_packs_or_alone_whichever_is_quicker_and_answer_the_same(
    quantised: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    def times(trials: Mapping[object, object]) -> dict[object, float]:
        quick = (INT8, Choice(INT8, budget))
        return {name: 0.1 if name in quick else 1.0 for name in trials}

    monkeypatch.setattr(calibration, "measure", times)
    bundle = shutil.copytree(quantised, tmp_path / "bundle")
    model = trunkline.load(bundle, 2)
    assert (model.graph.file, model.runner.budget) == (INT8, budget)
    assert model.self_test() > 0
    rows = some_rows_of(model)
    usual = trunkline.load(quantised, 2, graph=INT8).runner
    outputs = all_outputs(model.manifest.tasks)
    assert all(map(same, model.runner.run(rows, outputs), usual.run(rows, outputs)))


def some_rows_of(model: trunkline.Model) -> list[Row]:
    texts = ["Ada lives in Rome.", "Rome was built at the river.", "Ada " * 20] * 5
    encoder = model.pipeline.encoder
    return [row for text in texts for row in encoder.rows(encoder.tokenize(text))]


def test_int8_gives_the_same_bits_as_where_sums_of_bytes_overflow(
    every_checkpoint: Checkpoint, every_int8: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without VNNI other kernels are asked for, which never overflow; where there is, none does."""
    outputs = all_outputs(every_checkpoint.tasks)
    rows = some_rows(every_checkpoint, [2, 31, LONGEST, 16, 17], 6)
    wanted = PackedRunner(every_int8, outputs, 1).run(rows, outputs)
    monkeypatch.setattr(session, "lacks_vnni", lambda: True)
    found = PackedRunner(every_int8, outputs, 1).run(rows, outputs)
    assert all(map(same, wanted, found))
    check_fusions(every_int8, every_checkpoint.model, int8=True)


def test_no_rows_run_nothing(every_checkpoint: Checkpoint, runners: list[PackedRunner]) -> None:
    assert runners[0].run([], all_outputs(every_checkpoint.tasks)) == []


def test_int8_weights_take_a_byte_each(quantised: Path, checkpoint: Checkpoint) -> None:
    graph = onnx.load(quantised / INT8).graph
    sizes = {one.name: len(one.raw_data) for one in graph.initializer}
    quantised_ = {one.name for one in graph.initializer if one.data_type == onnx.TensorProto.INT8}
    assert sum(one.name.endswith(".weight") for one in graph.initializer) > len(quantised_) > 8
    encoder = checkpoint.model.encoder
    matrices = [p for n, p in encoder.named_parameters() if p.dim() == 2 and "pooler" not in n]
    small = ("position_embeddings", "token_type_embeddings")
    kept = [p for n, p in encoder.named_parameters() if any(part in n for part in small)]
    wanted = sum(p.numel() for p in matrices) - sum(p.numel() for p in kept)
    assert sum(sizes[name] for name in quantised_) == wanted


def test_both_packed_graphs_declare_the_same_inputs_and_outputs(quantised: Path) -> None:
    graphs = {graph.name: graph for graph in open_bundle(quantised).manifest.graphs}
    fp32, int8 = graphs["packed-fp32"], graphs["packed-int8"]
    assert (fp32.inputs, fp32.outputs) == (int8.inputs, int8.outputs)
    assert {one.name: one.axes for one in fp32.inputs} == {
        "input_ids": ("tokens",),
        "position_ids": ("tokens",),
        "token_type_ids": ("tokens",),
        "padded_index": ("rows", "width"),
        "token_index": ("tokens",),
    }
    assert said(fp32) == {"ner.logits": ("tokens", "5"), **dict.fromkeys(SPANS, ("tokens",))}


SPANS = ("qa.start_logits", "qa.end_logits")


def said(graph: Graph) -> dict[str, tuple[str, ...]]:
    return {one.name: one.axes for one in graph.outputs}


SIZES = {
    "vocab_size": 200,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": LONGEST,
    "pad_token_id": 0,
}
SHIFTED = SIZES | {"pad_token_id": 1, "max_position_embeddings": LONGEST + 2}
DISTIL = {
    "vocab_size": 200,
    "dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 64,
    "max_position_embeddings": LONGEST,
}


def modernbert(**changed: object) -> ModernBertConfig:
    """Returns a layer of global and one of local attention, or what is asked for instead."""
    config = SIZES | MODERNBERT | changed
    config["layer_types"] = (config["layer_types"] * 2)[: config["num_hidden_layers"]]
    return ModernBertConfig(**config)


FAMILIES: dict[str, Callable[[], PretrainedConfig]] = {
    "bert": lambda: BertConfig(**SIZES),
    "bert gelu_new": lambda: BertConfig(**SIZES, hidden_act="gelu_new"),
    "bert relu": lambda: BertConfig(**SIZES, hidden_act="relu"),
    "distilbert": lambda: DistilBertConfig(**DISTIL),
    "distilbert relu": lambda: DistilBertConfig(**DISTIL, activation="relu"),
    "electra": lambda: ElectraConfig(**SIZES, embedding_size=32),
    "electra projected": lambda: ElectraConfig(**SIZES, embedding_size=16),
    "roberta": lambda: RobertaConfig(**SHIFTED, type_vocab_size=1),
    "xlm-roberta": lambda: XLMRobertaConfig(**SHIFTED, type_vocab_size=1),
    "camembert": lambda: CamembertConfig(**SHIFTED, type_vocab_size=1),
    "modernbert": modernbert,
    "modernbert biased": lambda: modernbert(
        attention_bias=True, mlp_bias=True, norm_bias=True, hidden_activation="gelu_new"
    ),
    "modernbert relu": lambda: modernbert(hidden_activation="relu", num_hidden_layers=4),
    "modernbert local": lambda: modernbert(layer_types=["sliding_attention"] * 2),
}


TASKS = (
    TaskSpec("ner", "token-classification", ("O", "B-PER", "I-PER"), TokenOptions()),
    TaskSpec("qa", "question-answering", (), AnswerOptions()),
    TaskSpec("topic", "text-classification", ("life", "weather"), TextOptions()),
)


def untrained(folder: Path, config: PretrainedConfig, corpus: Corpus) -> Checkpoint:
    """Returns a model as a checkpoint's is built, its weights large enough to differ."""
    config.save_pretrained(folder)
    torch.manual_seed(0)
    model = MultitaskModel(encoder_from_config(str(folder)), TASKS, dropout=0.1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.15)
    encoder = TextEncoder(wordpiece(), longest_row(config, config.pad_token_id), overlap=4)
    return Checkpoint(model, encoder, config.pad_token_id, corpus.load(), Progress())


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest, corpus: Corpus, tmp_path: Path) -> Checkpoint:
    return untrained(tmp_path, FAMILIES[request.param](), corpus)


def test_the_packed_graph_of_a_family_gives_what_torch_gives(
    family: Checkpoint, tmp_path: Path
) -> None:
    path, outputs = tmp_path / "packed.onnx", all_outputs(family.tasks)
    onnx.save(packed_model(family.model), path)
    check_fusions(path, family.model)
    runner = PackedRunner(path, outputs, 1)
    assert check_rows(runner, family) < 1e-4
    check_same_alone(runner, family)
    types = getattr(family.model.config, "type_vocab_size", 0) > 1
    rows = some_rows(family, [2, 31, LONGEST, 16, 17], 1, types=types)
    wanted = TorchRunner(family.model, family.pad_id).run(rows, outputs)
    found = runner.run(rows, outputs)
    assert largest_difference(found, wanted) < 1e-4
    assert np.ptp(np.concatenate([row["ner.logits"].ravel() for row in wanted])) > 1


def test_the_int8_graph_of_a_family_gives_the_same_in_any_company(
    family: Checkpoint, tmp_path: Path
) -> None:
    path, outputs = tmp_path / "int8.onnx", all_outputs(family.tasks)
    rows = some_rows(family, [2, 31, LONGEST, 16, 17, 5, 48], 1, types=False)
    onnx.save(int8_model(family, channel_sizes(family.model, rows)), path)
    check_fusions(path, family.model, int8=True)
    runner = PackedRunner(path, outputs, 1)
    check_same_alone(runner, family)
    wanted = TorchRunner(family.model, family.pad_id).run(rows, outputs)
    found = runner.run(rows, outputs)
    spread = np.concatenate([row["ner.logits"].ravel() for row in wanted]).std()
    assert largest_difference(found, wanted) < spread


UNPACKABLE: dict[str, tuple[Callable[[], PretrainedConfig], str]] = {
    "deberta-v2": (lambda: DebertaV2Config(**SIZES), "distance of every two tokens"),
    "modernbert": (
        lambda: modernbert(
            rope_parameters={"full_attention": {"rope_type": "linear", "factor": 2.0}}
        ),
        "rotary positions of type 'linear'; known: 'default'",
    ),
    "bert": (lambda: BertConfig(**SIZES, hidden_act="silu"), "activation 'silu'; known: gelu"),
}


@pytest.mark.parametrize("name", UNPACKABLE)
def test_what_cannot_be_packed_is_told_by_name(corpus: Corpus, tmp_path: Path, name: str) -> None:
    make, told = UNPACKABLE[name]
    checkpoint = untrained(tmp_path, make(), corpus)
    with pytest.raises(Unpackable) as caught:
        read_trunk(checkpoint.model.encoder)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"no packed graph for '{name}'")
    assert told in line
    assert is_packable(checkpoint) == line


def test_random_rows_of_a_check_hold_no_padding(family: Checkpoint) -> None:
    rows = random_rows(family)
    assert {min(map(len, rows)), max(map(len, rows))} == {2, LONGEST}
    found = set(np.concatenate([row.input_ids for row in rows]).tolist())
    assert family.pad_id not in found
    assert 100 < len(found) < 200
    assert found <= set(range(200))
