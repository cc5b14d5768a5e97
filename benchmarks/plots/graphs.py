"""Figures of graph_sizes.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Result = Mapping[str, Any]  # of graph_sizes.json

_SIZE = (7.0, 4.2)
_PANEL = 3.6  # inches


def speed_over_size(result: Result) -> Figure:
    """Draws tokens per second against real tokens at once, a line a graph."""
    return _lines(result, "Speed of the graphs", "tokens/s", "tokens_per_second", "range", 1.0)


def share_over_size(result: Result) -> Figure:
    """Draws the share of the matrix peak of a graph's precision against real tokens at once."""
    title, label = "Share of the machine's matrix peak", "per cent, of the own precision"
    return _lines(result, title, label, "share_of_peak", "share_of_peak_range", 100.0)


def operators_over_size(result: Result) -> Figure:
    """Draws the share of time by group of operators, a panel a graph."""
    from matplotlib.figure import Figure

    names = _graphs(result)
    figure = Figure(figsize=(_PANEL * len(names) + 1.5, 4.2), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    groups = list(dict.fromkeys(one for row in result["sizes"] for one in row["operators"]))
    for axes, name in zip(panels, names, strict=True):
        _stack(axes, [row for row in result["sizes"] if row["graph"] == name], groups)
        axes.set(title=name, xlabel="real tokens")
    panels[0].set_ylabel("share of time, one thread")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    figure.suptitle("Where the time goes")
    return figure


def _stack(axes: Axes, rows: list[Mapping[str, Any]], groups: list[str]) -> None:
    bottom = [0.0] * len(rows)
    for group in groups:
        shares = [row["operators"].get(group, 0.0) for row in rows]
        axes.bar([f"{row['tokens']:,}" for row in rows], shares, bottom=bottom, label=group)
        bottom = [below + share for below, share in zip(bottom, shares, strict=True)]
    axes.tick_params(axis="x", rotation=60)


def _lines(  # noqa: PLR0917 - two texts, two fields, a factor
    result: Result, title: str, label: str, field: str, spread: str, factor: float
) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    for name in _graphs(result):
        rows = [row for row in result["sizes"] if row["graph"] == name]
        sizes = [row["tokens"] for row in rows]
        (line,) = axes.plot(sizes, [row[field] * factor for row in rows], "o-", label=name)
        low, high = ([row[spread][end] * factor for row in rows] for end in (0, 1))
        axes.fill_between(sizes, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set(title=title, xlabel="real tokens at once, in rows of mixed lengths", ylabel=label)
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    return figure


def _graphs(result: Result) -> list[str]:
    return list(dict.fromkeys(row["graph"] for row in result["sizes"]))


FIGURES: dict[str, tuple[str, Callable[[Result], Figure]]] = {
    "graph_speed": ("sizes", speed_over_size),
    "graph_share_of_peak": ("sizes", share_over_size),
    "graph_operators": ("sizes", operators_over_size),
}
"""By name: the list that each is drawn from, and what draws it."""
