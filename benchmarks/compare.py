"""Two results of the same benchmark, figure by figure.

    python -m benchmarks.compare OLD.json NEW.json

prints NEW over OLD for every figure that both have. Results of different machines, numbers of
threads or devices are refused: the ratio would be the machines', not the code's. `beyond the range`
marks a figure whose rounds do not overlap with those of the other result; without that a
difference may be noise. Exit status 2 if the results cannot be compared.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.spread import Spread
from trunkline.errors import DataError, TrunklineError

# Of a machine, what must be the same for a ratio to mean anything.
_MACHINE = ("cpu", "cpu_signature", "flags", "cpus", "cores", "quota", "gpus", "system")
_HEAD = frozenset(["date", "commit", "command", "machine", "versions", "note"])
# What a benchmark was told, what stands for a range already, and what is not a figure.
_ASIDE = frozenset(
    [
        "settings",
        "config",
        "rounds",
        "detail",
        "seconds",
        "runs",
        "bar",
        "range",
        "left_out",
        "threads",
        "jobs",
        "asked",
        "turns",
    ]
)
# What tells a table of a list from its neighbours, and is no figure there.
_IDENTITY = ("name", "idea", "graph", "side", "x", "tokens", "rows", "length")
_NONE = "not said"


class NotComparable(TrunklineError):
    """Two results are of different benchmarks or machines; names what differs."""


def read_result(path: Path) -> dict[str, Any]:
    """Returns a result file.

    Raises:
        DataError: It cannot be read, or is no result.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(path, f"cannot be read: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("machine"), dict):
        raise DataError(path, "is no result: it does not say on which machine it was made")
    return found


def benchmark_of(result: Mapping[str, Any]) -> str:
    """Returns the module that made a result, without its package, which may have changed."""
    try:
        words = shlex.split(str(result.get("command", "")))
    except ValueError:
        return ""
    return words[words.index("-m") + 1].partition(".")[2] if "-m" in words[:-1] else ""


def check_comparable(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Makes sure that a ratio of two results says something about the code.

    Raises:
        NotComparable: Benchmark, machine, threads or device differ, or one does not say them.
    """
    names = benchmark_of(old), benchmark_of(new)
    if names[0] != names[1]:
        raise NotComparable(f"different benchmarks: {names[0] or _NONE} and {names[1] or _NONE}")
    differences = list(_differences(conditions(old), conditions(new)))
    if differences:
        told = "; ".join(differences)
        raise NotComparable(f"different machines: {told}; measure both on one machine")


def conditions(result: Mapping[str, Any]) -> dict[str, str]:
    """Returns what a result's figures hang on beside the code, as text, where it says so."""
    machine = result["machine"]
    told = {name: machine[name] for name in _MACHINE if name in machine}
    if "gpus" in told:
        told["gpus"] = [one.get("name") for one in told["gpus"]]
    for place in (_plain(result.get("settings")), result):
        told |= {name: place[name] for name in ("threads", "device") if name in place}
    return {name: _text(value) for name, value in told.items()}


def _text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _differences(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for name in dict.fromkeys((*old, *new)):
        before, after = old.get(name, _NONE), new.get(name, _NONE)
        if before != after:
            yield f"{name}: {_shown(name, before, after)}"


def _shown(name: str, before: str, after: str) -> str:
    if name == "flags" and _NONE not in {before, after}:
        gone, come = set(before.split()), set(after.split())
        parts = (
            f"only the {side} has {' '.join(sorted(one))}"
            for side, one in (("old", gone - come), ("new", come - gone))
            if one
        )
        return ", ".join(parts)
    return f"{before} and {after}"


def figures(result: Mapping[str, Any]) -> dict[str, Spread]:
    """Returns the figures of a result by name, whatever benchmark made it.

    A figure is a number with a key, or a bar's value; lists of numbers are rounds, and no figures.
    """
    body = {key: value for key, value in result.items() if key not in _HEAD}
    return dict(_walk(body, ()))


def _walk(value: object, path: tuple[str, ...]) -> Iterator[tuple[str, Spread]]:
    if isinstance(value, Mapping):
        yield from _walk_table(value, path)
    elif isinstance(value, list):
        for one in value:
            if isinstance(one, Mapping) and (label := _label(one)):
                rest = {key: part for key, part in one.items() if key not in _IDENTITY}
                yield from _walk(rest, (*path, label))


def _walk_table(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, Spread]]:
    low, high = _range_of(table)
    ranged = "value" if "value" in table else "tokens_per_second"
    for key, value in table.items():
        if key in _ASIDE:
            continue
        if _is_number(value):
            # The only figure of a bar needs no name beside the bar's.
            name = " / ".join(path if key == "value" else (*path, key))
            yield name, Spread(float(value), *((low, high) if key == ranged else ()))
        else:
            yield from _walk(value, (*path, key))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _range_of(table: Mapping[str, Any]) -> tuple[float | None, float | None]:
    match table.get("range"):
        case [low, high] if _is_number(low) and _is_number(high):
            return float(low), float(high)
    return None, None


def _label(table: Mapping[str, Any]) -> str:
    """Returns what a table of a list is called; empty if nothing tells it from its neighbours."""
    parts = ((key, table[key]) for key in _IDENTITY if isinstance(table.get(key), str | int))
    return ", ".join(part if isinstance(part, str) else f"{key} {part}" for key, part in parts)


def remarks(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns what else differs, which a reader should know: settings, versions, kernel, memory."""
    found = []
    for name in ("settings", "versions", "machine"):
        before, after = (_plain(one.get(name)) for one in (old, new))
        told = set(_MACHINE) if name == "machine" else set()
        told |= {"load_before"}
        both = [key for key in before if key in after and key not in told]
        found += [
            f"{name}, {key}: {before[key]} and {after[key]}"
            for key in both
            if before[key] != after[key]
        ]
    return found


def _plain(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def show(old: Mapping[str, Spread], new: Mapping[str, Spread]) -> str:
    """Returns the ratios as lines of text, and what only one of the two has."""
    both = [name for name in new if name in old]
    width = max(map(len, both), default=0) + 2
    lines = [f"{'':{width}}{'old':>12}{'new':>12}{'new/old':>10}"]
    lines += [_line(name, old[name], new[name], width) for name in both]
    for side, here, there in (("old", old, new), ("new", new, old)):
        lines += [f"only in {side}: {name}" for name in here if name not in there]
    return "\n".join(lines)


def _line(name: str, old: Spread, new: Spread, width: int) -> str:
    ratio = f"{new.value / old.value:10.3f}" if old.value else f"{'':>10}"
    mark = "  beyond the range" if new.below(old) or old.below(new) else ""
    return f"{name:{width}}{old.value:12.5g}{new.value:12.5g}{ratio}{mark}"


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the ratios; returns 2 if there can be none."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    given = parser.parse_args(argv)
    try:
        old, new = read_result(given.old), read_result(given.new)
        check_comparable(old, new)
    except TrunklineError as error:
        print(error, file=sys.stderr)
        return 2
    for line in remarks(old, new):
        print(f"also differs: {line}")
    print(show(figures(old), figures(new)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
