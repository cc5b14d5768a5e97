"""Graphs in onnxruntime-web under Node give what they give in Python."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

from trunkline.batching import pad
from trunkline.bundle import Graph, open_bundle, seal
from trunkline.encode import Row
from trunkline.kinds import Output, task_outputs
from trunkline.packing import pack, width_of
from trunkline.session import Session
from trunkline_export.ort_format import write_ort

pytestmark = [
    pytest.mark.network,
    pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node with npm"),
]

Run = Callable[..., subprocess.CompletedProcess[str]]
Arrays = dict[str, NDArray[np.generic]]

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/edge.md"
SCRIPT = Path(__file__).with_name("web") / "run.mjs"
CACHE = ROOT / ".tools/web"
PACKAGES = "onnxruntime-web@1.30.0 @huggingface/tokenizers@0.2.0"

FORMS: dict[str, dict[str, Any]] = {
    "inside": {},
    "beside": {"save_as_external_data": True, "location": "weights.bin"},
}
TEXT = "Ada Brown works in Hamburg, the city of Tom Reed."


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a script that imports the packages; they stay in .tools/, like those of make."""
    stamp = CACHE / "installed"
    if not stamp.is_file() or stamp.read_text() != PACKAGES:
        npm = ["npm", "install", "--prefix", CACHE, "--no-save", "--loglevel=error"]
        done = subprocess.run(
            [*npm, *PACKAGES.split()], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        stamp.write_text(PACKAGES)
    folder = tmp_path_factory.mktemp("node")
    (folder / "node_modules").symlink_to(CACHE / "node_modules")

    def run(script: str, *given: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        (folder / "script.mjs").write_text(script, encoding="utf-8")
        command = ["node", folder / "script.mjs", *given]
        return subprocess.run(
            command, input=stdin, capture_output=True, encoding="utf-8", check=False
        )

    return run


@pytest.fixture(scope="module", params=FORMS)
def rewritten(
    request: pytest.FixtureRequest, exported: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The bundle with its padded graph alone, and the weights in that or in a file beside it."""
    folder = tmp_path_factory.mktemp("web") / request.param
    shutil.copytree(exported, folder, ignore=shutil.ignore_patterns("graphs"))
    graph = named(exported, "padded-fp32")
    (folder / graph.file).parent.mkdir()
    form = FORMS[request.param]
    onnx.save(onnx.load(exported / graph.file), folder / graph.file, **form)
    graph = replace(graph, weights=f"graphs/{form['location']}" if form else "")
    seal(folder, replace(open_bundle(exported).manifest, graphs=(graph,), gates=()))
    return folder


def named(bundle: Path, name: str) -> Graph:
    return next(one for one in open_bundle(bundle).manifest.graphs if one.name == name)


def outputs_of(bundle: Path) -> list[Output]:
    return [output for spec in open_bundle(bundle).manifest.tasks for output in task_outputs(spec)]


def row(ids: Sequence[int]) -> Row:
    values = np.array(ids, np.int64)
    return Row(values, np.zeros_like(values), 1, 0, len(ids) - 2, 0, len(ids) - 2)


def rows() -> list[Row]:
    """Rows of unequal length, of pieces drawn at random."""
    random = np.random.default_rng(0)
    return [row(random.integers(5, 60, size).tolist()) for size in (31, 64, 7, 2)]


def feed_of(bundle: Path, graph: Graph, given: Sequence[Row]) -> Arrays:
    if graph.layout == "packed":
        feed = pack(given, width_of(max(map(len, given)))).feed
    else:
        feed = pad(given, open_bundle(bundle).manifest.encoder.pad_id)
    return {tensor.name: feed[tensor.name] for tensor in graph.inputs}


def in_python(bundle: Path, graph: Graph, feed: Arrays) -> Arrays:
    outputs = outputs_of(bundle)
    names = [output.name for output in outputs]
    session = Session(bundle / graph.file, list(feed), outputs, 1)
    return dict(zip(names, session.run(names, feed), strict=True))


def in_node(node: Run, bundle: Path, graph: Graph, feed: Arrays) -> Arrays:
    given = {
        name: {"dims": value.shape, "data": value.reshape(-1).tolist()}
        for name, value in feed.items()
    }
    script = SCRIPT.read_text(encoding="utf-8")
    done = node(script, bundle, graph.name, stdin=json.dumps(given))
    assert (done.returncode, done.stderr) == (0, "")
    return {
        name: np.array(value["data"], np.float32).reshape(value["dims"])
        for name, value in json.loads(done.stdout).items()
    }


def largest_difference(want: Arrays, got: Arrays) -> float:
    assert list(want) == list(got)
    assert {name: value.shape for name, value in want.items()} == {
        name: value.shape for name, value in got.items()
    }
    for value in want.values():
        assert np.ptp(value) > 0.1, "a head that says nothing proves nothing"
    return float(max(np.abs(want[name] - got[name]).max() for name in want))


def test_weights_inside_and_beside_the_graph(node: Run, exported: Path, rewritten: Path) -> None:
    files = {path.name for path in (rewritten / "graphs").iterdir()}
    assert ("weights.bin" in files) == (rewritten.name == "beside")
    graph = named(rewritten, "padded-fp32")
    feed = feed_of(rewritten, graph, rows())
    want = in_python(exported, named(exported, "padded-fp32"), feed)
    assert largest_difference(want, in_node(node, rewritten, graph, feed)) < 1e-4


@pytest.mark.parametrize("name", ["padded-fp32", "packed-fp32", "packed-int8"])
def test_graphs_as_exported_and_in_the_format_of_onnxruntime(
    node: Run, quantised: Path, tmp_path: Path, name: str
) -> None:
    graph = named(quantised, name)
    converted = write_ort(open_bundle(quantised), graph, tmp_path / "ort").path
    feed = feed_of(quantised, graph, rows())
    want = in_python(quantised, graph, feed)
    # A value that differs in its last bit may be rounded to another byte.
    bound = 0.02 if graph.precision == "int8" else 1e-4
    for bundle in (quantised, converted):
        got = in_node(node, bundle, named(bundle, name), feed)
        assert largest_difference(want, got) < bound


def test_what_is_missing_is_one_line(node: Run, exported: Path, tmp_path: Path) -> None:
    script = SCRIPT.read_text(encoding="utf-8")
    done = node(script, exported, "padded-fp64")
    assert (done.returncode, done.stderr) == (1, f"{exported}: has no graph padded-fp64\n")
    shutil.copytree(exported, tmp_path / "short")
    weights = named(exported, "padded-fp32").weights
    (tmp_path / "short" / weights).unlink()
    done = node(script, tmp_path / "short", "padded-fp32")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert weights in done.stderr


@pytest.mark.parametrize("name", ["padded-fp32", "packed-fp32", "packed-int8"])
def test_the_documented_program_tags_as_python_does(node: Run, quantised: Path, name: str) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert f"npm install {PACKAGES}" in text
    (program,) = re.findall(r"```js\n(.*?)```", text, re.DOTALL)
    done = node(program, quantised, name, TEXT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == tagged(quantised, named(quantised, name))


def tagged(bundle: Path, graph: Graph) -> list[str]:
    """Lines of a task, a token and its label, special tokens included."""
    encoding = Tokenizer.from_file(str(bundle / "tokenizer.json")).encode(TEXT)
    feed = feed_of(bundle, graph, [row(encoding.ids)])
    labels = open_bundle(bundle).manifest.tasks[0].labels
    logits = in_python(bundle, graph, feed)["ner.logits"].reshape(-1, len(labels))
    best = [labels[at] for at in logits.argmax(-1)]
    assert set(best) >= {"O", "B-PER", "I-PER", "B-LOC"}
    return [f"ner {token} {label}" for token, label in zip(encoding.tokens, best, strict=True)]
