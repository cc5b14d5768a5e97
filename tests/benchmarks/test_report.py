"""The page shows what is there, names what is not, and needs nothing beside it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report.__main__ import main

HEAD: dict[str, Any] = {
    "date": "2026-01-01T00:00:00+00:00",
    "commit": "abc123",
    "command": "python -m benchmarks.x B",
    "machine": {"cpu": "Some <Processor>", "quota": None, "gpus": [{"name": "Some GPU"}]},
    "versions": {"numpy": "2.0"},
}
RATIO = {"value": 2.5, "range": [2.0, 3.0]}


def turn(tokens: float) -> dict[str, float]:
    return {"tokens_per_second": tokens}


def side(tokens: float) -> dict[str, Any]:
    return {
        "tokens_per_second": tokens,
        "range": [tokens, tokens],
        "documents_per_second": 1.0,
        "p50_ms": None,
        "p99_ms": 2.0,
    }


SERVING = {
    "bars": [{"name": "x", "bar": 3.0, "value": 2.0, "range": [1.9, 2.2], "pass": False}],
    "figures": {"trunkline g": side(100), "plain": side(200), "mosec": side(50)},
    "peers": {"litserve": {"error": "would not <install>"}},
    "detail": [
        {"turns": {"trunkline g": turn(100), "plain": turn(200), "mosec": turn(50)}},
        {"turns": {"trunkline g": turn(90), "plain": turn(180), "mosec": turn(30)}},
    ],
}
SIZES = {
    "threads": 2,
    "peak_gops": {"fp32": 100.0},
    "sizes": [
        {
            "graph": "g",
            "tokens": tokens,
            "tokens_per_second": 5.0,
            "range": [4.0, 6.0],
            "share_of_peak": 0.5,
            "share_of_peak_range": [0.4, 0.6],
            "operators": {"products": 0.8, "other": 0.2},
        }
        for tokens in (1, 64)
    ],
}
BARS = {
    "bars": [
        {"name": "met", "bar": 1.0, "value": 2.0, "pass": True, "from": "now"},
        {"name": "low & slow", "bar": 3.0, "value": 2.25, "at_most": False, "pass": False},
        {"name": "unknown", "bar": 3.0, "value": None, "range": None, "pass": False},
    ]
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    results = {"serving": SERVING, "graph_sizes": SIZES, "bars": BARS}
    for name, result in results.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(HEAD | result))
    return tmp_path


def written(folder: Path, *more: str) -> str:
    out = folder / "report.html"
    assert main([str(folder), "--out", str(out), *more]) == 0
    return out.read_text()


def test_the_page_has_bars_peers_and_how_it_was_made(folder: Path) -> None:
    page = written(folder)
    for told in (
        "low &amp; slow",
        "short by 0.75",
        "short: not measured",
        "Some &lt;Processor&gt;",
        "Some GPU",
        "python -m benchmarks.x B",
        "abc123",
        "would not &lt;install&gt;",
        "2.50× (2.00 – 3.00)",
    ):
        assert told in page, told
    assert '<td class="pass">pass</td>' in page
    # Where Trunkline loses is marked, where it wins is not.
    assert '<td class="short">0.50× (0.50 – 0.50)</td>' in page
    assert '<td class="number">2.50× (2.00 – 3.00)</td>' in page


def test_the_page_needs_nothing_beside_it(folder: Path) -> None:
    page = written(folder, "--png", str(folder / "png"))
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:)", page)
    assert not re.search(r"<script|@import|url\(", page)
    images = re.findall(r"<img[^>]*>", page)
    assert len(images) == 4
    assert all(re.search(r'alt="[^"]{10,}"', image) for image in images)
    files = sorted((folder / "png").glob("*.png"))
    assert len(files) == len(images)
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_what_is_missing_or_broken_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "serving.json").write_text("{")
    (folder / "graph_sizes.json").write_text(json.dumps(HEAD | {"sizes": 7}))
    page = written(folder)
    assert "serving.json: cannot be read" in page
    assert "graph_sizes.json: cannot be shown" in page
    assert "curves.json: is missing" in page
    said = capsys.readouterr()
    assert "1 results, " in said.out
    assert "Traceback" not in said.err


def test_no_folder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none"), "--out", str(tmp_path / "x.html")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()


@pytest.mark.parametrize("folder", [".", "amx", "zen3"])
def test_the_recorded_results_are_shown(tmp_path: Path, folder: str) -> None:
    results = Path(__file__).parents[2] / "benchmarks" / "results" / folder
    out = tmp_path / "report.html"
    assert main([str(results), "--out", str(out)]) == 0
    assert "cannot be shown" not in out.read_text()
