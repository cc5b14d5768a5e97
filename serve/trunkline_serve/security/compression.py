"""Compressed requests, which must not grow without bound when they are inflated."""

from __future__ import annotations

import grpc

# From this version on gRPC stops inflating at the limit of a message. Before, it inflated the whole
# message, to a thousand times its size, and compared then.
_BOUNDED = (1, 84)
_ONLY_PLAIN = 1  # the bit of "identity"


def compression_options(version: str = grpc.__version__) -> list[tuple[str, int]]:
    """Returns the server options of a version of gRPC: old ones refuse all compressed requests."""
    major, minor = version.split(".")[:2]
    if (int(major), int(minor)) >= _BOUNDED:
        return []
    return [("grpc.compression_enabled_algorithms_bitset", _ONLY_PLAIN)]
