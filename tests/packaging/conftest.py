"""The built wheel, fresh environments to install it in, and the checkout's root."""

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.sharing import build_once

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def root() -> Path:
    return Path(__file__).parents[2]


@pytest.fixture(scope="session")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def build(out: Path) -> None:
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir"]
        done = subprocess.run([*command, out, root], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    (built,) = build_once(tmp_path_factory, "wheel", build).glob("*.whl")
    return built


@pytest.fixture(scope="session")
def install(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Run]]:
    """Makes an environment of what pip is given; returns what runs its commands elsewhere.

    Packages of ours that are lent to it need not be installed, nor compiled to byte code again. pip
    still installs another version in front of them if it is told to.
    """
    folders = []

    def environment(*arguments: str | Path, lent: Sequence[str] = ()) -> Run:
        folder = tmp_path_factory.mktemp("environment")
        folders.append(folder)
        # Our pip installs for it: to bring its own takes seconds.
        venv.create(folder / "venv")
        if lent:
            _lend(lent, folder)
        pip = [sys.executable, "-m", "pip", "--python", folder / "venv" / "bin" / "python"]
        done = _run(folder, *pip, "install", "--no-compile", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return lambda command, *given: _run(folder, folder / "venv" / "bin" / command, *given)

    yield environment
    for folder in folders:  # pytest would keep three sessions' torch
        shutil.rmtree(folder, ignore_errors=True)


def _lend(names: Sequence[str], folder: Path) -> None:
    shelf = folder / "lent"
    shelf.mkdir()
    for found in map(distribution, names):
        parts = {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}
        for part in parts:
            (shelf / part).symlink_to(str(found.locate_file(part)))
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(f"{shelf}\n")


def _run(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
