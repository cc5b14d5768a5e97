"""The heap of a server: few arenas for all threads, unless the user chose otherwise."""

import ctypes
import os
import subprocess
import sys

import pytest

# Threads that are there together, each of which has asked for memory; then glibc counts its arenas.
ARENAS = """
import ctypes, sys, threading
from trunkline_serve.heap import few_arenas
if "few" in sys.argv:
    few_arenas()
there = threading.Barrier(9)
def work():
    held = [bytes(700) for _ in range(1000)]
    there.wait()
    there.wait()
for _ in range(8):
    threading.Thread(target=work, daemon=True).start()
there.wait()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
there.wait()
"""


def arenas(*arguments: str, **chosen: str) -> int:
    command = [sys.executable, "-c", ARENAS, *arguments]
    kept = {k: v for k, v in os.environ.items() if k not in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")}
    done = subprocess.run(
        command, env=kept | chosen, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.count("<heap nr=")


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="no glibc")
def test_threads_share_arenas_unless_the_user_chose() -> None:
    assert arenas("few") == 2
    assert arenas() > 2
    assert arenas("few", MALLOC_ARENA_MAX="3") == 3
