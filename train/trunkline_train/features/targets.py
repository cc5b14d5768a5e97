"""What targets are called and which values in them count for nothing; shared with the heads."""

from __future__ import annotations

IGNORE = -100  # torch's cross entropy skips targets of this value
MASK = "mask"  # target that marks real tokens
TEACHER = "teacher."  # prefix of targets that are a teacher's outputs
