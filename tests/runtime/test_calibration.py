"""The quickest graph and the budget of its runs are found by a short run, and kept.

Once per bundle, machine and number of threads.
"""

import gc
import json
import os
import shutil
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

import trunkline
from trunkline import calibration, tried
from trunkline.bundle import Bundle, Graph, open_bundle, seal
from trunkline.calibration import Choice, Trial, calibration_rows, measure, quickest
from trunkline.choice import Where
from trunkline.encode import Row, bare_row
from trunkline.kinds import Output
from trunkline.runner import PACK_TOKENS, OrtRunner

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
        self.times: dict[object, float] = {FIRST: 2.0, SECOND: 1.0}

    def __call__(self, trials: Mapping[object, object]) -> dict[object, float]:
        self.asked += 1
        return {name: self.times[name] for name in trials}


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


def test_the_choice_is_kept_beside_the_bundle_and_not_in_it(several: Bundle, clock: Clock) -> None:
    before = sorted(several.path.rglob("*"))
    assert chosen(several) == SECOND
    kept = json.loads(file_of(several).read_text()).values()
    assert list(kept) == [{"graph": SECOND, "budget": None}] * 2, "for both, and for it alone"
    assert sorted(several.path.rglob("*")) == before
    assert {one.name for one in several.path.parent.iterdir()} == {
        "several",
        ".several.calibration.json",
    }
    open_bundle(several.path)


def test_a_kept_choice_is_used_again(several: Bundle, clock: Clock) -> None:
    assert chosen(several) == SECOND
    clock.times[SECOND] = 9.0
    assert chosen(several) == SECOND
    assert clock.asked == 1


def test_a_graph_that_is_named_is_not_measured(several: Bundle, clock: Clock) -> None:
    for name in ("padded-fp32", FIRST):
        assert trunkline.load(several.path, 1, graph=name).graph.file == FIRST
    assert clock.asked == 0
    kept = json.loads(file_of(several).read_text()).values()
    assert [set(entry) for entry in kept] == [{"graph", "golden"}]


def test_a_link_to_the_bundle_shares_its_choice(several: Bundle, clock: Clock) -> None:
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


@pytest.mark.parametrize(
    "entry",
    [
        None,
        3,
        [],
        "graph",
        {FIRST: 2.0, SECOND: 1.0},  # what versions before budgets kept
        {"graph": "graphs/gone.onnx", "budget": None},
        {"graph": FIRST, "budget": 77},
        {"graph": [FIRST], "budget": {}},
        {"graph": FIRST},
    ],
)
def test_an_entry_that_is_no_choice_is_measured_again(
    several: Bundle, clock: Clock, entry: object
) -> None:
    chosen(several)
    keys = json.loads(file_of(several).read_text())
    file_of(several).write_text(json.dumps(dict.fromkeys(keys, entry)))
    assert chosen(several) == SECOND
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

    monkeypatch.setattr(tried, "write_whole", refuse)
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
    assert len(json.loads(file_of(several).read_text())) == 4


@pytest.mark.parametrize(
    ("what", "found"),
    [("tried.cpu_model", "another"), ("calibration.available_cpus", 64)],
)
def test_another_machine_is_measured_by_itself(
    several: Bundle, clock: Clock, monkeypatch: pytest.MonkeyPatch, what: str, found: object
) -> None:
    quickest(several, several.candidates())
    clock.times[FIRST] = 0.1
    monkeypatch.setattr(f"trunkline.{what}", lambda: found)
    graph, _ = quickest(several, several.candidates())
    assert graph.file == FIRST
    assert clock.asked == 2


def test_another_onnxruntime_or_graph_is_measured_by_itself(
    several: Bundle, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen(several)
    with monkeypatch.context() as patch:
        patch.setattr(tried.onnxruntime, "__version__", "99.0")
        chosen(several)
    assert clock.asked == 2
    changed = [replace(graph, sha256="0" * 64) for graph in several.candidates()]
    quickest(several, changed, Where(1))
    assert clock.asked == 3


class Slow:
    """A trial that takes the times it is given."""

    def __init__(self, seconds: Sequence[float], order: list[str], name: str) -> None:
        self.times = list(seconds)
        self.order = order
        self.name = name

    def seconds(self) -> float:
        self.order.append(self.name)
        return self.times.pop(0)


def test_a_time_is_the_least_of_rounds_in_turn_after_a_first_run() -> None:
    order: list[str] = []
    trials = {
        "a": Slow([0.1, 3.0, 2.0, 4.0], order, "a"),
        "b": Slow([9.0, 5.0, 5.0, 2.5], order, "b"),
    }
    assert measure(trials) == {"a": 2.0, "b": 2.5}  # type: ignore[arg-type]
    assert order == ["a", "b"] * 4


@dataclass(eq=False)
class Lanes:
    """A runner that notes what its lanes run; each waits until all are at work."""

    lanes: int = 1
    budget: int = PACK_TOKENS
    runs: dict[int, list[list[int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.together = threading.Barrier(self.lanes, timeout=20)

    def group(self, length: int) -> int:
        return length // 100

    def computed(self, lengths: Sequence[int]) -> int:
        return sum(lengths)

    def run(self, rows: Sequence[Row], outputs: Sequence[Output]) -> list[dict[str, object]]:
        me = threading.get_ident()
        if me not in self.runs:
            self.together.wait()
        self.runs.setdefault(me, []).append([len(row) for row in rows])
        return [{} for _ in rows]


def ran(budget: int, lanes: int) -> list[list[list[int]]]:
    """Returns the lengths of the rows of each batch that each lane ran in a trial."""
    runner = Lanes(lanes)
    lengths = [30, 140, 40, 30, 120, 150, 99]
    rows = [bare_row([0] * length) for length in lengths]  # type: ignore[arg-type]
    assert Trial(runner, budget, rows, []).seconds() > 0  # type: ignore[arg-type]
    return list(runner.runs.values())


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_every_lane_runs_all_rows_in_batches_of_its_group(lanes: int) -> None:
    assert ran(100, lanes) == [[[30, 40, 30], [99], [140], [120], [150]]] * lanes
    assert ran(1000, lanes) == [[[30, 40, 30, 99], [140, 120, 150]]] * lanes


def test_with_a_budget_of_one_every_row_runs_alone() -> None:
    assert ran(1, 2) == [[[30], [40], [30], [99], [140], [120], [150]]] * 2


def test_real_runs_are_measured(several: Bundle) -> None:
    graph, runner = quickest(several, several.candidates(), Where(1))
    kept = json.loads(file_of(several).read_text())
    assert isinstance(runner, OrtRunner)
    assert {entry["graph"] for entry in kept.values()} == {graph.file}
    assert runner.budget == OrtRunner(several.path / FIRST, 0, [], 1).budget


@dataclass(frozen=True)
class FakeWhere(Where):
    """Opens runners that run nothing, and counts those that are there."""

    there: "weakref.WeakSet[Lanes]" = field(default_factory=weakref.WeakSet)
    most: list[int] = field(default_factory=lambda: [0])

    def open(self, bundle: Bundle, graph: Graph) -> Lanes:  # type: ignore[override]
        runner = Lanes()
        self.there.add(runner)
        gc.collect()
        self.most[0] = max(self.most[0], len(self.there))
        return runner


def packed_graphs(bundle: Bundle, count: int) -> list[Graph]:
    """Returns graphs as packed ones are listed; there are no files of them."""
    (graph, *_) = bundle.candidates()
    return [
        replace(graph, file=f"graphs/{at}.onnx", layout="packed", sha256=f"{at:064}")
        for at in range(count)
    ]


def takes(clock: Clock, graph: Graph, packs: float, singles: float) -> None:
    """Sets the times of a graph's usual packs and of every row by itself."""
    clock.times[graph.file] = packs
    clock.times[Choice(graph.file, PACK_TOKENS)] = packs
    clock.times[Choice(graph.file, 1)] = singles


@pytest.mark.parametrize(("singles", "budget"), [(0.8, 1), (0.97, PACK_TOKENS), (1.2, PACK_TOKENS)])
def test_rows_run_alone_where_that_is_clearly_quicker(
    several: Bundle, clock: Clock, singles: float, budget: int
) -> None:
    graphs = packed_graphs(several, 2)
    takes(clock, graphs[0], 1.0, singles)
    takes(clock, graphs[1], 2.0, 2.0)
    for _ in range(2):
        found, runner = quickest(several, graphs, FakeWhere())
        assert (found, runner.budget) == (graphs[0], budget)
    assert clock.asked == 2, "both graphs, then the budgets; and no more the second time"


def test_the_budgets_of_the_quickest_graph_alone_are_tried(several: Bundle, clock: Clock) -> None:
    graphs = packed_graphs(several, 3)
    for graph, packs in zip(graphs, (3.0, 1.0, 2.0), strict=True):
        takes(clock, graph, packs, 0.1)
    found, runner = quickest(several, graphs, FakeWhere())
    assert (found, runner.budget) == (graphs[1], 1)
    assert clock.asked == 3, "two graphs against the best so far, then the budgets"


def test_a_graph_that_is_hardly_quicker_does_not_replace_the_usual_one(
    several: Bundle, clock: Clock
) -> None:
    graphs = packed_graphs(several, 2)
    takes(clock, graphs[0], 1.0, 2.0)
    takes(clock, graphs[1], 0.97, 2.0)
    assert quickest(several, graphs, FakeWhere())[0] == graphs[0]


def test_a_named_graph_has_the_budget_that_was_found_for_it(several: Bundle, clock: Clock) -> None:
    graphs = packed_graphs(several, 2)
    takes(clock, graphs[0], 1.0, 0.5)
    takes(clock, graphs[1], 2.0, 0.5)
    before = [quickest(several, [one], FakeWhere())[1].budget for one in graphs]
    assert (before, clock.asked) == ([PACK_TOKENS] * 2, 0)
    quickest(several, graphs, FakeWhere())
    asked = clock.asked
    after = [quickest(several, [one], FakeWhere())[1].budget for one in graphs]
    assert (after, clock.asked) == ([1, PACK_TOKENS], asked)


def test_no_more_than_two_graphs_are_open_at_once(several: Bundle, clock: Clock) -> None:
    graphs, where = packed_graphs(several, 5), FakeWhere()
    for at, graph in enumerate(graphs):
        takes(clock, graph, 5.0 - at, 9.0)
    found, runner = quickest(several, graphs, where)
    gc.collect()
    assert found == graphs[-1]
    assert (where.most, list(where.there)) == ([2], [runner])


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
