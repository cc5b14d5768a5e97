"""What a run on a GPU is made of: its time by kind of kernel, as CUPTI saw them on the device."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

_RUNS = 5
GROUPS = {
    "attention": re.compile(r"flash|fmha|attention|softmax", re.IGNORECASE),
    "products": re.compile(r"gemm|gemv|cutlass|cublas|xmma|nvjet|splitk", re.IGNORECASE),
    "normalisation": re.compile(r"norm", re.IGNORECASE),
    "activation": re.compile(r"gelu|tanh|relu|erf", re.IGNORECASE),
    "moving data": re.compile(
        r"mem(cpy|set)|gather|scatter|embed|cast|transpose|concat|slice|split|padding|expand",
        re.IGNORECASE,
    ),
}
"""Kernels by what their names say; the first that fits."""


def kernel_shares(work: Callable[[], object], index: int) -> dict[str, float]:
    """Returns the share of the device's busy time of each group of kernels, most first.

    Args:
        work: Starts kernels; called once before it counts.
        index: Of the GPU.
    """
    work()
    torch.cuda.synchronize(index)
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(_RUNS):
            work()
        torch.cuda.synchronize(index)
    groups: Counter[str] = Counter()
    for event in seen.key_averages():
        if event.device_type == DeviceType.CUDA:
            groups[group_of(event.key)] += event.self_device_time_total
    whole = sum(groups.values())
    return {name: round(taken / whole, 4) for name, taken in groups.most_common() if taken}


def group_of(kernel: str) -> str:
    """Returns the group of a kernel."""
    return next((name for name, pattern in GROUPS.items() if pattern.search(kernel)), "other")
