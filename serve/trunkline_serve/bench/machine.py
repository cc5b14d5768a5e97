"""What a measurement was made on, and whether the machine was throttled meanwhile."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from trunkline.cpu import available_cpus

_PACKAGES = ("trunkline", "onnxruntime", "grpcio", "numpy", "tokenizers", "protobuf")
_STEAL = 7  # column of /proc/stat


@dataclass(frozen=True)
class CpuTimes:
    """CPU time since boot, in clock ticks over all CPUs: all of it, and what was stolen."""

    total: int
    stolen: int

    def share_since(self, before: CpuTimes) -> float:
        """Returns the share of CPU time that the hypervisor took away since `before`."""
        total = self.total - before.total
        return (self.stolen - before.stolen) / total if total > 0 else 0.0


def cpu_times(stat: Path = Path("/proc/stat")) -> CpuTimes:
    """Returns the CPU times so far; zeros where the system does not tell."""
    try:
        ticks = [int(value) for value in stat.read_text().splitlines()[0].split()[1:]]
        return CpuTimes(sum(ticks[: _STEAL + 1]), ticks[_STEAL])
    except (OSError, ValueError, IndexError):
        return CpuTimes(0, 0)


def describe_machine() -> dict[str, object]:
    """Returns processor, cores and system."""
    return {
        "cpu": _cpu_model(),
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


def _cpu_model(info: Path = Path("/proc/cpuinfo")) -> str:
    try:
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or sys.platform
