"""What the machine can do: the device to train on, and whether bf16 is fast there."""

from __future__ import annotations

import torch

from trunkline.errors import ConfigError


def pick_device(name: str) -> torch.device:
    """Returns a torch device; `auto` takes CUDA where there is one.

    Raises:
        ConfigError: The device does not exist here. CUDA never turns into the CPU silently.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"training.device: {name!r} cannot be used: {reason}") from None
    return device


def use_bf16(precision: str, device: torch.device) -> bool:
    """Returns whether matrix products run in bf16; `auto` asks the hardware.

    A CPU must be told: even with AMX, where bf16 products are many times faster, whole steps showed
    no steady gain, since kernels are built anew for every shape.
    """
    if precision != "auto":
        return precision == "bf16"
    return device.type == "cuda" and torch.cuda.is_bf16_supported()
