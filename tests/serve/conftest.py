"""A tiny bundle, and a server of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import trunkline
from tests.serve.hosting import Loop
from tests.tiny import build_tiny_bundle
from trunkline import Model
from trunkline_serve.client import Client


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("serve") / "tiny")


@pytest.fixture(scope="session")
def model(bundle: Path) -> Model:
    return trunkline.load(bundle, 1)


@pytest.fixture(scope="session")
def host() -> Iterator[Loop]:
    host = Loop()
    yield host
    host.close()


@pytest.fixture(scope="session")
def address(host: Loop, model: Model) -> Iterator[str]:
    with host.serving([model]) as hosted:
        yield hosted.address


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address) as client:
        yield client
