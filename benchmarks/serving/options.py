"""Values of options that the benchmarks of the server share."""

from __future__ import annotations

import argparse

from benchmarks.serving.peers.registry import PEERS


def names(text: str) -> list[str]:
    """Returns names that commas part."""
    return [one for one in text.split(",") if one]


def peers(text: str) -> list[str]:
    """Returns names of peers; `none` names none.

    Raises:
        argparse.ArgumentTypeError: There is no peer of that name.
    """
    found = [] if text == "none" else names(text)
    unknown = set(found) - set(PEERS)
    if unknown:
        raise argparse.ArgumentTypeError(f"no peer {min(unknown)!r}; known: {', '.join(PEERS)}")
    return found
