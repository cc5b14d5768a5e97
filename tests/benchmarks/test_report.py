"""The page shows what is there and names what is not."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.charts import CHARTS
from benchmarks.report import main

ROOT = Path(__file__).parents[2]
HEAD: dict[str, Any] = {
    "date": "2026-01-01T00:00:00+00:00",
    "commit": "abc123",
    "command": "python -m benchmarks.x B",
    "machine": {"cpu": "cpu Some &lt;Processor>", "quota": None, "gpus": [{"name": "Some GPU"}]},
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


def written(folder: Path) -> str:
    out = folder / "report"
    assert main([str(folder), "--out", str(out)]) == 0
    return (out / "report.md").read_text()


def test_the_page_has_bars_peers_and_how_it_was_made(folder: Path) -> None:
    page = written(folder)
    for told in (
        "| low & slow | ≥ 3 | 2.25 |  | **short by 0.75** |",
        "| unknown | ≥ 3 | not measured |  | **short** |",
        "| met | ≥ 1 | 2 |  | pass | now |",
        "cpu Some &lt;Processor>",
        "Some GPU",
        "`python -m benchmarks.x B`",
        "abc123",
        "would not &lt;install>",
        # Where Trunkline loses is marked, where it wins is not.
        "| trunkline g | plain | **0.50× (0.50 – 0.50)** |",
        "| trunkline g | mosec | 2.50× (2.00 – 3.00) |",
        "| g | 64 | 5 | 4 – 6 | 0.5 |",
        "products 0.8, other 0.2",
    ):
        assert told in page, told


def test_a_table_has_a_line_a_row_and_as_many_cells_in_each(folder: Path) -> None:
    lines = [line for line in written(folder).splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in lines)
    at = lines.index("| --- | --- | --- | --- | --- | --- |")
    assert {line.count(" | ") for line in lines[at - 1 : at + 4]} == {5}


def test_every_picture_of_the_page_is_there(folder: Path) -> None:
    shown = re.findall(r"!\[Chart: .{10,}\]\((.+)\)", written(folder))
    assert len(shown) == 4
    assert sorted(shown) == sorted(file.name for file in (folder / "report").glob("*.png"))
    for name in shown:
        assert (folder / "report" / name).read_bytes().startswith(b"\x89PNG")


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
    assert "1 results" in said.out
    assert "Traceback" not in said.err


def test_no_folder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none"), "--out", str(tmp_path / "x")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("results", ["benchmarks/results", "experiments/results"])
def test_the_recorded_results_are_shown(tmp_path: Path, results: str) -> None:
    assert main([str(ROOT / results), "--out", str(tmp_path)]) == 0
    assert "cannot be shown" not in (tmp_path / "report.md").read_text()


def test_all_charts_of_a_whole_run_are_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All fields that charts name are those that the benchmarks write."""
    assert main([str(ROOT / "benchmarks/results/zen3"), "--out", str(tmp_path)]) == 0
    assert "cannot be shown" not in capsys.readouterr().err
    wanted = {chart.name for charts in CHARTS.values() for chart in charts}
    assert {file.stem for file in tmp_path.glob("*.png")} == wanted


def test_points_that_do_not_count_are_not_drawn() -> None:
    record = json.loads((ROOT / "benchmarks/results/zen3/curves.json").read_text())
    points = record["concurrency"]
    marked = [one | {"counts": one["x"] != 4} for one in points]
    chart = next(one for one in CHARTS["curves"] if one.name == "throughput_over_concurrency")
    figure = chart.draw(chart, record | {"concurrency": marked})
    xs = {float(x) for line in figure.axes[0].lines for x in line.get_xdata()}  # type: ignore[union-attr]
    assert xs == {float(one["x"]) for one in points} - {4.0}
    left = sum(one["x"] == 4 for one in points)
    assert f"{left} of {len(points)} points not drawn" in figure.get_supxlabel()
