"""Pictures of results: charts.toml says what is drawn from which fields of which result."""

from __future__ import annotations

import io
import math
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# matplotlib is imported where it draws: loading it takes a while.

Result = Mapping[str, Any]
Point = Mapping[str, Any]

_DPI = 120
_WIDTH, _HEIGHT = 7.0, 4.2  # inches
_STYLES = ("-", "--", ":")
_COLOURS = 10  # of matplotlib's default cycle
_OURS = ("trunkline", "in process", "packed")


@dataclass(frozen=True)
class Chart:
    """One picture.

    Attributes:
        name: Of its file, without ending.
        title: Of the picture.
        draw: Draws it.
        points: The field of the result with the list, or the table, that is drawn.
        fields: Of a point: what is drawn; `a.b` is field b of field a.
        labels: Of the axes, x and y.
        x: The field of a point on the x axis.
        side: The field of a point that tells the lines, or the panels, apart.
        log: The axes with a logarithmic scale.
    """

    name: str
    title: str
    draw: Callable[[Chart, Result], Figure]
    points: str
    fields: Sequence[str]
    labels: Sequence[str]
    x: str = "x"
    side: str = "side"
    log: str = ""


@dataclass(frozen=True)
class Picture:
    """A chart as PNG, with a text for those who do not see it."""

    name: str
    about: str
    png: bytes


def lines(chart: Chart, result: Result) -> Figure:
    """Draws a line for each side and field, with the range over rounds where there is one."""
    figure, axes = _axes(chart)
    for side, points in _by_side(chart, result).items():
        for field, style in zip(chart.fields, _STYLES, strict=False):
            values = [_value(one, field) for one in points]
            if all(map(math.isnan, values)):
                continue
            label = side if len(chart.fields) == 1 else f"{side}, {field.removesuffix('_ms')}"
            colour = _colour(chart, result, side)
            xs = [one[chart.x] for one in points]
            axes.plot(xs, values, style, marker="o", markersize=4, color=colour, label=label)
            _shade(axes, points, xs, field, colour)
    _scale(axes, chart, sorted({one[chart.x] for one in result[chart.points]}))
    return _finished(figure, axes, chart, result)


def _shade(
    axes: Axes, points: Sequence[Point], xs: Sequence[float], field: str, colour: str
) -> None:
    name = "range" if field == "tokens_per_second" else f"{field}_range"
    if all(one.get(name) for one in points):
        low, high = ([one[name][end] for one in points] for end in (0, 1))
        axes.fill_between(xs, low, high, color=colour, alpha=0.2, linewidth=0)


def groups(chart: Chart, result: Result) -> Figure:
    """Draws groups of bars: a group for each x, a bar for each side."""
    figure, axes = _axes(chart)
    names = list(dict.fromkeys(one[chart.x] for one in result[chart.points]))
    by_side = _by_side(chart, result)
    width = 0.8 / max(len(by_side), 1)
    for at, (side, points) in enumerate(by_side.items()):
        places = [names.index(one[chart.x]) - 0.4 + (at + 0.5) * width for one in points]
        heights = [_first(one, chart.fields) for one in points]
        axes.bar(places, heights, width, label=side, color=_colour(chart, result, side))
    axes.set_xticks(range(len(names)), names, rotation=20, ha="right")
    return _finished(figure, axes, chart, result)


def stacks(chart: Chart, result: Result) -> Figure:
    """Draws what a whole is made of, by x, a panel for each side that says it."""
    from matplotlib.figure import Figure

    (field,) = chart.fields
    told = {
        side: points
        for side, found in _by_side(chart, result).items()
        if (points := [one for one in found if one.get(field)])
    }
    size = (3.6 * max(len(told), 1) + 1.5, _HEIGHT)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(chart.title)
    every = (part for points in told.values() for one in points for part in one[field])
    parts = list(dict.fromkeys(every))
    for at, (side, points) in enumerate(told.items()):
        axes = figure.add_subplot(1, len(told), at + 1)
        bottom = [0.0] * len(points)
        for part in parts:
            heights = [one[field].get(part, 0.0) for one in points]
            label = part.removesuffix("_ms")
            axes.bar(range(len(points)), heights, bottom=bottom, label=label)
            bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
        ticks = [f"{one[chart.x]:,}" for one in points]
        axes.set_xticks(range(len(points)), ticks, rotation=60)
        axes.set(title=side, xlabel=chart.labels[0], ylabel=chart.labels[1])
    if told:
        handles = figure.axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside right center", fontsize="small")
    _note(figure, chart, result)
    return figure


def ranking(chart: Chart, result: Result) -> Figure:
    """Draws the sides of a table from the quickest down, with the range over rounds."""
    from matplotlib.figure import Figure

    (field,) = chart.fields
    sides = sorted(result[chart.points].items(), key=lambda side: side[1][field])
    values = [row[field] for _, row in sides]
    errors = [
        [max(0.0, sign * (row["range"][end] - row[field])) for _, row in sides]
        for end, sign in ((0, -1), (1, 1))
    ]
    figure = Figure(figsize=(_WIDTH, 1.4 + 0.34 * len(sides)), layout="constrained")
    axes = figure.add_subplot()
    colours = ["tab:blue" if name.startswith(_OURS) else "tab:gray" for name, _ in sides]
    axes.barh([name for name, _ in sides], values, color=colours, xerr=errors, capsize=2)
    axes.set(title=chart.title, xlabel=chart.labels[0])
    axes.grid(visible=True, axis="x", alpha=0.3)
    return figure


_DRAWN = {draw.__name__: draw for draw in (lines, groups, stacks, ranking)}


def _read(file: Path) -> dict[str, list[Chart]]:
    found = tomllib.loads(file.read_text(encoding="utf-8"))
    return {
        stem: [Chart(**one | {"draw": _DRAWN[one["draw"]]}) for one in charts]
        for stem, charts in found.items()
    }


CHARTS = _read(Path(__file__).with_suffix(".toml"))
"""By the stem of the result file."""


def pictures(stem: str, result: Result) -> Iterator[Picture]:
    """Yields the charts of a result that there is anything to draw for."""
    for chart in CHARTS.get(stem, ()):
        points = result.get(chart.points)
        if points and (not isinstance(points, list) or any(map(_counts, points))):
            image = io.BytesIO()
            chart.draw(chart, result).savefig(image, format="png", dpi=_DPI)
            yield Picture(chart.name, f"Chart: {chart.title}", image.getvalue())


def _counts(point: Point) -> bool:
    """Tells if a point is drawn; those of which CPU time was stolen are not."""
    return bool(point.get("counts", True))


def _by_side(chart: Chart, result: Result) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for one in filter(_counts, result[chart.points]):
        found.setdefault(one[chart.side], []).append(one)
    return found


def _value(point: Point, field: str) -> float:
    """Returns a field of a point; NaN where it, or what it is in, is null."""
    value: Any = point
    for name in field.split("."):
        value = None if value is None else value[name]
    return math.nan if value is None else float(value)


def _first(point: Point, fields: Sequence[str]) -> float:
    """Returns the first field that has a value."""
    values = (_value(point, field) for field in fields)
    return next((value for value in values if not math.isnan(value)), math.nan)


def _colour(chart: Chart, result: Result, side: str) -> str:
    """Returns the colour of a side, the same in all pictures of a result."""
    sides = result.get("sides") or {one[chart.side]: None for one in result[chart.points]}
    return f"C{list(sides).index(side) % _COLOURS}"


def _axes(chart: Chart) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=chart.title, xlabel=chart.labels[0], ylabel=chart.labels[1])
    axes.grid(visible=True, alpha=0.3)
    return figure, axes


def _scale(axes: Axes, chart: Chart, xs: Sequence[float]) -> None:
    """Gives x a tick at each value that was measured if its scale is logarithmic."""
    if "x" in chart.log:
        axes.set_xscale("log", base=2)
        axes.set_xticks(xs, [f"{x:,}" for x in xs], rotation=30)
        axes.minorticks_off()


def _finished(figure: Figure, axes: Axes, chart: Chart, result: Result) -> Figure:
    if "y" in chart.log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
    _note(figure, chart, result)
    return figure


def _note(figure: Figure, chart: Chart, result: Result) -> None:
    """Says how many points are not drawn, and of how many the load generator was the limit."""
    points, told = result[chart.points], []
    left = len(points) - sum(map(_counts, points))
    if left:
        told.append(f"{left} of {len(points)} points not drawn: CPU time was stolen")
    saturated = sum(bool((one.get("generator") or {}).get("saturated")) for one in points)
    if saturated:
        told.append(f"the load generator may have been the limit of {saturated}")
    if told:
        figure.supxlabel("; ".join(told), fontsize="x-small", color="grey")
