"""What a measurement was made on, and whether the machine was throttled meanwhile."""

from __future__ import annotations

import math
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from trunkline.cpu import available_cpus, cpu_model, cpu_quota

_PACKAGES = (
    "trunkline",
    "onnxruntime",
    "onnxruntime-gpu",
    "grpcio",
    "numpy",
    "tokenizers",
    "protobuf",
)
# How the flags begin that matrix products choose their kernels by: x86, then Arm.
_FLAGS = re.compile(r"avx2|avx512|avx_vnni|amx_|fma|asimd|bf16|i8mm|sve|sme\d*$")
_SIGNATURE = ("vendor_id", "cpu family", "model", "stepping", "CPU implementer", "CPU part")
_GPU_FACTS = ("name", "driver_version", "memory.total")
_GPU_SECONDS = 20  # nvidia-smi takes a while where the driver is not loaded yet
_GIB = 2**30


def describe_machine() -> dict[str, object]:
    """Returns processor, cores, quota, memory, GPUs and system.

    `cpus` are those that may be used, by affinity and quota; `cores` those that there are; `quota`
    is in CPUs, None without one. Memory is in GiB, as the kernel has it.
    """
    info = cpu_info()
    quota = cpu_quota()
    return {
        "cpu": cpu_model(),
        "cpu_signature": signature(info),
        "flags": matrix_flags(info),
        "cpus": available_cpus(),
        "cores": os.cpu_count(),
        "quota": None if math.isinf(quota) else round(quota, 2),
        "memory_gib": memory_gib(),
        "gpus": gpus(),
        "system": f"{platform.system()} {platform.machine()}",
        "kernel": platform.release(),
    }


def cpu_info(file: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """Returns what the kernel says of the first processor; empty where it does not tell."""
    try:
        lines = file.read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


def signature(info: Mapping[str, str]) -> str:
    """Returns vendor, family, model and stepping: names of processors in a cloud say little."""
    return " ".join(info[name] for name in _SIGNATURE if name in info)


def matrix_flags(info: Mapping[str, str]) -> list[str]:
    """Returns those of the processor's flags that the speed of matrix products hangs on."""
    flags = (info.get("flags") or info.get("Features") or "").split()
    return sorted(flag for flag in flags if _FLAGS.match(flag))


def memory_gib(file: Path = Path("/proc/meminfo")) -> float | None:
    """Returns the machine's memory in GiB; None where the system does not tell."""
    try:
        first = file.read_text().split()
        return round(int(first[1]) * 1024 / _GIB, 1)
    except (OSError, ValueError, IndexError):
        return None


def gpus(program: str = "nvidia-smi") -> list[dict[str, str]]:
    """Returns name, driver and memory of each NVIDIA GPU; none if its program finds none."""
    command = [program, f"--query-gpu={','.join(_GPU_FACTS)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_GPU_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return []
    rows = (line.split(",") for line in done.stdout.splitlines() if line.strip())
    keys = ("name", "driver", "memory")
    return [dict(zip(keys, map(str.strip, row), strict=False)) for row in rows]


def versions(*more: str) -> dict[str, str]:
    """Returns the versions of Python, of what the figures depend on, and of `more` packages."""
    found = {"python": platform.python_version()}
    for package in (*_PACKAGES, *more):
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
