"""The quickest graph is found by a short run, once per bundle, machine and number of threads."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import trunkline
from trunkline import calibration
from trunkline.bundle import Bundle, open_bundle, seal
from trunkline.calibration import calibration_rows, measure, quickest
from trunkline.choice import Where
from trunkline.encode import Row
from trunkline.kinds import Output
from trunkline.runner import OrtRunner

FIRST, SECOND = "graphs/model.onnx", "graphs/second.onnx"
TEXT = "Ada lives in Rome."


@pytest.fixture
def several(bundle: Path, tmp_path: Path) -> Bundle:
    """A bundle with two graphs that have passed their gates."""
    copy = shutil.copytree(bundle, tmp_path / "several")
    shutil.copy(copy / FIRST, copy / SECOND)
    manifest = open_bundle(copy).manifest
    (graph,) = manifest.graphs
    second = replace(graph, file=SECOND, precision="fp16")
    gates = (*manifest.gates, *(replace(gate, graph=SECOND) for gate in manifest.gates))
    seal(copy, replace(manifest, graphs=(graph, second), gates=gates))
    return open_bundle(copy)


class Clock:
    """Stands for `measure`: gives times that are set, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.times = {FIRST: 2.0, SECOND: 1.0}

    def __call__(self, runners: Mapping[str, object], *_: object) -> dict[str, float]:
        self.asked += 1
        return {file: self.times[file] for file in runners}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(calibration, "measure", found)
    return found


def file_of(bundle: Bundle) -> Path:
    return bundle.path.parent / f".{bundle.path.name}.calibration.json"


def chosen(bundle: Bundle, threads: int = 1) -> str:
    graph, _ = quickest(bundle, bundle.candidates(), Where(threads))
    return graph.file


def test_one_graph_is_not_measured_and_leaves_no_file(
    bundle: Path, tmp_path: Path, clock: Clock
) -> None:
    alone = open_bundle(shutil.copytree(bundle, tmp_path / "alone"))
    assert chosen(alone) == FIRST
    assert clock.asked == 0
    assert [one.name for one in tmp_path.iterdir()] == ["alone"]


@pytest.mark.parametrize("best", [FIRST, SECOND])
def test_the_quickest_is_chosen_and_is_what_runs(several: Bundle, clock: Clock, best: str) -> None:
    clock.times[best] = 0.5
    model = trunkline.load(several.path, 1)
    assert model.graph.file == best
    assert model.self_test() == 2
    again = trunkline.load(several.path, 1)
    assert again.graph.file == best
    assert again.analyze(TEXT) == model.analyze(TEXT)
    assert clock.asked == 1


def test_the_times_are_kept_beside_the_bundle_and_not_in_it(several: Bundle, clock: Clock) -> None:
    before = sorted(several.path.rglob("*"))
    assert chosen(several) == SECOND
    (times,) = json.loads(file_of(several).read_text()).values()
    assert times == clock.times
    assert sorted(several.path.rglob("*")) == before
    assert {one.name for one in several.path.parent.iterdir()} == {
        "several",
        ".several.calibration.json",
    }
    open_bundle(several.path)


def test_kept_times_are_used_again(several: Bundle, clock: Clock) -> None:
    assert chosen(several) == SECOND
    clock.times[SECOND] = 9.0
    assert chosen(several) == SECOND
    assert clock.asked == 1


def test_a_graph_that_is_named_is_not_measured(several: Bundle, clock: Clock) -> None:
    for name in ("padded-fp32", FIRST):
        assert trunkline.load(several.path, 1, graph=name).graph.file == FIRST
    assert clock.asked == 0
    assert not file_of(several).exists()


def test_a_link_to_the_bundle_shares_its_times(several: Bundle, clock: Clock) -> None:
    chosen(several)
    link = several.path.parent / "link"
    link.symlink_to(several.path)
    assert chosen(open_bundle(link)) == SECOND
    assert clock.asked == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"3", b"\xff\xfe", b'{"other": {"graphs/x.onnx": 1}}'],
    ids=["empty", "cut", "a list", "null", "a number", "not UTF-8", "another's"],
)
def test_a_broken_file_is_no_error_and_is_replaced(
    several: Bundle, clock: Clock, content: bytes
) -> None:
    file_of(several).write_bytes(content)
    assert chosen(several) == SECOND
    assert chosen(several) == SECOND
    assert clock.asked == 1


@pytest.mark.parametrize("times", [None, 3, [], "x", {FIRST: "1", SECOND: 2}, {FIRST: 1.0}])
def test_times_that_make_no_sense_are_measured_again(
    several: Bundle, clock: Clock, times: object
) -> None:
    chosen(several)
    (key,) = json.loads(file_of(several).read_text())
    file_of(several).write_text(json.dumps({key: times}))
    assert chosen(several) == SECOND
    assert clock.asked == 2


def test_a_folder_in_the_files_place_is_no_error(several: Bundle, clock: Clock) -> None:
    file_of(several).mkdir()
    assert chosen(several) == SECOND
    assert chosen(several) == SECOND
    assert clock.asked == 2


def test_where_nothing_can_be_written_it_is_measured_each_time(
    several: Bundle, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "read-only")

    monkeypatch.setattr(calibration, "write_whole", refuse)
    assert chosen(several) == SECOND
    assert chosen(several) == SECOND
    assert clock.asked == 2
    assert not file_of(several).exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_no_error(several: Bundle, clock: Clock) -> None:
    several.path.parent.chmod(0o500)
    try:
        assert chosen(several) == SECOND
    finally:
        several.path.parent.chmod(0o700)


def test_another_number_of_threads_is_measured_by_itself(several: Bundle, clock: Clock) -> None:
    assert chosen(several, 1) == SECOND
    clock.times[FIRST] = 0.1
    assert chosen(several, 2) == FIRST
    assert chosen(several, 1) == SECOND
    assert chosen(several, 2) == FIRST
    assert clock.asked == 2
    assert len(json.loads(file_of(several).read_text())) == 2


@pytest.mark.parametrize(("what", "found"), [("cpu_model", "another"), ("available_cpus", 64)])
def test_another_machine_is_measured_by_itself(
    several: Bundle, clock: Clock, monkeypatch: pytest.MonkeyPatch, what: str, found: object
) -> None:
    quickest(several, several.candidates())
    clock.times[FIRST] = 0.1
    monkeypatch.setattr(calibration, what, lambda: found)
    graph, _ = quickest(several, several.candidates())
    assert graph.file == FIRST
    assert clock.asked == 2


def test_another_onnxruntime_or_graph_is_measured_by_itself(
    several: Bundle, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen(several)
    with monkeypatch.context() as patch:
        patch.setattr(calibration.onnxruntime, "__version__", "99.0")
        chosen(several)
    assert clock.asked == 2
    changed = [replace(graph, sha256="0" * 64) for graph in several.candidates()]
    quickest(several, changed, Where(1))
    assert clock.asked == 3


class Slow:
    """A runner that notes its runs and takes its time."""

    def __init__(self, seconds: Sequence[float], now: list[float]) -> None:
        self.seconds = list(seconds)
        self.now = now

    def run(self, rows: Sequence[Row], outputs: Sequence[Output]) -> list[dict[str, object]]:
        self.now[0] += self.seconds.pop(0)
        return [{} for _ in rows]


def test_a_time_is_the_least_of_rounds_after_a_first_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(calibration.time, "perf_counter", lambda: now[0])
    runners = {"a": Slow([9.0, 3.0, 2.0, 4.0], now), "b": Slow([0.1, 5.0, 5.0, 2.5], now)}
    assert measure(runners, [], []) == {"a": pytest.approx(2.0), "b": pytest.approx(2.5)}  # type: ignore[arg-type]
    assert all(not runner.seconds for runner in runners.values())


def test_real_runs_are_measured_in_seconds(several: Bundle) -> None:
    graph, runner = quickest(several, several.candidates(), Where(1))
    (times,) = json.loads(file_of(several).read_text()).values()
    assert isinstance(runner, OrtRunner)
    assert graph.file == min(times, key=times.__getitem__)
    assert all(0 < seconds < 60 for seconds in times.values())


def test_rows_are_always_the_same_and_none_is_too_long(several: Bundle) -> None:
    facts = several.manifest.encoder
    one, two = calibration_rows(facts), calibration_rows(facts)
    assert [row.input_ids.tolist() for row in one] == [row.input_ids.tolist() for row in two]
    assert max(map(len, one)) == facts.max_length == 128
    short = calibration_rows(replace(facts, max_length=20))
    assert max(map(len, short)) == 20
    assert {int(row.input_ids.max()) for row in one} == {1}, "any vocabulary has two pieces"


def test_graphs_that_have_not_passed_are_not_measured(several: Bundle, clock: Clock) -> None:
    manifest = several.manifest
    gates = tuple(gate for gate in manifest.gates if (gate.graph, gate.task) != (SECOND, "qa"))
    seal(several.path, replace(manifest, gates=gates))
    assert trunkline.load(several.path, 1).graph.file == FIRST
    assert clock.asked == 0
    model = trunkline.load(several.path, 1, allow_ungated=True)
    assert model.graph.file == SECOND
    assert clock.asked == 1
