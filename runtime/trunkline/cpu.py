"""How many CPUs this process may really use."""

from __future__ import annotations

import math
import os
from pathlib import Path


def available_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Returns the CPUs of this process: its affinity, bounded by the cgroup's quota.

    Containers are limited by quota, which os.cpu_count and onnxruntime do not see.
    """
    affinity = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, math.ceil(min(affinity, _quota(cgroup))))


def _quota(cgroup: Path) -> float:
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
