"""Environments for peers: each its own, since their requirements do not go together."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from benchmarks.serving.processes import ServerError

ROOT = Path(__file__).parents[3]
_FOLDER = ROOT / ".tools" / "peers"
_SAME = ("numpy", "onnxruntime", "tokenizers")  # what the work needs


def python_of(name: str, requirements: Sequence[str]) -> str:
    """Returns the Python of a peer's environment, which is built if it is not there yet.

    Args:
        name: Of the peer.
        requirements: What pip installs, e.g. `mosec==0.9.8`. What the work needs comes on top, in
            this process's versions, unless it is among them.

    Raises:
        ServerError: pip could not; has its last line.
    """
    same = [one for one in _SAME if not any(other.startswith(one) for other in requirements)]
    wanted = [*requirements, *(f"{one}=={metadata.version(one)}" for one in same)]
    folder = _FOLDER / name
    python, done = folder / "bin" / "python", folder / ".installed"
    if not done.is_file() or done.read_text().split() != wanted:
        venv.create(folder, clear=True, with_pip=True)
        _install(name, str(python), wanted)
        done.write_text("\n".join(wanted) + "\n")
    return str(python)


def installed(name: str) -> bool:
    """Tells whether a peer's environment is there already."""
    return (_FOLDER / name / ".installed").is_file()


def ours(package: str) -> str:
    """Returns what pip must be asked for to get the release of a package that we have ourselves."""
    return f"{package}=={metadata.version(package).partition('+')[0]}"


def _install(name: str, python: str, wanted: list[str]) -> None:
    print(f"{name}: installing into {_FOLDER.name}/{name}", file=sys.stderr, flush=True)
    command = [python, "-m", "pip", "install", "--quiet", "--no-compile", *wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise ServerError(f"{name}: pip: {(errors or ['it failed'])[-1]}")
