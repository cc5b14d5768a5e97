"""A tiny bundle: real files, a real graph, no training.

Its logits depend on every real token of a row, through the sum of their embeddings. All weights are
small whole numbers, so sums are exact in any order: a row gives the same bits in any batch.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from trunkline import Document, Question
from trunkline.bundle import (
    GOLDEN,
    SCHEMA_VERSION,
    TOKENIZER,
    EncoderFacts,
    Gate,
    Graph,
    Manifest,
    Tensor,
    seal,
    written_bundle,
)
from trunkline.encode import TextEncoder
from trunkline.golden import write_golden
from trunkline.kinds import Output, task_outputs
from trunkline.pipeline import Pipeline
from trunkline.runner import OrtRunner
from trunkline.tasks import AnswerOptions, TaskSpec, TextOptions, TokenOptions

# A text with this word gives NaN.
POISON = "poison"

TASKS = (
    TaskSpec(
        "ner",
        "token-classification",
        ("O", "B-PER", "I-PER", "B-LOC", "I-LOC"),
        TokenOptions("spans"),
    ),
    TaskSpec("pos", "token-classification", ("NOUN", "VERB", "X"), TokenOptions("tags")),
    TaskSpec("qa", "question-answering", (), AnswerOptions(n_best=2)),
    TaskSpec("topic", "text-classification", ("arts", "trade", "sport"), TextOptions()),
    TaskSpec(
        "mood", "text-classification", ("calm", "glad", "loud"), TextOptions(multi_label=True)
    ),
    TaskSpec("match", "text-classification", ("same", "other"), TextOptions(pair=True)),
)

_WORDS = """
    where when who what is was in at the a an of and ada ibm bern zurich rome paris london opened
    office bank river engine built wrote book city lives works cafe naive poison
    😀 🎉 привет мир שלום سلام 東 京
"""
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_HIDDEN = 8
_MAX_LENGTH = 128
_OVERLAP = 16
_FILE = "graphs/model.onnx"
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def build_tiny_bundle(folder: Path, name: str = "tiny", version: int = 1) -> Path:
    """Writes the bundle to `folder`, over one that is there, and returns it."""
    encoder = TextEncoder(_tokenizer(), _MAX_LENGTH, _OVERLAP)
    with written_bundle(folder, overwrite=True) as aside:
        (aside / "graphs").mkdir()
        (aside / TOKENIZER).write_text(encoder.to_json(), encoding="utf-8")
        onnx.save(_graph(), aside / _FILE)
        outputs = [output for spec in TASKS for output in task_outputs(spec)]
        runner = OrtRunner(aside / _FILE, 0, outputs, 1)
        results = Pipeline(TASKS, encoder, runner).analyze(_golden())
        write_golden(aside / GOLDEN, results)
        seal(aside, _manifest(name, version, outputs))
    return folder


def _golden() -> list[Document]:
    return [
        Document("IBM opened an office in Bern.", (Question("Where is the office?", "qa"),)),
        Document("Ada lives in Zürich 😀 and works in 東京.", text_pair="Who lives in Zürich?"),
    ]


def _manifest(name: str, version: int, outputs: list[Output]) -> Manifest:
    graph = Graph(
        file=_FILE,
        layout="padded",
        precision="fp32",
        providers=("CPUExecutionProvider",),
        inputs=tuple(Tensor(one, "int64", ("batch", "sequence")) for one in _INPUTS),
        outputs=tuple(Tensor(one.name, "float32", one.axes) for one in outputs),
        opset=17,
        operators=dict(Counter(node.op_type for node in _graph().graph.node)),
    )
    facts = EncoderFacts("bert", _HIDDEN, 1, 1000, _MAX_LENGTH, _OVERLAP, 0)
    gates = tuple(_gate(spec) for spec in TASKS)
    return Manifest(SCHEMA_VERSION, name, version, facts, TASKS, (graph,), gates)


def _gate(spec: TaskSpec) -> Gate:
    """Returns a verdict without which the graph would not be run; nothing was measured."""
    return Gate(
        graph=_FILE,
        task=spec.name,
        metric="f1",
        reference=90.0,
        value=90.0,
        low=0.0,
        high=0.0,
        agreement=100.0,
        n=1,
        passed=True,
        data="dev",
        data_sha256="0" * 64,
    )


def _tokenizer() -> Tokenizer:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = (
        *_SPECIAL,
        *_WORDS.split(),
        *".,?!-'",
        *letters,
        *(f"##{letter}" for letter in letters),
    )
    vocabulary = {piece: at for at, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return tokenizer


def _graph() -> onnx.ModelProto:
    """Returns logits = E w + (masked sum of E) u, and E = embeddings of the tokens."""
    random = np.random.default_rng(7)
    weights = {"embeddings": _embeddings(random), "last": np.array([2], np.int64)}
    nodes = [
        helper.make_node("Gather", ["embeddings", "input_ids"], ["tokens"]),
        helper.make_node("Cast", ["attention_mask"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["real", "last"], ["mask"]),
        helper.make_node("Mul", ["tokens", "mask"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "one"], ["row"], keepdims=1),
        helper.make_node("Mul", ["tokens", "row"], ["mixed"]),
    ]
    weights["one"] = np.array([1], np.int64)
    for spec in TASKS:
        for output in task_outputs(spec):
            nodes += _head(output, len(spec.labels) or 1, weights, random)
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info(one, TensorProto.INT64, ["batch", "sequence"])
            for one in _INPUTS
        ],
        [
            helper.make_tensor_value_info(output.name, TensorProto.FLOAT, list(output.axes))
            for spec in TASKS
            for output in task_outputs(spec)
        ],
        [numpy_helper.from_array(value, one) for one, value in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9)


def _embeddings(random: np.random.Generator) -> NDArray[np.float32]:
    vocabulary = _tokenizer().get_vocab()
    table = random.integers(-3, 4, (len(vocabulary), _HIDDEN)).astype(np.float32)
    table[vocabulary[POISON]] = np.nan
    return table


def _head(
    output: Output,
    width: int,
    weights: dict[str, NDArray[np.generic]],
    random: np.random.Generator,
) -> list[onnx.NodeProto]:
    name = output.name
    # Divided by powers of two, so that all stays exact.
    weights[f"{name}.own"] = (random.integers(-4, 5, (_HIDDEN, width)) / 4).astype(np.float32)
    weights[f"{name}.mixed"] = (random.integers(-4, 5, (_HIDDEN, width)) / 64).astype(np.float32)
    if "sequence" not in output.axes:
        # The whole row's embeddings are summed before.
        nodes = [helper.make_node("MatMul", ["row", f"{name}.mixed"], [f"{name}.whole"])]
        return [*nodes, helper.make_node("Squeeze", [f"{name}.whole", "one"], [name])]
    per_label = "labels" in output.axes
    last = name if per_label else f"{name}.wide"
    nodes = [
        helper.make_node("MatMul", ["tokens", f"{name}.own"], [f"{name}.a"]),
        helper.make_node("MatMul", ["mixed", f"{name}.mixed"], [f"{name}.b"]),
        helper.make_node("Add", [f"{name}.a", f"{name}.b"], [last]),
    ]
    if not per_label:
        nodes.append(helper.make_node("Squeeze", [last, "last"], [name]))
    return nodes
