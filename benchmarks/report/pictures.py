"""The figures that results have, as PNG with a text that says what they show."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.plots import curves, graphs, peers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Figures = Mapping[str, tuple[str, Callable[[Any], "Figure"]]]

_DPI = 120
FIGURES: Mapping[str, Figures] = {
    "curves": curves.FIGURES,
    "serving": peers.FIGURES,
    "graph_peers": peers.GRAPH_FIGURES,
    "graph_sizes": graphs.FIGURES,
}
"""By the stem of the result file."""


@dataclass(frozen=True)
class Picture:
    """One figure.

    Attributes:
        name: Of its file, without ending.
        about: What it shows, for those who do not see it.
        png: The image.
    """

    name: str
    about: str
    png: bytes


def pictures(stem: str, result: Mapping[str, Any]) -> Iterator[Picture]:
    """Yields the figures of a result that there is anything to draw for."""
    for name, (field, draw) in FIGURES.get(stem, {}).items():
        if _any(result.get(field)):
            image = io.BytesIO()
            draw(result).savefig(image, format="png", dpi=_DPI)
            first = (draw.__doc__ or name).partition("\n")[0].rstrip(".")
            yield Picture(name, first.replace("Draws", "Chart of", 1), image.getvalue())


def _any(points: object) -> bool:
    """Tells if there is a point to draw; those of curves may all not count."""
    if isinstance(points, list):
        return any(one.get("counts", True) for one in points)
    return bool(points)
