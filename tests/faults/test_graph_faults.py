"""Of several graphs, the one that may not or cannot run is refused in one line."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import trunkline
from trunkline.bundle import MANIFEST, Bundle, Manifest, open_bundle, seal
from trunkline.cli import main
from trunkline.errors import BundleError, ConfigError
from trunkline.files import sha256_of
from trunkline.model import open_model

PADDED, PACKED = "graphs/padded-fp32.onnx", "graphs/packed-fp32.onnx"
WEIGHTS = "graphs/fp32.weights"
TEXT = "Ada Brown lives in Oslo ."

Refused = Callable[..., str]


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    """A bundle of two graphs that share their weights, to be spoilt."""
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def changed(folder: Path, change: Callable[[Manifest], Manifest]) -> Bundle:
    seal(folder, change(open_bundle(folder).manifest))
    return open_bundle(folder)


def refused(folder: Path, **options: Any) -> str:
    """Returns the one line of the refusal to load a bundle."""
    with pytest.raises(BundleError) as caught:
        trunkline.load(folder, 1, **options)
    (line,) = str(caught.value).splitlines()
    return line


def ungate(manifest: Manifest) -> Manifest:
    return replace(manifest, gates=())


def fail_everywhere(manifest: Manifest) -> Manifest:
    return replace(manifest, gates=tuple(replace(one, passed=False) for one in manifest.gates))


def fail_one_task(manifest: Manifest) -> Manifest:
    gates = tuple(replace(one, passed=one.task != "qa") for one in manifest.gates)
    return replace(manifest, gates=gates)


def forget_one_task(manifest: Manifest) -> Manifest:
    return replace(manifest, gates=tuple(one for one in manifest.gates if one.task != "ner"))


def fail_once_of_twice(manifest: Manifest) -> Manifest:
    again = (replace(one, passed=False, data="test") for one in manifest.gates)
    return replace(manifest, gates=(*manifest.gates, *again))


@pytest.mark.parametrize(
    "change", [ungate, fail_everywhere, fail_one_task, forget_one_task, fail_once_of_twice]
)
def test_a_bundle_without_all_gates_passed_runs_only_if_allowed(
    copy: Path, change: Callable[[Manifest], Manifest]
) -> None:
    bundle = changed(copy, change)
    assert [bundle.passed(graph) for graph in bundle.manifest.graphs] == [False, False]
    assert refused(copy) == (
        f"{copy}: no graph has passed the gates of all tasks;"
        " export again with the dev data at hand, or allow ungated graphs"
    )
    model = trunkline.load(copy, 1, allow_ungated=True)
    assert model.self_test() > 10


def fail_packed(manifest: Manifest) -> Manifest:
    gates = tuple(replace(one, passed=one.graph != PACKED) for one in manifest.gates)
    return replace(manifest, gates=gates)


def test_of_two_graphs_the_one_that_passed_is_run(copy: Path) -> None:
    bundle = changed(copy, fail_packed)
    assert [graph.file for graph in bundle.candidates()] == [PADDED]
    assert trunkline.load(copy, 1).graph.file == PADDED
    line = refused(copy, graph="packed-fp32")
    assert line.startswith(f"{copy}: graph 'packed-fp32' has not passed the gates of all tasks; ")
    model = trunkline.load(copy, 1, graph="packed-fp32", allow_ungated=True)
    assert model.graph.file == PACKED
    assert model.self_test() > 10


@pytest.mark.parametrize("name", ["packed-int8", "graphs/other.onnx", "", "PACKED-FP32"])
@pytest.mark.parametrize("allowed", [False, True])
def test_an_unknown_graph_is_refused_and_the_others_named(
    exported: Path, name: str, allowed: bool
) -> None:
    assert refused(exported, graph=name, allow_ungated=allowed) == (
        f"{exported}: has no graph {name!r}; choose one of: padded-fp32, packed-fp32"
    )


@pytest.mark.parametrize("wanted", ["padded-fp32", PADDED, "packed-fp32", PACKED])
def test_a_graph_is_chosen_by_name_or_file(exported: Path, wanted: str) -> None:
    model = trunkline.load(exported, 1, graph=wanted)
    assert wanted in (model.graph.name, model.graph.file)
    assert model.self_test() > 10


def test_packed_comes_before_padded_and_int8_before_fp32(quantised: Path) -> None:
    bundle = open_bundle(quantised)
    names = [graph.name for graph in bundle.candidates()]
    assert names == ["packed-int8", "packed-fp32", "padded-fp32"]
    (padded,) = bundle.candidates("padded-fp32")
    slow = replace(padded, precision="int8-dynamic", file="graphs/dynamic.onnx")
    more = replace(bundle.manifest, graphs=(slow, *bundle.manifest.graphs))
    found = replace(bundle, manifest=more).candidates(allow_ungated=True)
    assert [graph.name for graph in found] == [*names, "padded-int8-dynamic"]


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def cut(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def test_missing_weights_are_told(copy: Path) -> None:
    (copy / WEIGHTS).unlink()
    assert refused(copy) == f"{copy / WEIGHTS}: is missing; copy the whole bundle again"


def test_weights_that_are_cut_short_are_told(copy: Path) -> None:
    cut(copy / WEIGHTS)
    line = refused(copy)
    assert line.startswith(f"{copy / WEIGHTS}: differs from the hash in manifest.json; ")


@pytest.mark.parametrize("spoil", [Path.unlink, cut])
@pytest.mark.parametrize("name", ["padded-fp32", "packed-fp32"])
def test_weights_that_change_after_the_check_are_told_too(
    copy: Path, spoil: Callable[[Path], None], name: str
) -> None:
    bundle = open_bundle(copy)
    spoil(copy / WEIGHTS)
    with pytest.raises(BundleError, match="onnxruntime cannot load it: ") as caught:
        open_model(bundle, 1, graph=name)
    assert len(str(caught.value).splitlines()) == 1
    assert str(copy / "graphs") in str(caught.value)


def test_weights_without_a_hash_are_refused(copy: Path) -> None:
    rewrite(copy, lambda manifest: manifest["files"].pop(WEIGHTS))
    assert refused(copy).startswith(f"{copy / WEIGHTS}: differs from the hash")


def test_golden_answers_of_each_graph_are_covered(quantised: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(quantised, tmp_path / "copy"))
    rewrite(copy, lambda manifest: manifest["files"].pop("golden-int8.jsonl"))
    assert refused(copy).startswith(f"{copy / 'golden-int8.jsonl'}: differs from the hash")
    (copy / "golden-int8.jsonl").unlink()
    assert refused(copy).startswith(f"{copy / 'golden-int8.jsonl'}: is missing")


def test_weights_outside_of_the_bundle_are_refused(copy: Path) -> None:
    def outside(manifest: dict[str, Any]) -> None:
        manifest["graphs"][0]["weights"] = "../fp32.weights"

    rewrite(copy, outside)
    assert "names a file outside it: ../fp32.weights" in refused(copy)


def test_a_graph_that_says_another_layout_is_refused(copy: Path) -> None:
    def confuse(manifest: dict[str, Any]) -> None:
        for graph in manifest["graphs"]:
            graph["layout"] = "padded" if graph["layout"] == "packed" else "packed"

    rewrite(copy, confuse)
    line = refused(copy, graph=PACKED)
    assert line.startswith(f"{copy / PACKED}: graph wants input '")
    assert refused(copy, graph=PADDED) == (
        f"{copy / PADDED}: graph wants input 'attention_mask'; export again"
    )


def test_verify_tests_every_graph_with_its_own_answers(
    quantised: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(quantised, tmp_path / "copy"))
    golden = copy / "golden-int8.jsonl"
    golden.write_text(golden.read_text().replace("LOC", "PER", 1))

    def rehash(manifest: dict[str, Any]) -> None:
        manifest["files"][golden.name] = sha256_of(golden)

    rewrite(copy, rehash)
    assert main(["verify", str(copy)]) == 2
    shown = capsys.readouterr()
    assert [line.split(":")[0] for line in shown.out.splitlines()] == [
        "hashes",
        "padded-fp32",
        "packed-fp32",
    ]
    assert "golden-int8.jsonl:" in shown.err
    assert "self-test failed at" in shown.err


def test_two_wheels_of_onnxruntime_are_refused(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = metadata.distribution("onnxruntime")
    monkeypatch.setattr(metadata, "distribution", lambda package: here)
    with pytest.raises(ConfigError) as caught:
        trunkline.load(exported, 1)
    (line,) = str(caught.value).splitlines()
    assert line.startswith("onnxruntime and onnxruntime-gpu are both installed")
    assert "pip uninstall both" in line


@pytest.mark.parametrize("installed", [{"onnxruntime"}, {"onnxruntime-gpu"}, set()])
def test_one_wheel_of_either_or_a_build_of_ones_own_is_fine(
    exported: Path, monkeypatch: pytest.MonkeyPatch, installed: set[str]
) -> None:
    here = metadata.distribution("onnxruntime")

    def distribution(package: str) -> metadata.Distribution:
        if package in installed:
            return here
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "distribution", distribution)
    assert trunkline.load(exported, 1).analyze(TEXT).text == TEXT


OVERWRITTEN = """
import os, sys, trunkline
bundle, graph, weights, text = sys.argv[1:]
model = trunkline.load(bundle, 1, graph=graph)
before, size = model.analyze(text), os.path.getsize(weights)
os.truncate(weights, 0)  # as `cp` over it does first
assert model.analyze(text) == before
os.truncate(weights, size)  # other weights, as `rsync --inplace` leaves them
assert model.analyze(text) == before
"""


@pytest.mark.parametrize("graph", ["padded-fp32", "packed-fp32"])
def test_weights_that_are_overwritten_under_a_model_change_nothing(copy: Path, graph: str) -> None:
    # In a process of its own: one that reads a mapped file beyond its end is killed.
    line = [sys.executable, "-c", OVERWRITTEN, copy, graph, copy / WEIGHTS, TEXT]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
