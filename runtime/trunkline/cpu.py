"""How many CPUs this process may really use, and what they are."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path

_STEAL = 7  # column of /proc/stat
_X86_64 = ("x86_64", "amd64")
_VNNI = frozenset({"avx512_vnni", "avx_vnni"})  # flags in /proc/cpuinfo


def available_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Returns the CPUs of this process: its affinity, bounded by the cgroup's quota.

    Containers are limited by quota, which os.cpu_count and onnxruntime do not see.
    """
    affinity = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, math.ceil(min(affinity, cpu_quota(cgroup))))


def cpu_quota(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """Returns the quota in CPUs, of cgroup v2 or v1; infinity if there is none."""
    try:
        limit, period = (cgroup / "cpu.max").read_text().split()
        return math.inf if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
        period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        return int(limit) / int(period) if int(limit) > 0 else math.inf
    except (OSError, ValueError):
        return math.inf


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
    """Returns whether the processor is an x86-64 that is known to lack VNNI.

    Those add products of bytes in pairs, in 16 bits, which cannot hold the largest sums.
    """
    if platform.machine().lower() not in _X86_64:
        return False
    try:
        for line in info.read_text().splitlines():
            if line.startswith("flags"):
                return _VNNI.isdisjoint(line.partition(":")[2].split())
    except OSError:
        pass
    return False


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
