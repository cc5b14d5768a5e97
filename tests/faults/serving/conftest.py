"""Versions of the tiny bundle, and what they answer."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.faults.world import World, world
from tests.serve.hosting import Loop


@pytest.fixture(scope="session")
def faults(bundle: Path) -> Iterator[World]:
    """What faults are tried on; a fifth of what the report tries."""
    with world(bundle, size=0.2) as made:
        yield made


@pytest.fixture(scope="session")
def host() -> Iterator[Loop]:
    host = Loop()
    yield host
    host.close()
