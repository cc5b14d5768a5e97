"""Nothing in a bundle reaches out of it."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import trunkline
from trunkline.bundle import GOLDEN, MANIFEST, TOKENIZER
from trunkline.errors import BundleError
from trunkline.files import sha256_of

GRAPH = "graphs/model.onnx"


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "bundles" / "copy"))


@pytest.mark.parametrize("name", [GRAPH, TOKENIZER, GOLDEN, MANIFEST])
@pytest.mark.parametrize("absolute", [True, False])
def test_a_link_out_of_the_bundle_is_refused(copy: Path, name: str, absolute: bool) -> None:
    outside = copy.parent / "outside"
    (copy / name).rename(outside)
    target = outside if absolute else Path(os.path.relpath(outside, (copy / name).parent))
    (copy / name).symlink_to(target)
    with pytest.raises(BundleError, match="is a link out of the bundle; copy the file") as caught:
        trunkline.load(copy, 1)
    assert caught.value.path == copy / name


def test_a_folder_that_is_a_link_out_of_the_bundle_is_refused(copy: Path) -> None:
    (copy / "graphs").rename(copy.parent / "graphs")
    (copy / "graphs").symlink_to(copy.parent / "graphs")
    with pytest.raises(BundleError, match="is a link out of the bundle"):
        trunkline.load(copy, 1)


def test_a_link_to_a_bundle_whose_name_begins_alike_is_refused(copy: Path) -> None:
    shutil.copytree(copy, copy.with_name("copy2"))
    (copy / GOLDEN).unlink()
    (copy / GOLDEN).symlink_to(Path("..") / "copy2" / GOLDEN)
    with pytest.raises(BundleError, match="is a link out of the bundle"):
        trunkline.load(copy, 1)


def test_links_to_and_inside_a_bundle_are_followed(copy: Path) -> None:
    (copy / GOLDEN).rename(copy / "data")
    (copy / GOLDEN).symlink_to("data")
    link = copy.with_name("link")
    link.symlink_to(copy)
    assert trunkline.load(link, 1).self_test() == 2


@pytest.mark.parametrize("field", ["file", "golden", "weights"])
@pytest.mark.parametrize("path", ["../outside", "/etc/hostname", "graphs/../../outside"])
def test_a_path_of_the_manifest_that_leaves_is_refused(copy: Path, field: str, path: str) -> None:
    (copy.parent / "outside").write_text("x")

    def change(manifest: dict[str, Any]) -> None:
        manifest["graphs"][0][field] = path

    rewrite(copy, change)
    with pytest.raises(BundleError, match="names a file outside it") as caught:
        trunkline.load(copy, 1)
    assert caught.value.path == copy / MANIFEST


@pytest.mark.parametrize("absolute", [True, False])
def test_a_graph_whose_weights_lie_elsewhere_is_refused(copy: Path, absolute: bool) -> None:
    outside = copy.parent / "outside"
    graph = onnx.load(copy / GRAPH)
    weight = next(one for one in graph.graph.initializer if one.data_type == 1)
    outside.write_bytes(onnx.numpy_helper.to_array(weight).astype(np.float32).tobytes())
    location = str(outside) if absolute else "../../outside"
    onnx.external_data_helper.set_external_data(weight, location)
    weight.ClearField("raw_data")
    weight.ClearField("float_data")
    (copy / GRAPH).write_bytes(graph.SerializeToString())

    def change(manifest: dict[str, Any]) -> None:
        manifest["graphs"][0]["sha256"] = sha256_of(copy / GRAPH)

    rewrite(copy, change)
    with pytest.raises(BundleError, match=r"cannot load it: .*External data path"):
        trunkline.load(copy, 1)


def test_a_manifest_nested_without_end_is_refused(copy: Path) -> None:
    (copy / MANIFEST).write_text("[" * 1_000_000)
    with pytest.raises(BundleError, match="cannot be read: maximum recursion depth"):
        trunkline.load(copy, 1)


def rewrite(folder: Path, change: Any) -> None:
    """Changes the manifest."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
