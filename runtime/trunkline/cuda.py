"""Whether CUDA can be used here, and if not, why not and what to do about it.

Asked before a graph is loaded: onnxruntime itself says little, and goes on without the GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

from trunkline.device import CUDA, TENSORRT
from trunkline.errors import DeviceError

# Not trunkline[gpu] itself: with Trunkline comes the onnxruntime for CPUs, into the same folder.
_INSTALL = (
    "pip uninstall onnxruntime onnxruntime-gpu, then pip install 'onnxruntime-gpu[cuda,cudnn]',"
    " which is the extra trunkline[gpu]"
)
_LIBRARIES = "pip install 'onnxruntime-gpu[cuda,cudnn]', or add the folder to LD_LIBRARY_PATH"
_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # attributes of a device: its compute capability
_LEAST_CAPABILITY = (8, 0)  # of the attention kernels for packed rows in fp16


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        index: Its number, as in `cuda:1`.
        name: As its maker calls it.
        capability: Of computing, e.g. (9, 0).
        memory: Bytes of it.
    """

    index: int
    name: str
    capability: tuple[int, int]
    memory: int


def check_provider(device: str, provider: str = CUDA) -> None:
    """Raises DeviceError unless this onnxruntime was built with a provider."""
    if provider in onnxruntime.get_available_providers():
        return
    version = onnxruntime.__version__
    what = "TensorRT" if provider == TENSORRT else "CUDA"
    raise DeviceError(device, f"onnxruntime {version} here is built without {what}", _INSTALL)


def find_gpu(device: str, index: int) -> Gpu:
    """Returns a GPU on which onnxruntime can run; loads the libraries that this takes.

    Args:
        device: Its name, for messages.
        index: Its number.

    Raises:
        DeviceError: onnxruntime is built without CUDA, there is no driver or it is too old, there
            is no such GPU or it is too old, or a CUDA library is missing.
    """
    check_provider(device)
    driver = _driver(device)
    _check_version(device, driver)
    gpu = _gpu(device, driver, index)
    if gpu.capability < _LEAST_CAPABILITY:
        has, wants = (".".join(map(str, one)) for one in (gpu.capability, _LEAST_CAPABILITY))
        reason = f"{gpu.name} has compute capability {has}, packed fp16 graphs want {wants}"
        raise DeviceError(device, reason, "use an Ampere GPU or a newer one, or --device cpu")
    load_libraries(device)
    return gpu


def load_libraries(device: str) -> None:
    """Loads onnxruntime's CUDA part and what it needs, from pip's packages or the system.

    Raises:
        DeviceError: A library is missing; names it.
    """
    # It prints what it does not find, and what it does not find may lie elsewhere.
    with contextlib.redirect_stdout(io.StringIO()):
        onnxruntime.preload_dlls()
        for one in _library_folders():
            onnxruntime.preload_dlls(directory=one)
    folder = Path(onnxruntime.__file__).parent / "capi"
    shared, cuda = (f"libonnxruntime_providers_{part}.so" for part in ("shared", "cuda"))
    if not (folder / cuda).is_file():  # Windows, or a build with other names
        return
    try:
        # Loaded here for the message alone: onnxruntime writes it to its log only.
        ctypes.CDLL(str(folder / shared), ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / cuda))
    except OSError as error:
        reason = f"onnxruntime's CUDA part cannot be loaded: {error}"
        raise DeviceError(device, reason, _LIBRARIES) from None


def _library_folders() -> list[str]:
    """Returns the folders of NVIDIA's packages; onnxruntime looks only beside itself."""
    places = dict.fromkeys(map(Path, sys.path))
    return [str(found) for place in places for found in sorted(place.glob("nvidia/*/lib"))]


def _driver(device: str) -> ctypes.CDLL:
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError:
        mend = "install NVIDIA's driver, or start the container with --gpus all"
        raise DeviceError(device, f"no NVIDIA driver: {_DRIVER} is not found", mend) from None
    with _asked(device, "the driver cannot start"):
        _call(driver.cuInit, 0)
    return driver


def _check_version(device: str, driver: ctypes.CDLL) -> None:
    found = ctypes.c_int()
    with _asked(device, "the driver does not tell its version"):
        _call(driver.cuDriverGetVersion, ctypes.byref(found))
    has, wants = found.value // 1000, int(_cuda_version().partition(".")[0] or 0)
    if has < wants:
        reason = f"the driver knows CUDA {has}, onnxruntime {onnxruntime.__version__} wants {wants}"
        mend = "update NVIDIA's driver, or install an onnxruntime-gpu for that CUDA (docs/gpu.md)"
        raise DeviceError(device, reason, mend)


def _cuda_version() -> str:
    """Returns the version of CUDA that onnxruntime was built with."""
    return str(getattr(onnxruntime, "cuda_version", "") or "")


def _gpu(device: str, driver: ctypes.CDLL, index: int) -> Gpu:
    count = ctypes.c_int()
    with _asked(device, "the driver does not tell its GPUs"):
        _call(driver.cuDeviceGetCount, ctypes.byref(count))
    if index >= count.value:
        known = ", ".join(f"cuda:{at}" for at in range(count.value)) or "none is visible"
        mend = "choose another, or look at CUDA_VISIBLE_DEVICES"
        raise DeviceError(device, f"no such GPU; known: {known}", mend)
    handle, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    with _asked(device, "the driver does not tell about it"):
        _call(driver.cuDeviceGet, ctypes.byref(handle), index)
        _call(driver.cuDeviceGetName, name, len(name), handle)
        _call(driver.cuDeviceTotalMem_v2, ctypes.byref(memory), handle)
        capability = (_attribute(driver, handle, _MAJOR), _attribute(driver, handle, _MINOR))
    return Gpu(index, name.value.decode("utf-8", "replace"), capability, memory.value)


def _attribute(driver: ctypes.CDLL, handle: ctypes.c_int, number: int) -> int:
    found = ctypes.c_int()
    _call(driver.cuDeviceGetAttribute, ctypes.byref(found), number, handle)
    return found.value


class _Failed(Exception):
    """A call of the driver gave a status other than 0."""


def _call(function: ctypes._NamedFuncPointer, *arguments: object) -> None:
    status = function(*arguments)
    if status:
        raise _Failed(status)


@contextmanager
def _asked(device: str, what: str) -> Iterator[None]:
    """Turns a status of the driver into an error."""
    try:
        yield
    except _Failed as failed:
        reason = f"{what}: CUDA status {failed}"
        raise DeviceError(device, reason, "look at nvidia-smi and the kernel's log") from None
