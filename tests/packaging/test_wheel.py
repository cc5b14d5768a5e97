"""The wheel holds the four packages, whole, and nothing else; its metadata names the extras."""

import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOMS = {
    "trunkline": "runtime",
    "trunkline_train": "train",
    "trunkline_export": "export",
    "trunkline_serve": "serve",
}
EXTRAS = [
    "client",
    "dev",
    "export",
    "gpu",
    "lora",
    "optimum",
    "otel",
    "serve",
    "tensorboard",
    "train",
]


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def test_wheel_holds_exactly_the_packages(names: set[str]) -> None:
    assert {name.split("/")[0] for name in names} == set(ROOMS)


@pytest.mark.parametrize("package", ROOMS)
def test_wheel_holds_every_file_of_the_package(root: Path, names: set[str], package: str) -> None:
    room = root / ROOMS[package]
    files = {path for path in (room / package).rglob("*") if path.is_file()}
    expected = {
        path.relative_to(room).as_posix() for path in files if path.parent.name != "__pycache__"
    }
    assert {name for name in names if name.startswith(f"{package}/")} == expected
    assert f"{package}/py.typed" in names


def test_wheel_holds_generated_code_for_every_proto(root: Path, names: set[str]) -> None:
    protos = list((root / "protos").rglob("*.proto"))
    assert protos
    for proto in protos:
        stem = proto.relative_to(root / "protos").with_suffix("").as_posix()
        assert {f"{stem}_pb2.py", f"{stem}_pb2.pyi"} <= names
    assert "trunkline/v1/analysis_service_pb2_grpc.py" in names


def test_base_install_is_the_edge_install(metadata: Message) -> None:
    requirements = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    base = [requirement.name for requirement in requirements if requirement.marker is None]
    assert sorted(base) == ["numpy", "onnxruntime", "tokenizers"]


def test_metadata_names_the_extras(metadata: Message) -> None:
    assert sorted(metadata.get_all("Provides-Extra", [])) == EXTRAS
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
