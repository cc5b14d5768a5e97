"""Checks the folder of a run before writing, and clears an old run."""

from __future__ import annotations

import shutil
from pathlib import Path

from trunkline.errors import CheckpointError, ConfigError
from trunkline.files import left_aside

LAST, BEST = "last", "best"
_CARD = "README.md"


def check_place(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Checks that a run may be written into a folder.

    Args:
        out: The folder; may be missing.
        resume: Whether to resume the run in it.
        overwrite: Whether to replace a run in it.

    Raises:
        ConfigError: The folder holds a run, or a README.md that no run wrote.
        CheckpointError: There is nothing to resume.
    """
    if resume and overwrite:
        raise ConfigError(f"{out}: a run goes on or is replaced; choose resume or overwrite")
    if resume and not _holds(out / LAST):
        raise CheckpointError(out, "holds no run to go on with; leave out --resume")
    if resume:
        return
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file; choose another --out")
    holds_run = any(_holds(out / name) for name in (LAST, BEST))
    if holds_run and not overwrite:
        ways = "--resume to go on, --overwrite to train anew, or another --out"
        raise ConfigError(f"{out}: holds a run; use {ways}")
    if not holds_run and (out / _CARD).exists():
        raise ConfigError(f"{out}: has a {_CARD} that is of no run; choose another --out")


def _holds(folder: Path) -> bool:
    return folder.exists() or left_aside(folder) is not None


def clear_run(out: Path) -> None:
    """Removes the checkpoints of an old run."""
    for folder in [out / LAST, out / BEST, *out.glob(f"{BEST}-*")]:
        shutil.rmtree(folder, ignore_errors=True)
