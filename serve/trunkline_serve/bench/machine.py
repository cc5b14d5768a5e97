"""What a measurement was made on, and whether the machine was throttled meanwhile."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

from trunkline.cpu import available_cpus, cpu_model

_PACKAGES = ("trunkline", "onnxruntime", "grpcio", "numpy", "tokenizers", "protobuf")


def describe_machine() -> dict[str, object]:
    """Returns processor, cores and system."""
    return {
        "cpu": cpu_model(),
        "cpus": available_cpus(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Returns the versions of Python and of what the figures depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Returns the commit of the checkout this code runs from, `+` if altered; None elsewhere."""
    file = Path(__file__)

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(file.parent), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", file.name)
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
