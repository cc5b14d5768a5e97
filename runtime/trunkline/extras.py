"""The extras of an install: what they bring, and how to get one that is missing."""

from __future__ import annotations

import json
from importlib import metadata
from importlib.util import find_spec
from urllib.parse import unquote, urlsplit

from trunkline.errors import MissingExtra

BROUGHT = frozenset(
    {
        *("google", "grpc", "grpc_health", "grpc_status"),  # client
        *("grpc_reflection", "msgpack", "prometheus_client", "uvloop"),  # serve
        *("accelerate", "datasets", "matplotlib", "pyarrow"),  # train
        *("safetensors", "torch", "tqdm", "transformers"),
        *("onnx", "onnxscript"),  # export
        *("optimum", "opentelemetry", "peft", "tensorboard"),
    }
)
"""Top-level modules that some extra brings."""

# Many packages put modules into these: a part may be missing while another is there.
_SHARED = frozenset({"google", "opentelemetry", "optimum"})


def explained(error: ImportError, extra: str) -> ImportError:
    """Returns the error to raise for one that an import raised.

    That is `MissingExtra` if a package of an extra is not installed. Any other error stands: it is
    a fault of an install, or ours, which no extra would mend.

    Args:
        error: As it was raised.
        extra: The extra that whoever imports needs.
    """
    module = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or module not in BROUGHT:
        return error
    if module not in _SHARED and find_spec(module) is not None:
        return error
    return missing(module if module not in _SHARED else error.name or module, extra)


def missing(module: str, extra: str) -> MissingExtra:
    """Returns the error that says how to install an extra."""
    return MissingExtra(module, extra, install_command(extra))


def install_command(extra: str) -> str:
    """Returns how to install an extra from where this Trunkline came from."""
    return f"pip install {_requirement(extra)}"


def _requirement(extra: str) -> str:
    url, about = _origin()
    parts = urlsplit(url)
    if parts.scheme == "file":
        editable = "-e " if about.get("dir_info", {}).get("editable") else ""
        return f"{editable}'{unquote(parts.path)}[{extra}]'"
    version_control = about.get("vcs_info", {}).get("vcs", "")
    where = f"{version_control}+{url}" if version_control else url
    return f"'trunkline[{extra}] @ {where}'" if url else f"'trunkline[{extra}]'"


def _origin() -> tuple[str, dict[str, dict[str, object]]]:
    """Returns where pip had Trunkline from, as PEP 610 has it; empty if from an index."""
    try:
        found = metadata.distribution("trunkline").read_text("direct_url.json")
        about = json.loads(found or "{}")
        return str(about.get("url", "")), about
    except (metadata.PackageNotFoundError, ValueError):
        return "", {}
