"""Callers of the protocol."""

from collections.abc import Iterator

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from tests.serve.oip.calling import Padded, Stub, padded
from trunkline import Model


@pytest.fixture(scope="module")
def stub(address: str) -> Iterator[Stub]:
    with grpc.insecure_channel(address) as channel:
        yield Stub(channel)


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address) as client:
        yield client


@pytest.fixture(scope="session")
def ragged(model: Model) -> Padded:
    """Rows of 3, 9 and 1 tokens, padded."""
    random = np.random.default_rng(5)
    return padded([random.integers(4, 40, length) for length in (3, 9, 1)])
