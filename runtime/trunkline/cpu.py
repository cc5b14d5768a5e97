"""How many CPUs this process may really use, and what they are."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOST_STOLEN = 0.10
"""The share of CPU time that others' virtual machines may take from a measurement that counts."""
_ROOT = Path("/")
_STEAL = 7  # column of /proc/stat
_X86_64 = ("x86_64", "amd64")
_VNNI = frozenset({"avx512_vnni", "avx_vnni"})  # flags in /proc/cpuinfo


def available_cpus(root: Path = _ROOT) -> int:
    """Returns the CPUs of this process: its affinity, bounded by the quotas of its cgroups.

    Containers and systemd's units are limited by quota, which os.cpu_count and onnxruntime do not
    see.
    """
    affinity = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, math.ceil(min(affinity, cpu_quota(root))))


def cpu_quota(root: Path = _ROOT) -> float:
    """Returns the least quota in CPUs of this process's cgroup and all above it; or infinity.

    Args:
        root: Where `proc` and `sys` lie.
    """
    return min(map(_quota, _cgroups(root)))


def _cgroups(root: Path) -> Iterator[Path]:
    """Yields the folders of this process's cgroups, of version 2 and 1, and of those above them."""
    mounts = root / "sys" / "fs" / "cgroup"
    # In a container they are its own, though its processes may go by their path on the host.
    yield from (mounts, mounts / "cpu")
    try:
        lines = (root / "proc" / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 2 has no controllers here, and no folder for each.
        folder = mounts / ("cpu" if controllers else "")
        for part in Path(path.lstrip("/")).parts:
            folder /= part
            yield folder


def _quota(cgroup: Path) -> float:
    """Returns the quota that is set for a cgroup itself; infinity if there is none."""
    for read in (_quota_2, _quota_1):
        try:
            return read(cgroup)
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return math.inf


def _quota_2(cgroup: Path) -> float:
    limit, period = (cgroup / "cpu.max").read_text().split()
    return math.inf if limit == "max" else int(limit) / int(period)


def _quota_1(cgroup: Path) -> float:
    limit = int((cgroup / "cpu.cfs_quota_us").read_text())
    return limit / int((cgroup / "cpu.cfs_period_us").read_text()) if limit > 0 else math.inf


def cpu_model(info: Path = Path("/proc/cpuinfo")) -> str:
    """Returns the name of the processor, as far as the system tells it."""
    try:
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def lacks_vnni(info: Path = Path("/proc/cpuinfo")) -> bool:
    """Returns whether the processor is an x86-64 that lacks VNNI, or does not tell.

    Those add products of bytes in pairs, in 16 bits, which cannot hold the largest sums. Windows
    and macOS do not show what a processor can.
    """
    if platform.machine().lower() not in _X86_64:
        return False
    try:
        for line in info.read_text().splitlines():
            if line.startswith("flags"):
                return _VNNI.isdisjoint(line.partition(":")[2].split())
    except OSError:
        pass
    return True


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
