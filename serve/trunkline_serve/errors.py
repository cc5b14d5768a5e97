"""The one error that only a server has."""

from __future__ import annotations

from trunkline.errors import TrunklineError


class DeadlinePassed(TrunklineError):
    """The caller's deadline passed before there was an answer."""
