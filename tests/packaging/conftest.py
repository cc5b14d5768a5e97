"""The built wheel, fresh environments to install it in, and the checkout's root."""

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def root() -> Path:
    return Path(__file__).parents[2]


@pytest.fixture(scope="session")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, root]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def install(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Run]]:
    """Makes an environment of what pip is given; returns what runs its commands elsewhere."""
    folders = []

    def environment(*arguments: str | Path) -> Run:
        folder = tmp_path_factory.mktemp("environment")
        folders.append(folder)
        # Our pip installs for it: to bring its own takes seconds.
        venv.create(folder / "venv")
        pip = [sys.executable, "-m", "pip", "--python", folder / "venv" / "bin" / "python"]
        done = _run(folder, *pip, "install", "--no-compile", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return lambda command, *given: _run(folder, folder / "venv" / "bin" / command, *given)

    yield environment
    for folder in folders:  # pytest would keep three sessions' torch
        shutil.rmtree(folder, ignore_errors=True)


def _run(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
