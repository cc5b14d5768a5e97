"""`make bench` collects bars, `make bench-smoke` tells a loss from noise."""

import json
from argparse import Namespace
from collections.abc import Sequence
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


NAME = "packed over padded"
FLOOR = smoke.FLOORS[NAME]


def measured(*quiet: float, disturbed: Sequence[float] = ()) -> smoke.Rounds:
    return smoke.Rounds(list(quiet), list(disturbed))


def test_a_machine_of_which_nothing_is_stored_is_judged_by_the_floor() -> None:
    good, bad = FLOOR + 0.1, FLOOR - 0.1
    assert smoke.judge(NAME, measured(good, good, good)).held is True
    assert smoke.judge(NAME, measured(bad, bad, bad)).held is False
    assert smoke.judge(NAME, measured(bad, bad, good)).held is False


def test_stored_rounds_tighten_the_floor_beyond_noise_and_a_tenth() -> None:
    stored = [7.0, 7.2, 7.4]
    for rounds, held in (
        ([6.0, 6.1, 6.2], False),
        ([6.0, 6.1, 7.0], True),  # its rounds overlap with the stored ones
        ([6.7, 6.8, 6.9], True),  # less than a tenth
        ([1.0, 1.1, 7.4], False),  # below the floor, however noisy
    ):
        assert smoke.judge(NAME, measured(*rounds), stored).held is held
    assert "15% below the stored 7.200" in str(smoke.judge(NAME, measured(6.0, 6.1, 6.2), stored))


def test_on_a_busy_machine_the_floor_alone_is_judged() -> None:
    good, bad = FLOOR + 1, FLOOR - 1
    stored = [good * 3] * 3
    for rounds, held in (
        ([good] * 3, True),
        ([bad] * 3, False),
        ([bad, bad, good], None),
        ([bad, bad], None),
        ([], None),
    ):
        verdict = smoke.judge(NAME, measured(disturbed=rounds), stored)
        assert verdict.held is held
        assert ("NOT COMPARED" in verdict.reason) is (held is True)


GOOD, BAD = [FLOOR + 1] * 3, [FLOOR - 1] * 3
MIXED = [FLOOR - 1, FLOOR - 1, FLOOR + 1]


@pytest.mark.parametrize(
    ("attempts", "status", "said"),
    [
        ([measured(*GOOD)], 0, "holds"),
        ([measured(*BAD), measured(*BAD)], 1, "LOST: packed over padded"),
        ([measured(*BAD), measured(*GOOD, *GOOD)], 0, "holds"),  # an accident
        ([measured(*BAD), measured(disturbed=GOOD)], 1, "LOST"),  # nothing refutes it
        ([measured(disturbed=MIXED), measured(disturbed=MIXED)], 3, "NOT JUDGED: packed"),
        ([measured(disturbed=MIXED), measured(*BAD)], 1, "LOST"),
        ([measured(), measured()], 3, "NOT JUDGED"),
        ([measured(disturbed=GOOD)], 0, "on a busy machine"),
    ],
)
def test_what_does_not_hold_is_measured_again_and_a_loss_counts(
    attempts: list[smoke.Rounds], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    left = list(attempts)
    clock = iter(range(100))

    def attempt(wanted: Sequence[str], found: smoke.Measured) -> None:
        assert wanted == [NAME]
        one = left.pop(0)
        found[NAME].quiet += one.quiet
        found[NAME].disturbed += one.disturbed

    # Every look at the clock is a second later: two attempts fit, a third does not.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(smoke.time, "monotonic", lambda: float(next(clock)))
        verdicts = smoke.hold(attempt, [NAME], {}, 3.5)
    assert smoke.status_of(verdicts) == status
    assert left == []
    assert said in capsys.readouterr().out


def test_only_what_does_not_hold_is_measured_again() -> None:
    other, asked = "all heads over one", []

    def attempt(wanted: Sequence[str], found: smoke.Measured) -> None:
        asked.append(list(wanted))
        for name in wanted:
            found[name].quiet += [1.0] * 3 if len(asked) == 1 else [9.0] * 4

    verdicts = smoke.hold(attempt, [NAME, other], {}, 60.0)
    assert asked == [[NAME, other], [NAME]]
    assert smoke.status_of(verdicts) == 0


def test_a_busy_machine_is_given_time_to_become_quiet_where_ratios_are_stored() -> None:
    stored = {NAME: [FLOOR * 3] * 3}

    def attempt(wanted: Sequence[str], found: smoke.Measured) -> None:
        (found[NAME].quiet if found[NAME].disturbed else found[NAME].disturbed).extend(GOOD)

    (verdict,) = smoke.hold(attempt, [NAME], stored, 1.0)
    assert verdict.held is False


def test_every_ratio_has_a_floor_and_what_is_stored_reaches_it() -> None:
    for kind in json.loads(smoke.STORED.read_text()).values():
        for name, rounds in kind["ratios"].items():
            assert smoke.judge(name, measured(*rounds)).held, name


def test_int8_is_judged_where_the_processor_has_instructions_for_bytes() -> None:
    checkpoint: Any = None
    names = {
        flag: smoke.Bench(checkpoint, Path(), [flag]).names for flag in ("avx2", "avx512_vnni")
    }
    assert set(names["avx512_vnni"]) == set(smoke.FLOORS)
    assert set(smoke.FLOORS) - set(names["avx2"]) == {"int8 over fp32"}


def test_of_a_busy_machine_nothing_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(smoke, "STORED", tmp_path / "smoke.json")
    assert smoke._store("abacus", {NAME: measured(disturbed=GOOD)}) == smoke.NOT_JUDGED
    assert "NOT STORED" in capsys.readouterr().out
    assert not smoke.STORED.exists()
    assert smoke._store("abacus", {NAME: measured(*GOOD)}) == 0
    assert json.loads(smoke.STORED.read_text())["abacus"]["ratios"] == {NAME: GOOD}


def test_machines_are_of_a_kind_by_instructions_cpus_and_their_model() -> None:
    machine = {"flags": ["avx2", "avx512_vnni"], "cpus": 2, "cpu_signature": "AuthenticAMD 25 97 2"}
    assert smoke.kind_of(machine) == "avx512_vnni, 2 cpus, AuthenticAMD 25 97 2"
