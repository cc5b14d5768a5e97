"""All results of a folder as one page of Markdown with pictures.

    python -m benchmarks.report benchmarks/results/zen3 --out report

writes report/report.md and a PNG for each chart. Each section says when, at which commit, on which
machine and by which command its result was made. A result that is missing, or cannot be read, is
named in the page.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.charts import Picture, Result, pictures
from trunkline.errors import DataError, TrunklineError
from trunkline.files import write_whole

RESULTS = {
    "bars": "The bars",
    "serving": "The server beside its peers",
    "curves": "The server under load",
    "graphs": "The graphs",
    "graph_sizes": "The graphs over sizes",
    "graph_peers": "The graphs beside other engines",
    "edge": "On a small machine",
    "answers": "int8 against fp32",
    "training_speed": "Training speed",
    "five_tasks": "One model for five tasks against five models",
}
"""Stems of result files and what they are called, in the order of the page."""
_TABLES = ("figures", "sizes", "sides", "peers", "tokens_per_second", "padding", "failed")
# Repeated in each round, shown elsewhere, or of no use without the code.
_ASIDE = frozenset({"turns", "rounds", "seconds", "detail", "command", "same_answers"})
# What a result that lacks a field, or has another in its place, makes its section raise.
_ODD = (KeyError, TypeError, ValueError, AttributeError, IndexError, ZeroDivisionError)


def section(stem: str, result: Result) -> tuple[list[str], list[Picture]]:
    """Returns the lines of a result's section, and its pictures."""
    found = [f"## {RESULTS[stem]}", "", *_head(result)]
    found += bars(result.get("bars") or ())
    found += over_peers(result) if stem == "serving" else []
    found += comparisons(result.get("comparisons") or {})
    for name in _TABLES:
        if result.get(name):
            found += ["", f"{name.replace('_', ' ')}:", "", *table(_rows(result[name]))]
    drawn = list(pictures(stem, result))
    found += [line for one in drawn for line in ("", f"![{one.about}]({one.name}.png)")]
    return [*found, ""], drawn


def _head(result: Result) -> Iterator[str]:
    rounds = result.get("rounds")
    told = {name: result.get(name) for name in ("command", "date", "commit", "note")}
    if isinstance(rounds, Mapping):
        told["rounds"] = f"{rounds.get('counted')} count, {rounds.get('left_out')} left out"
    told |= {name: result.get(name) for name in ("machine", "versions")}
    for name, value in told.items():
        if value:
            yield f"- {name}: `{value}`" if name == "command" else f"- {name}: {text(value)}"


def bars(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a table of bars: what must be reached, what was, and by how much it falls short."""
    rows = []
    for bar in found:
        wanted, value, limits = bar.get("bar"), bar.get("value"), bar.get("range")
        short = f"**short by {text(abs(value - wanted))}**" if value is not None else "**short**"
        row = {
            "": bar.get("name", ""),
            "bar": f"{'≤' if bar.get('at_most') else '≥'} {text(wanted)}",
            "measured": "not measured" if value is None else value,
            "range": "" if not limits else " – ".join(map(text, limits)),
            "verdict": "pass" if bar.get("pass") else short,
        }
        rows.append(row | {name: bar[name] for name in ("from",) if name in bar})
    return ["", *table(rows)] if rows else []


def over_peers(result: Result) -> list[str]:
    """Returns a table of Trunkline over each peer, round by round; where it loses it is bold."""
    names = list(result["figures"])
    ours = [name for name in names if name.startswith("trunkline ")]
    rows = []
    for own in ours:
        for peer in names:
            if peer in ours or peer.startswith("in process "):
                continue
            pairs = [
                [one["turns"][name]["tokens_per_second"] for name in (own, peer)]
                for one in result["detail"]
                if own in one["turns"] and peer in one["turns"]
            ]
            if ratios := [mine / theirs for mine, theirs in pairs if theirs]:
                rows.append({"": own, "over": peer, "throughput": _ratio(ratios)})
    return ["", *table(rows)] if rows else []


def _ratio(ratios: Sequence[float]) -> str:
    middle = statistics.median(ratios)
    told = f"{middle:.2f}× ({min(ratios):.2f} – {max(ratios):.2f})"
    return told if middle >= 1 else f"**{told}**"


def comparisons(found: Mapping[str, Any]) -> list[str]:
    """Returns a table of the tasks of one model beside models of their own."""
    rows = [
        {"": arm, "task": task, "score": one[arm]["mean"], "alone": one["single"]["mean"]}
        | {"difference": f"{one['delta']:+.2f}"}
        for arm, about in found.items()
        for task, one in about["tasks"].items()
    ]
    return ["", *table(rows)] if rows else []


def _rows(value: Any) -> list[dict[str, Any]]:
    """Returns the rows of a list, or of a table with names; nested tables become columns."""
    if isinstance(value, Mapping):
        return [{"": name} | _cells(one) for name, one in value.items()]
    return [_cells(one) for one in value]


def _cells(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {"value": value}
    cells: dict[str, Any] = {}
    for name, one in value.items():
        if name in _ASIDE:
            continue
        if isinstance(one, Mapping) and any(isinstance(part, list) for part in one.values()):
            cells |= {f"{name}: {part}": _ratio(ratios) for part, ratios in one.items()}
        else:
            cells[name] = one
    return cells


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a table of Markdown; columns without any value are left out."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    names = [name for name in names if any(row.get(name) is not None for row in rows)]
    lines = [[name.replace("_", " ") for name in names], ["---"] * len(names)]
    lines += [[text(row.get(name)) for name in names] for row in rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def text(value: object) -> str:
    """Returns a value as people write it, for a cell of Markdown; nothing for None."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case int() | float():
            return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"  # noqa: PLR2004
        case Mapping():
            return ", ".join(f"{name} {text(one)}" for name, one in value.items())
        case list():
            return " – ".join(map(text, value)) if _numbers(value) else " ".join(map(text, value))
    shown = str(value).replace("|", "\\|").replace("<", "&lt;")
    return " ".join(shown.split())


def _numbers(values: Sequence[object]) -> bool:
    return all(isinstance(one, int | float) for one in values)


def read(file: Path) -> Result:
    """Returns a result.

    Raises:
        DataError: There is none, or it cannot be read.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(file, "is missing: this was not measured") from None
    except (OSError, ValueError) as error:
        raise DataError(file, f"cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise DataError(file, "is no result: not a JSON object")
    return found


def report(folder: Path, out: Path) -> dict[str, str]:
    """Writes the page and its pictures; returns what is not shown, with the reason, by file name.

    Raises:
        DataError: There is no such folder.
    """
    if not folder.is_dir():
        raise DataError(folder, "is not a folder; give the one that the results are in")
    lacking: dict[str, str] = {}
    lines: list[str] = []
    out.mkdir(parents=True, exist_ok=True)
    for stem in RESULTS:
        file = folder / f"{stem}.json"
        try:
            found, drawn = section(stem, read(file))
        except DataError as error:
            lacking[file.name] = str(error).removeprefix(f"{file}: ")
            continue
        except _ODD as error:
            lacking[file.name] = f"cannot be shown: it has another form than expected ({error!r})"
            continue
        lines += found
        for one in drawn:
            (out / f"{one.name}.png").write_bytes(one.png)
    told = [f"- Not here: {name}: {text(reason)}" for name, reason in lacking.items()]
    write_whole(out / "report.md", "\n".join(["# Trunkline: benchmarks", "", *told, "", *lines]))
    return lacking


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page; returns 2 if there is no folder to read."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder of the page")
    given = parser.parse_args(argv)
    try:
        lacking = report(given.folder, given.out)
    except TrunklineError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{given.out / 'report.md'}: {len(RESULTS) - len(lacking)} results")
    for name, reason in lacking.items():
        print(f"{name}: {reason}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
