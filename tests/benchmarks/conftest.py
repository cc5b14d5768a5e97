"""What tests of the load generator share."""

from collections.abc import Iterator

import pytest

from benchmarks.serving.load import Generators


@pytest.fixture(scope="module")
def generators() -> Iterator[Generators]:
    """One process that sends requests."""
    with Generators(1) as generators:
        yield generators
