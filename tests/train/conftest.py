"""What tests of whole runs share."""

import pytest

from trunkline_train.pictures import Pictures


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw no pictures, which takes longer than to train the small model."""
    monkeypatch.setattr(Pictures, "draw", lambda pictures: None)
