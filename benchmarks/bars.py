"""Bars: what must be reached, what was, and both as one line of text.

The JSON form is that of every result file's `bars`: name, bar, at_most, value (median over rounds),
range, rounds, pass, command.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trunkline.errors import DataError


@dataclass(frozen=True)
class Bar:
    """A bar and what was measured for it.

    Attributes:
        name: What it is about.
        bar: What must be reached.
        values: What was, once a round; none if it could not be measured.
        at_most: Whether the bar is a ceiling.
    """

    name: str
    bar: float
    values: Sequence[float]
    at_most: bool = False

    @property
    def value(self) -> float | None:
        """The median; None if nothing was measured."""
        return statistics.median(self.values) if self.values else None

    @property
    def met(self) -> bool:
        """Whether it is reached. What was not measured is not."""
        if self.value is None:
            return False
        return self.value <= self.bar if self.at_most else self.value >= self.bar

    def to_dict(self, command: str = "") -> dict[str, Any]:
        """Returns the JSON form, with the command that measures it."""
        shown = [round(one, 4) for one in self.values]
        return {
            "name": self.name,
            "bar": self.bar,
            "at_most": self.at_most,
            "value": None if self.value is None else round(self.value, 4),
            "range": [min(shown), max(shown)] if shown else None,
            "rounds": shown,
            "pass": self.met,
            "command": command,
        }


def show(bar: Mapping[str, Any]) -> str:
    """Returns a bar's JSON form as one line: name, median, range, bar, verdict."""
    sign = "<=" if bar["at_most"] else ">="
    value, about = bar["value"], f"bar {sign} {bar['bar']:<6g}"
    if value is None:
        return f"{bar['name']:68}{'not measured':>24}  {about} SHORT"
    low, high = bar["range"]
    spread = f"{low:.3g} - {high:.3g}" if low != high else ""
    verdict = "pass" if bar["pass"] else f"SHORT by {abs(value - bar['bar']):.3g}"
    return f"{bar['name']:68}{value:8.4g}{spread:>16}  {about} {verdict}"


def read_bars(path: Path) -> list[dict[str, Any]]:
    """Returns the bars of a result file, each with the file's date as `from`.

    Raises:
        DataError: The file cannot be read, or has none.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        return [{**bar, "from": result["date"], "file": path.name} for bar in result["bars"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(path, f"is no result with bars: {error!r}") from None
