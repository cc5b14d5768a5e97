"""`make bench` collects bars, `make bench-smoke` tells a loss from noise."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import run, smoke
from benchmarks.bars import Bar, read_bars, show
from trunkline.errors import DataError


def result(folder: Path, name: str, *bars: Bar) -> Path:
    file = folder / f"{name}.json"
    body = {"date": "2026-01-02T03:04:05+00:00", "bars": [bar.to_dict("run me") for bar in bars]}
    file.write_text(json.dumps(body))
    return file


def test_a_bar_that_was_not_measured_is_short() -> None:
    assert not Bar("x", 1.0, []).met
    assert "not measured" in show(Bar("x", 1.0, []).to_dict())


def test_how_much_is_short_is_said() -> None:
    line = show(Bar("x", 3.0, [2.0, 2.5, 2.9]).to_dict())
    assert "SHORT by 0.5" in line
    assert "2 - 2.9" in line


def test_bars_of_a_result_carry_its_date(tmp_path: Path) -> None:
    (bar,) = read_bars(result(tmp_path, "a", Bar("x", 1.0, [2.0])))
    assert (bar["from"], bar["file"], bar["pass"]) == ("2026-01-02T03:04:05+00:00", "a.json", True)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"date": 1, "bars": [2]}'])
def test_what_is_no_result_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"a\.json"):
        read_bars(tmp_path / "a.json")


def test_bars_of_all_results_and_of_the_recorded_one(tmp_path: Path) -> None:
    result(tmp_path, "a", Bar("x", 1.0, [2.0]))
    result(tmp_path, "bars", Bar("of the run before", 1.0, [2.0]))
    (tmp_path / "b.json").write_text("{}")
    bars = run.all_bars(tmp_path)
    assert [bar["name"] for bar in bars if not bar["recorded"]] == ["x"]
    assert any("multitask" in bar["name"] for bar in bars if bar["recorded"])
    assert "(recorded 2026-" in run.table(bars)


def test_a_benchmark_that_fails_does_not_end_the_others(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    given = Namespace(bundle=nothing, run=nothing, data=None, out=tmp_path, full=False)
    given.only, given.encoder = ["answers", "edge bundle"], "none"
    failed = run.run_all(given)
    assert list(failed) == ["answers", "edge bundle"]
    assert "nothing" in failed["answers"]


def test_a_bundle_needs_its_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Exception, match="--run"):
        run.main(["--bundle", str(tmp_path)])


def test_a_loss_within_the_noise_is_none() -> None:
    steady, shaky = [1.80, 1.82, 1.81], [1.4, 1.8, 2.2]
    lost, held = (
        smoke.judge({"a": steady, "b": shaky}, {"a": [2.1], "b": [2.1]})[at] for at in (0, 1)
    )
    assert lost.lost
    assert "LOST 14%" in str(lost)
    assert not held.lost


def test_a_small_loss_is_none_however_steady() -> None:
    (one,) = smoke.judge({"a": [1.95] * 3}, {"a": [2.1]})
    assert not one.lost


def test_what_was_not_measured_is_not_judged() -> None:
    assert smoke.judge({"a": [0.1, 0.1], "b": [1.0] * 3}, {"a": [1.0]}) == []


STEADY, LOST = {"a": [2.0] * 3}, {"a": [1.0] * 3}


@pytest.mark.parametrize(
    ("attempts", "holds"),
    [
        ([STEADY], True),
        ([LOST, LOST], False),
        ([LOST, STEADY], True),
        ([LOST, {"a": []}], True),
        ([{"a": []}], True),
    ],
)
def test_a_loss_counts_if_it_is_seen_twice(
    attempts: list[smoke.Ratios], holds: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    left = iter(attempts)
    assert smoke.hold(lambda: next(left), {"a": [2.0]}) == holds
    assert next(left, None) is None
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 * len(attempts) - 1
    assert ("nothing can be judged: others took too much CPU time" in said) == (
        {"a": []} in attempts
    )


def test_too_few_rounds_are_measured_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    graphs, served = iter([[1.0] * 3]), iter([[2.0], [2.1, 2.2]])
    monkeypatch.setattr(smoke, "graph_ratios", lambda *given: {"g": next(graphs)})
    monkeypatch.setattr(smoke, "served_ratios", lambda *given: {"s": next(served)})
    monkeypatch.setattr(smoke, "busy", lambda: False)
    checkpoint: Any = None
    assert smoke.measure(checkpoint, tmp_path) == {"g": [1.0] * 3, "s": [2.0, 2.1, 2.2]}


@pytest.mark.parametrize("option", [[], ["--store"]])
def test_on_a_busy_machine_nothing_is_measured_nor_stored(
    option: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = next(iter(json.loads(smoke.STORED.read_text())))
    monkeypatch.setattr(smoke, "kind_of", lambda machine: kind)
    monkeypatch.setattr(smoke.psutil, "cpu_percent", lambda seconds: 60.0)
    before = smoke.STORED.read_bytes()
    assert smoke.main(["--encoder", "nowhere", *option]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line == "nothing can be judged: others took too much CPU time"
    assert smoke.STORED.read_bytes() == before


def test_on_a_machine_without_stored_ratios_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(smoke, "kind_of", lambda machine: "abacus, 1 cpus")
    assert smoke.main(["--encoder", "nowhere"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line == "nothing is stored for machines of this kind (abacus, 1 cpus): not judged"


def test_machines_are_of_a_kind_by_instructions_cpus_and_their_model() -> None:
    machine = {"flags": ["avx2", "avx512_vnni"], "cpus": 2, "cpu_signature": "AuthenticAMD 25 97 2"}
    assert smoke.kind_of(machine) == "avx512_vnni, 2 cpus, AuthenticAMD 25 97 2"
