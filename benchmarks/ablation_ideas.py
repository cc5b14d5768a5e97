"""The ideas of the server, which of them a variant has, and what is set against what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

Batches = Literal["row", "task", "any"]


@dataclass(frozen=True)
class Ideas:
    """What a variant does.

    Attributes:
        packing: Rows stand one behind the other; without it each is padded to the longest.
        widths: Rows of one width of attention share a run; for packed rows only.
        int8: The int8 graph; without it the fp32 one.
        batches: What shares a run: one row alone, rows of calls for the same tasks, or any rows.
        lanes: Several runs side by side, a thread each; without it a run at a time has all threads.
        heads: A call's heads in one pass of the encoder; without it each task has a pass.
    """

    packing: bool = False
    widths: bool = False
    int8: bool = False
    batches: Batches = "row"
    lanes: bool = False
    heads: bool = True


BASE = Ideas()
WHOLE = Ideas(packing=True, widths=True, int8=True, batches="any", lanes=True)
_BATCHED = replace(BASE, batches="any")
_PACKED = replace(_BATCHED, packing=True, widths=True)


@dataclass(frozen=True)
class Idea:
    """An idea, and the variants that tell what it is worth.

    Attributes:
        name, about: For the table.
        alone: The base with it; None where it makes no sense alone.
        without: The whole without it.
    """

    name: str
    about: str
    alone: Ideas | None
    without: Ideas


IDEAS = (
    Idea(
        "packing",
        "rows one behind the other, against rows padded to the longest of the run",
        replace(BASE, packing=True),
        replace(WHOLE, packing=False),
    ),
    Idea(
        "int8",
        "the int8 graph against the fp32 one",
        replace(BASE, int8=True),
        replace(WHOLE, int8=False),
    ),
    Idea(
        "batching",
        "rows of several calls in a run, against a row a run; alone: of one task",
        replace(BASE, batches="task"),
        replace(WHOLE, batches="row"),
    ),
    Idea(
        "cross-task batching",
        "any calls share a run, against those of one task; alone: against a row a run",
        _BATCHED,
        replace(WHOLE, batches="task"),
    ),
    Idea(
        "lanes",
        "several runs side by side on a thread each, against one that has all threads",
        replace(BASE, lanes=True),
        replace(WHOLE, lanes=False),
    ),
    Idea(
        "lines of one width",
        "rows of like length share a run, against rows as they come",
        None,
        replace(WHOLE, widths=False),
    ),
)

FUSED = Idea(
    "fused heads",
    "all heads that read a text in one pass, against a pass each",
    BASE,
    replace(WHOLE, heads=False),
)
"""On other traffic: of texts that are asked for all that reads them."""

LADDER: dict[str, Ideas] = {
    "base: padded, fp32, a row a run": BASE,
    "+ cross-task batching": _BATCHED,
    "+ packing": _PACKED,
    "+ lanes": replace(WHOLE, int8=False),
    "+ int8: the whole": WHOLE,
}
"""From the base to the whole, an idea at a time."""


def variants() -> dict[Ideas, str]:
    """Returns what takes turns on mixed traffic, each once, with its name."""
    found = {BASE: "base", WHOLE: "whole"}
    for one in IDEAS:
        if one.alone is not None:
            found.setdefault(one.alone, f"base + {one.name}")
        found.setdefault(one.without, f"whole - {one.name}")
    found.setdefault(_PACKED, "base + cross-task batching + packing")
    return found


def fused_variants() -> dict[Ideas, str]:
    """Returns what takes turns on texts that are asked for all heads, with its name."""
    return dict(_fused())


def _fused() -> Iterator[tuple[Ideas, str]]:
    for one, name in ((BASE, "base"), (WHOLE, "whole")):
        yield one, f"{name}, heads in one pass"
        yield replace(one, heads=False), f"{name}, a pass a head"
