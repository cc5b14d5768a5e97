"""All results of a folder as one HTML page that needs nothing beside it.

    python -m benchmarks.report benchmarks/results --out report.html [--png docs/figures]

Each section says when, at which commit, on which machine and by which command its result was made.
A result that is missing, or cannot be read, is named in the page.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.report.html import page, paragraph, picture, section
from benchmarks.report.pictures import Picture, pictures
from benchmarks.report.sections import body, how
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
# What a result that lacks a field, or has another in its place, makes its section raise.
_ODD = (KeyError, TypeError, ValueError, AttributeError, IndexError, ZeroDivisionError)


@dataclass
class Report:
    """What became of the results.

    Attributes:
        sections: HTML.
        pictures: All figures.
        lacking: What is missing or cannot be shown, and why, by file name.
    """

    sections: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    lacking: dict[str, str] = field(default_factory=dict)


def report(folder: Path) -> Report:
    """Reads a folder's results and returns what there is to say of them.

    Raises:
        DataError: There is no such folder.
    """
    if not folder.is_dir():
        raise DataError(folder, "is not a folder; give the one that the results are in")
    found = Report()
    for stem, title in RESULTS.items():
        file = folder / f"{stem}.json"
        try:
            found.sections.append(_section(stem, title, _read(file), found.pictures))
        except _ODD as error:
            reason = str(error) if isinstance(error, _Unreadable) else _oddity(error)
            found.lacking[file.name] = reason
            found.sections.append(section(title, paragraph(f"{file.name}: {reason}")))
    return found


class _Unreadable(ValueError):
    """A file is missing or no JSON object."""


def _oddity(error: Exception) -> str:
    return f"cannot be shown: it has another form than expected ({error!r})"


def _read(file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _Unreadable("is missing: this was not measured") from None
    except (OSError, ValueError) as error:
        raise _Unreadable(f"cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise _Unreadable("is no result: not a JSON object")
    return found


def _section(stem: str, title: str, result: Mapping[str, Any], drawn: list[Picture]) -> str:
    images = list(pictures(stem, result))
    made = section(
        title,
        how(result),
        body(stem, result),
        *(picture(one.png, one.about) for one in images),
    )
    drawn += images
    return made


def _summary(found: Report) -> Iterator[str]:
    for name, reason in found.lacking.items():
        yield f"{name}: {reason}"


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page, and the figures if wanted; returns 2 if there is no folder to read."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("report.html"))
    parser.add_argument("--png", type=Path, help="folder for the figures as files")
    given = parser.parse_args(argv)
    try:
        found = report(given.folder)
    except TrunklineError as error:
        print(error, file=sys.stderr)
        return 2
    lacking = [paragraph(f"Not here: {line}") for line in _summary(found)]
    write_whole(given.out, page("Trunkline: benchmarks", [*lacking, *found.sections]))
    if given.png is not None:
        given.png.mkdir(parents=True, exist_ok=True)
        for one in found.pictures:
            (given.png / f"{one.name}.png").write_bytes(one.png)
    shown = len(RESULTS) - len(found.lacking)
    print(f"{given.out}: {shown} results, {len(found.pictures)} figures")
    for line in _summary(found):
        print(line, file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
