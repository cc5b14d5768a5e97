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
    """Returns whether matrix products run in bf16.

    `auto` asks the hardware: a GPU gains from compute capability 8 on, for older ones only emulate
    bf16, and a CPU where it has AMX, matrix units for bf16, or AVX512-BF16, whose products of two
    numbers at a time are twice as many as in fp32.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
