"""Versions of the tiny bundle, and what they answer."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.serving.fault_fixture import FaultFixture, fault_fixture
from tests.serve.hosting import Loop


@pytest.fixture(scope="session")
def faults(bundle: Path) -> Iterator[FaultFixture]:
    """What faults are tried on: a fifth of a full report, unless the environment asks for more."""
    own = Path(os.environ.get("FAULTS_BUNDLE", bundle))
    with fault_fixture(own, size=float(os.environ.get("FAULTS_SIZE", "0.2"))) as made:
        yield made


@pytest.fixture(scope="session")
def host() -> Iterator[Loop]:
    host = Loop()
    yield host
    host.close()
