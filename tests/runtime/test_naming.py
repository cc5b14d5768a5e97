"""Names and versions of models: where they are made, and where bundles are read."""

import json
from pathlib import Path

import pytest

from tests.tiny import build_tiny_bundle
from trunkline.bundle import MANIFEST, open_bundle
from trunkline.errors import BundleError, ConfigError
from trunkline.naming import check_model_name, check_model_version
from trunkline_export.write import ExportOptions
from trunkline_train.config import Config, TaskConfig

UNFIT = {
    "": "cannot name a model",
    "a/1": "cannot name a model",
    "..": "cannot name a model",
    ".hidden": "cannot name a model",
    "a b": "cannot name a model",
    "a\0": "cannot name a model",
    "é": "cannot name a model",
    "x" * 129: "cannot name a model",
    "tiny.tensors": "ends with '.tensors'",
    "trunkline.v1.AnalysisService": "begins with 'trunkline.'",
    "grpc.health.v1.Health": "begins with 'grpc.'",
    "inference.GRPCInferenceService": "begins with 'inference.'",
}
unfit = pytest.mark.parametrize(("name", "told"), UNFIT.items())
no_version = pytest.mark.parametrize("version", [0, -1, 10**18, True, 1.0, "1"])


@pytest.mark.parametrize("name", ["a", "five-tasks", "A.b_c-1", "7", "x" * 128, "tensors"])
def test_a_fit_name_is_taken(name: str) -> None:
    check_model_name(name)


@unfit
def test_an_unfit_name_is_refused_where_it_is_made(name: str, told: str) -> None:
    tasks = {"topic": TaskConfig("text-classification", train="x.csv")}
    with pytest.raises(ValueError, match=told):
        Config(name, "encoder", tasks)
    with pytest.raises(ConfigError, match=told):
        ExportOptions(name=name)


@no_version
def test_an_unfit_version_is_refused_where_it_is_made(version: object) -> None:
    with pytest.raises(ConfigError, match="version"):
        ExportOptions(version=version)  # type: ignore[arg-type]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return build_tiny_bundle(tmp_path / "tiny") / MANIFEST


def change(manifest: Path, **values: object) -> None:
    data = json.loads(manifest.read_text(encoding="utf-8")) | values
    manifest.write_text(json.dumps(data), encoding="utf-8")


@unfit
def test_an_unfit_name_is_refused_where_it_is_read(manifest: Path, name: str, told: str) -> None:
    change(manifest, name=name)
    with pytest.raises(BundleError, match=told):
        open_bundle(manifest.parent)


@no_version
def test_an_unfit_version_is_refused_where_it_is_read(manifest: Path, version: object) -> None:
    change(manifest, version=version)
    with pytest.raises(BundleError, match="version"):
        open_bundle(manifest.parent)


def test_the_greatest_version_can_be_asked_for() -> None:
    check_model_version(10**18 - 1)
