"""What a model may be called, so that it can be asked for and is nothing else of a server."""

from __future__ import annotations

import re

from trunkline.errors import LONGEST_NAME, shown

TENSORS = ".tensors"
"""What the Open Inference Protocol has behind a model's name to call it with tensors."""

MOST_VERSION = 10**18 - 1

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SERVICES = ("grpc.", "inference.", "trunkline.")  # health is asked for these by name too


def check_model_name(name: str) -> None:
    """Raises ValueError unless `name` can name a model."""
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise ValueError(
            f"name: {shown(name)} cannot name a model; use up to {LONGEST_NAME} of A-Z, a-z, 0-9, "
            "'.', '_' and '-', starting with a letter or digit"
        )
    if name.endswith(TENSORS):
        mend = "servers put that behind a name themselves; choose another name"
        raise ValueError(f"name: {name!r} ends with {TENSORS!r}; {mend}")
    if name.startswith(_SERVICES):
        mend = "services of the server begin so; choose another name"
        raise ValueError(f"name: {name!r} begins with {name.partition('.')[0] + '.'!r}; {mend}")


def check_model_version(version: int) -> None:
    """Raises ValueError unless `version` can be the version of a model."""
    if type(version) is not int or not 1 <= version <= MOST_VERSION:
        raise ValueError(f"version: {version!r} is no whole number from 1 to 10 to the 18th")
