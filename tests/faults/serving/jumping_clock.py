"""Trunkline in a process whose wall clock jumps by up to a day at every look, to and fro."""

from __future__ import annotations

import random
import sys
import time
from types import SimpleNamespace

from grpc._cython import cygrpc

_DAY = 86_400.0


def jump() -> None:
    """Makes `time.time` and `time.time_ns` of this process jump, for good.

    All but gRPC's: that takes the difference between two looks microseconds apart, one of them in
    C, where nothing jumps. A clock that is really set jumps for both.
    """
    chance, real = random.Random(0), time.time
    cygrpc.time = SimpleNamespace(time=real)

    def jumping() -> float:
        return real() + chance.uniform(-_DAY, _DAY)

    time.time = jumping
    time.time_ns = lambda: int(jumping() * 1e9)


if __name__ == "__main__":
    jump()  # before anything takes a clock by name
    from trunkline.cli import main

    sys.exit(main())
