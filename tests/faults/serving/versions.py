"""Other versions of a bundle, whose answers tell which version gave them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trunkline.bundle import GOLDEN, MANIFEST, open_bundle, written_bundle
from trunkline.files import sha256_of

Json = dict[str, Any]


def reversioned(bundle: Path, target: Path, version: int) -> Path:
    """Writes a bundle as another version, all of whose labels end in `~VERSION`.

    Graphs are linked, not copied. The folder appears at once, with all that belongs to it.
    """
    manifest = open_bundle(bundle).manifest
    goldens = {GOLDEN, *(graph.golden for graph in manifest.graphs)}
    with written_bundle(target, overwrite=True) as aside:
        shutil.copytree(bundle, aside, copy_function=_link, dirs_exist_ok=True)
        for name in goldens & manifest.files.keys():
            _rewrite(aside / name, lambda line: _relabelled(line, version))
        edit_manifest(aside, lambda data: _as_version(data, version, aside))
    return target


def edit_manifest(bundle: Path, edit: Callable[[Json], object]) -> None:
    """Changes a bundle's manifest as it lies on the disk, and nothing else."""
    file = bundle / MANIFEST
    data = json.loads(file.read_text(encoding="utf-8"))
    edit(data)
    write_apart(file, json.dumps(data, ensure_ascii=False).encode())


def write_apart(file: Path, data: bytes) -> None:
    """Writes a file that may be linked elsewhere; the other link keeps what it has."""
    file.unlink(missing_ok=True)
    file.write_bytes(data)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # the bundle lies on another disk
        shutil.copy2(source, target)


def _as_version(data: Json, version: int, folder: Path) -> None:
    data["version"] = version
    for task in data["tasks"]:
        task["labels"] = [_label(label, version) for label in task.get("labels", [])]
    data["files"] = {name: sha256_of(folder / name) for name in data["files"]}


def _rewrite(file: Path, edit: Callable[[Json], object]) -> None:
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        edit(line)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_apart(file, text.encode())


def _relabelled(line: Json, version: int) -> None:
    for found in line["tasks"].values():
        for item in found:
            item["label"] = _label(item["label"], version)


def _label(label: str, version: int) -> str:
    return label if label == "O" else f"{label}~{version}"
