"""Names and special values of targets, shared with the heads."""

from __future__ import annotations

IGNORE = -100  # torch's cross entropy skips targets of this value
MASK = "mask"  # name of the target that marks real tokens
TEACHER = "teacher."  # prefix of targets that hold a teacher's logits
