"""Sizes are exact, every graph is measured at each, and shares add up."""

import json
from pathlib import Path

import pytest

from benchmarks.graph_sizes import group_of, main, rows_of
from trunkline.bundle import EncoderFacts

FACTS = EncoderFacts("bert", 8, 1, 1000, 64, 16, 0)


@pytest.mark.parametrize("tokens", [1, 16, 64, 1000])
def test_rows_have_exactly_so_many_tokens(tokens: int) -> None:
    rows = rows_of(tokens, FACTS)
    assert sum(map(len, rows)) == tokens
    assert all(0 < len(row) <= FACTS.max_length for row in rows)
    assert [len(row) for row in rows] == [len(row) for row in rows_of(tokens, FACTS)]
    lengths = {len(row) for row in rows}
    assert len(lengths) > 1 or tokens <= 64


def test_plain_products_of_packed_graphs_are_attention() -> None:
    assert group_of("MatMul", "packed") == "attention"
    assert group_of("MatMul", "padded") == "products"
    assert group_of("Shape", "packed") == "other"


def test_the_whole_command(
    quantised: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A busy machine must not fail the test.
    monkeypatch.setattr("trunkline_export.speed.MOST_STOLEN", 1.0)
    file = tmp_path / "sizes.json"
    options = ["--rounds", "2", "--sizes", "1,40", "--threads", "1", "--json", str(file)]
    assert main([str(quantised), *options]) == 0
    result = json.loads(file.read_text())
    found = [(one["graph"], one["tokens"]) for one in result["sizes"]]
    graphs = ("padded-fp32", "packed-fp32", "packed-int8")
    assert sorted(found) == sorted((graph, size) for graph in graphs for size in (1, 40))
    for one in result["sizes"]:
        low, high = one["range"]
        assert 0 < low <= one["tokens_per_second"] <= high
        assert 0 < one["share_of_peak"] < 1.5
        assert sum(one["operators"].values()) == pytest.approx(1, abs=0.01)
    assert result["peak_gops"]["fp32"] > 0
    assert result["peak_gops"]["int8"] > 0
    assert result["machine"]["kernel"]
    assert "packed-int8" in capsys.readouterr().out


def test_bad_sizes_are_told(quantised: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(quantised), "--sizes", "0,4"])
    assert "give numbers from 1" in capsys.readouterr().err
