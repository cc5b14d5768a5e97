"""Where graphs run: names of devices, and what stands behind them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from trunkline.errors import ConfigError, did_you_mean

Kind = Literal["auto", "cpu", "cuda", "tensorrt"]
KINDS: tuple[Kind, ...] = ("auto", "cpu", "cuda", "tensorrt")
CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"

_NAME = re.compile(r"([a-z]+)(?::(\d{1,4}))?")


@dataclass(frozen=True)
class Devices:
    """Devices of one kind.

    Attributes:
        kind: `auto` leaves it to what is there, and to a calibration run.
        indices: Of GPUs, at least one; empty for others.
    """

    kind: Kind
    indices: tuple[int, ...] = ()

    def __str__(self) -> str:
        return ",".join(f"{self.kind}:{index}" for index in self.indices) or self.kind


@dataclass(frozen=True)
class CudaOptions:
    """How a GPU is used.

    Attributes:
        graphs: Whether small batches are captured as CUDA graphs when the model is loaded.
        memory: Most bytes that the model's arena takes of each GPU; None for no limit.
    """

    graphs: bool = True
    memory: int | None = None

    def __post_init__(self) -> None:
        """Refuses a bound that nothing fits into."""
        if self.memory is not None and (type(self.memory) is not int or self.memory < 1):
            raise ConfigError(f"cuda.memory: expected bytes, 1 or more, got {self.memory!r}")


ON_CPU = Devices("cpu")
USUAL = CudaOptions()


def parse_devices(text: str) -> Devices:
    """Returns the devices that a text such as `cuda:0,cuda:1` names.

    Raises:
        ConfigError: It names none, one twice, or devices of several kinds.
    """
    if not isinstance(text, str):
        raise ConfigError(f"device: expected a string such as 'cpu' or 'cuda:0', got {text!r}")
    found = [_parse(part.strip()) for part in text.split(",")]
    kinds = {kind for kind, _ in found}
    if len(kinds) > 1:
        raise ConfigError(f"device: {text!r} names several kinds; choose one, e.g. cuda:0,cuda:1")
    (kind,) = kinds
    if kind in {"auto", "cpu"}:
        if len(found) > 1 or found[0][1] is not None:
            raise ConfigError(f"device: {text!r}; {kind} is one device, write just {kind!r}")
        return Devices(kind)
    indices = tuple(index or 0 for _, index in found)
    if len(set(indices)) < len(indices):
        raise ConfigError(f"device: {text!r} names a device twice; name each once")
    return Devices(kind, indices)


def _parse(text: str) -> tuple[Kind, int | None]:
    match = _NAME.fullmatch(text)
    for kind in KINDS:
        if match is not None and match[1] == kind:
            return kind, None if match[2] is None else int(match[2])
    near = did_you_mean(text.partition(":")[0], KINDS)
    raise ConfigError(f"device: unknown {text!r}{near}; known: auto, cpu, cuda, cuda:N, tensorrt")
