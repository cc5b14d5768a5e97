"""The tiny bundle, opened and loaded."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import trunkline
from tests.tiny import build_tiny_bundle
from trunkline import Model
from trunkline.bundle import open_bundle, seal

# Cores may be slow or shared: time is no measure of an example.
settings.register_profile("calm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("calm")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("runtime") / "tiny")


@pytest.fixture(scope="session")
def model(bundle: Path) -> Model:
    return trunkline.load(bundle, 1)


@pytest.fixture
def ungated(bundle: Path, tmp_path: Path) -> Path:
    """A copy whose one graph has passed no gate."""
    copy = shutil.copytree(bundle, tmp_path / "ungated")
    seal(copy, replace(open_bundle(copy).manifest, gates=()))
    return copy
