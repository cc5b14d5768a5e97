"""Figures of ablation.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Result = Mapping[str, Any]  # of ablation.json

_SIDES = {"added_to_base": "added to the base", "taken_from_whole": "taken from the whole"}
_HEIGHT = 0.38  # of a bar; two share a line
_TICKS = (0.125, 0.25, 0.5, 1, 2, 4, 8)


def worth(result: Result) -> Figure:
    """Draws what each idea is worth, added to the base and taken from the whole."""
    figure, axes = _axes("What each idea is worth", len(result["worth"]))
    for at, (key, label) in enumerate(_SIDES.items()):
        rows = [(place, row[key]) for place, row in enumerate(result["worth"]) if row[key]]
        places = [place + (at - 0.5) * _HEIGHT for place, _ in rows]
        _bars(axes, places, [row for _, row in rows], label=label, height=_HEIGHT)
    axes.set_yticks(range(len(result["worth"])), [row["idea"] for row in result["worth"]])
    axes.set(xlabel="throughput with it / without it", xscale="log")
    shown = [tick for tick in _TICKS if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
    axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axes.minorticks_off()
    axes.axvline(1.0, color="black", linewidth=0.8)
    figure.legend(loc="outside lower center", ncols=len(_SIDES))
    return figure


def ladder(result: Result) -> Figure:
    """Draws the way from the base to the whole, an idea at a time."""
    rows = [row for row in result["ladder"] if "value" in row]
    figure, axes = _axes("From the base to the whole", len(rows))
    _bars(axes, range(len(rows)), rows, label="", height=2 * _HEIGHT)
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set(xlabel="throughput / that of the base")
    return figure


def _axes(title: str, lines: int) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 1.4 + 0.5 * lines), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.grid(visible=True, axis="x", alpha=0.3)
    axes.invert_yaxis()
    return figure, axes


def _bars(
    axes: Axes,
    places: Sequence[float],
    rows: Sequence[Mapping[str, Any]],
    *,
    label: str,
    height: float,
) -> None:
    values = [row["value"] for row in rows]
    below = [max(0.0, value - row["range"][0]) for value, row in zip(values, rows, strict=True)]
    above = [max(0.0, row["range"][1] - value) for value, row in zip(values, rows, strict=True)]
    axes.barh(places, values, height, label=label, xerr=[below, above], ecolor="grey", capsize=2)
    for place, value in zip(places, values, strict=True):
        axes.annotate(
            f" {value:.2f}×",
            (value, place),
            va="center",
            fontsize="small",
            xytext=(2, 6),
            textcoords="offset points",
        )


FIGURES: dict[str, tuple[str, Callable[[Result], Figure]]] = {
    "ablation_worth": ("worth", worth),
    "ablation_ladder": ("ladder", ladder),
}
"""By name: the list that each is drawn from, and what draws it."""
