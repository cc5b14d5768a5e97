"""Ratios of results that can be compared, and one clear line for those that cannot."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compare import NotComparable, check_comparable, figures, main, remarks
from trunkline_serve.bench.machine import (
    describe_machine,
    gpus,
    matrix_flags,
    memory_gib,
    signature,
    versions,
)

RESULT: dict[str, Any] = {
    "date": "2026-01-01T00:00:00+00:00",
    "command": "python -m benchmarks.graphs RUN BUNDLE",
    "machine": {
        "cpu": "Some Processor",
        "flags": ["avx2", "avx512f"],
        "cpus": 2,
        "cores": 4,
        "quota": None,
        "gpus": [{"name": "Some GPU", "driver": "1"}],
        "kernel": "6.1",
    },
    "versions": {"numpy": "2.0"},
    "threads": 2,
    "bars": [{"name": "speed", "bar": 2.0, "value": 3.0, "range": [2.8, 3.2], "pass": True}],
    "sizes": [{"graph": "a", "tokens": 16, "tokens_per_second": 50.0, "range": [45.0, 55.0]}],
    "seconds": {"x": [1.0, 2.0]},
}


def changed(**changes: Any) -> dict[str, Any]:
    found = copy.deepcopy(RESULT)
    for path, value in changes.items():
        place = found
        *first, last = path.split("__")
        for key in first:
            place = place[key]
        place[last] = value
    return found


def write(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    paths = [folder / "old.json", folder / "new.json"]
    for path, result in zip(paths, (old, new), strict=True):
        path.write_text(json.dumps(result))
    return list(map(str, paths))


def test_figures_are_bars_and_numbers_by_name_with_their_range() -> None:
    found = figures(RESULT)
    assert {name: one.value for name, one in found.items()} == {
        "bars / speed": 3.0,
        "sizes / a, tokens 16 / tokens_per_second": 50.0,
    }
    assert (found["bars / speed"].low, found["bars / speed"].high) == (2.8, 3.2)


def test_ratios_are_printed_and_those_beyond_the_range_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = changed(versions__numpy="2.1")
    new["bars"][0] |= {"value": 6.0, "range": [5.5, 6.5]}
    assert main(write(tmp_path, RESULT, new)) == 0
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("bars / speed")]
    assert "2.000" in line
    assert line.endswith("beyond the range")
    (same,) = [line for line in out.splitlines() if line.startswith("sizes")]
    assert "1.000" in same
    assert "beyond" not in same
    assert "also differs: versions, numpy: 2.0 and 2.1" in out


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"machine__cpu": "Another"}, "cpu: Some Processor and Another"),
        (
            {"machine__flags": ["avx2", "amx_int8"]},
            "flags: only the old has avx512f, only the new has amx_int8",
        ),
        ({"machine__cores": 8}, "cores: 4 and 8"),
        ({"machine__quota": 1.5}, "quota: none and 1.5"),
        ({"machine__gpus": []}, "gpus: Some GPU and none"),
        ({"threads": 1}, "threads: 2 and 1"),
        ({"machine": {"cpu": "Some Processor"}}, "flags: avx2 avx512f and not said"),
        ({"command": "python -m benchmarks.edge B"}, "different benchmarks: graphs and edge"),
    ],
)
def test_other_machines_and_benchmarks_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], told: str
) -> None:
    assert main(write(tmp_path, RESULT, changed(**changes))) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert said.err.count("\n") == 1
    assert not said.out


def test_what_changes_no_kernel_is_only_told() -> None:
    new = changed(machine__kernel="6.2")
    check_comparable(RESULT, new)
    assert remarks(RESULT, new) == ["machine, kernel: 6.1 and 6.2"]
    with pytest.raises(NotComparable, match="threads: 2 and not said"):
        check_comparable(RESULT, {k: v for k, v in RESULT.items() if k != "threads"})


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"date": 1}'])
def test_a_file_that_is_no_result_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    paths = write(tmp_path, RESULT, RESULT)
    Path(paths[1]).write_text(text)
    assert main(paths) == 2
    assert "new.json: " in capsys.readouterr().err


def test_this_machine_can_be_compared_with_itself() -> None:
    machine = describe_machine()
    assert machine["cpus"] <= machine["cores"]  # type: ignore[operator]
    check_comparable({"machine": machine}, json.loads(json.dumps({"machine": machine})))
    assert versions("no-such-package").keys() >= {"python", "numpy"}


def test_facts_of_processors_are_read_and_missing_ones_are_none(tmp_path: Path) -> None:
    arm = {"CPU implementer": "0x41", "CPU part": "0xd40", "Features": "fp asimd sme2 smep"}
    assert signature(arm) == "0x41 0xd40"
    assert matrix_flags(arm) == ["asimd", "sme2"]
    assert matrix_flags({}) == []
    assert memory_gib(tmp_path / "none") is None
    file = tmp_path / "meminfo"
    file.write_text("MemTotal:       2097152 kB\n")
    assert memory_gib(file) == 2.0


def test_gpus_are_what_the_driver_says(tmp_path: Path) -> None:
    program = tmp_path / "smi"
    program.write_text("#!/bin/sh\necho 'Some GPU, 575.1, 80000 MiB'\n")
    program.chmod(0o755)
    assert gpus(str(program)) == [{"name": "Some GPU", "driver": "575.1", "memory": "80000 MiB"}]
    program.write_text("#!/bin/sh\nexit 9\n")
    assert gpus(str(program)) == []
    assert gpus(str(tmp_path / "none")) == []
