"""The curves count what was measured, the command runs whole, and the figures show it."""

import asyncio
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import trunkline
from benchmarks.charts import CHARTS, pictures
from benchmarks.serving import curves as command
from benchmarks.serving.contenders import Turn
from benchmarks.serving.curves import Extent
from benchmarks.serving.load import Closed, Latencies, Order, Report, generate
from benchmarks.serving.points import length_points, point
from benchmarks.serving.processes import free_port, started
from benchmarks.serving.protocols import PROTOCOLS
from benchmarks.serving.traffic import WORKLOADS, by_length, workload
from tests.tiny import build_tiny_bundle
from trunkline import Model
from trunkline.errors import ConfigError

TINY = Extent(0.2, 0.1, 1, concurrency=(1, 4), shares=(0.5,), lengths=(8, 32))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("curves") / "tiny")


@pytest.fixture(scope="module")
def model(bundle: Path) -> Model:
    return trunkline.load(bundle, 1)


def made(name: str, model: Model, data: Path | None = None) -> Any:
    return workload(name, model, data, count=12)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_is_the_same_each_time_and_can_be_asked(name: str, model: Model) -> None:
    found = made(name, model)
    assert found.documents == made(name, model).documents
    assert len(found.documents) == 12
    assert len(model.analyze(list(found.documents))) == 12


def test_workloads_are_what_their_names_say(model: Model) -> None:
    assert {one.tasks for one in made("short", model).documents} == {("ner",)}
    long = made("long", model)
    assert min(len(one.encoded.rows) for one in long.prepared) >= 2
    assert all(1 <= len(one.questions) <= 2 for one in long.documents)
    every = {"ner", "pos", "qa", "topic", "mood"}  # `match` reads pairs
    assert {frozenset(one.tasks or ()) for one in made("five-tasks", model).documents} == {
        frozenset(every)
    }
    assert not any(one.questions for one in made("bulk", model).documents)


def test_an_unknown_workload_is_told(model: Model) -> None:
    with pytest.raises(ConfigError, match="no workload 'shrot'; known: short, mixed"):
        made("shrot", model)


def test_texts_have_the_lengths_that_are_asked_for(model: Model) -> None:
    found = by_length(model, (10, 40, 100), each=3)
    assert found.groups == (10, 40, 100) * 3
    for tokens, wanted in zip(found.tokens, found.groups, strict=True):
        assert 0.5 * wanted <= tokens <= wanted


def test_every_protocol_answers_and_tells_errors_apart(
    bundle: Path, model: Model, tmp_path: Path
) -> None:
    traffic = made("mixed", model)
    address = f"127.0.0.1:{free_port()}"
    serve = [*command_of(bundle), "--port", address.rpartition(":")[2], "--threads", "1"]
    probe = PROTOCOLS["analyze"].request(traffic.prepared[:1], "tiny")
    target = PROTOCOLS["analyze"].target(address)
    with started("ours", target, serve, probe=probe, log=tmp_path / "log") as server, server.turn():
        for name, protocol in PROTOCOLS.items():
            requests = {
                known: tuple(protocol.request([one], known) for one in traffic.prepared)
                for known in ("tiny", "huge")
            }
            reports = {
                known: asyncio.run(
                    generate(
                        Order(protocol.target(address), found, traffic.tokens, Closed(3), 0.2, 0.1)
                    )
                )
                for known, found in requests.items()
            }
            assert reports["tiny"].answered > 0, name
            assert not reports["tiny"].errors, name
            assert set(reports["huge"].errors) == {"NOT_FOUND"}, name
            assert reports["huge"].answered == reports["huge"].all_answered == 0


def command_of(bundle: Path) -> list[str]:
    import sys

    return [sys.executable, "-m", "trunkline", "serve", str(bundle)]


def test_a_stream_that_breaks_is_an_error(model: Model) -> None:
    target = PROTOCOLS["stream"].target(f"127.0.0.1:{free_port()}")
    request = PROTOCOLS["stream"].request(made("short", model).prepared[:1], "tiny")
    report = asyncio.run(generate(Order(target, (request,), (1,), Closed(2), 0.2, 0.0)))
    assert set(report.errors) == {"UNAVAILABLE"}


def turn(
    milliseconds: float, calls: int, stolen: float = 0.0, told: Counter[str] | None = None
) -> Turn:
    report = Report(2.0, answered=calls, tokens=10 * calls)
    report.all_answered, report.all_tokens = 2 * calls, 20 * calls
    report.groups[16] = Latencies()
    for _ in range(calls):
        report.accepted.record(milliseconds / 1000)
        report.groups[16].record(milliseconds / 1000)
    return Turn(report, 4.0, told, stolen, {"offered": calls / 2})


def test_a_point_is_of_its_turns_that_count() -> None:
    found = point("a", 0.5, [turn(10, 60), turn(30, 60), turn(900, 60, stolen=0.3)], 3.6)
    assert found["counts"]
    assert [one["counts"] for one in found["turns"]] == [True, True, False]
    assert found["calls"] == 120
    assert found["documents_per_second"] == 30
    assert found["mean_ms"] == pytest.approx(20, rel=0.01)
    assert found["p99_ms"] == pytest.approx(30, rel=0.01)
    assert found["p999_ms"] is None
    assert found["offered"] == 30
    assert found["cost"] == {
        "cpu_seconds_per_million_requests": pytest.approx(8 / 240 * 1e6, abs=0.01),
        "cpu_seconds_per_million_tokens": pytest.approx(8 / 2400 * 1e6, abs=0.01),
        "money_per_million_requests": pytest.approx(33.333333),
        "money_per_million_tokens": pytest.approx(3.333333),
    }
    assert found["stages"] is None


def test_a_point_on_a_throttled_machine_is_marked() -> None:
    found = point("a", 1, [turn(10, 5, stolen=0.3)], None)
    assert not found["counts"]
    assert found["calls"] == 5
    assert found["p99_ms"] is None
    assert found["cost"]["money_per_million_tokens"] is None


def test_too_short_a_turn_has_no_rate() -> None:
    found = point("a", 1, [turn(10, 0)], None)
    assert found["documents_per_second"] is None
    assert found["cost"] is None
    assert found["mean_ms"] is None


def test_stages_and_batches_are_what_the_server_told() -> None:
    sums: Counter[str] = Counter()
    sums.update(
        {
            "calls": 10.0,
            "queue seconds": 0.02,
            "encode seconds": 0.01,
            "compute seconds": 0.04,
            "decode seconds": 0.01,
            "total seconds": 0.09,
            "batches": 4.0,
            "fill": 2.0,
            "sharing": 10.0,
            "tokens": 190.0,
            "computed": 200.0,
        }
    )
    found = point("a", 1, [turn(12, 10, 0.0, sums)], None)
    assert found["stages"] == {
        "queue_ms": 2.0,
        "tokenise_ms": 1.0,
        "compute_ms": 4.0,
        "decode_ms": 1.0,
        "rest_ms": pytest.approx(1.0),
        "outside_ms": pytest.approx(3.0, abs=0.02),
    }
    assert found["batches"] == {
        "count": 4,
        "fill": 0.5,
        "tokens": 47.5,
        "calls": 2.5,
        "padding_share": 0.05,
    }


def test_lengths_are_points_of_their_own() -> None:
    (found,) = length_points("a", [turn(10, 3), turn(20, 3)])
    assert (found["x"], found["calls"]) == (16, 6)


@pytest.fixture(scope="module")
def record(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("record") / "curves.json"
    with pytest.MonkeyPatch.context() as patch:
        # A busy machine must not fail the test, and few documents do.
        patch.setattr("benchmarks.serving.contenders.MOST_STOLEN", 1.0)
        patch.setattr(command, "SMALL", TINY)
        for name, one in WORKLOADS.items():
            patch.setitem(WORKLOADS, name, replace(one, documents=64))
        options = ["--small", "--peers", "plain", "--threads", "1", "--callers", "8"]
        options += ["--price-per-cpu-hour", "0.05", "--json", str(file)]
        assert command.main([str(bundle), *options]) == 0
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_the_whole_command(record: dict[str, Any]) -> None:
    ours, theirs = record["sides"]
    assert (ours, theirs) == ("trunkline padded-fp32", "plain")
    assert {one["error"] for one in record["sides"].values()} == {None}
    assert record["command"].startswith("python -m benchmarks.serving.curves tiny --small")
    places = {name: Counter(one["side"] for one in record[name]) for name in command.CURVES}
    assert places == {
        "concurrency": {ours: 2, theirs: 2},
        "load": {ours: 1, theirs: 1},
        "length": {ours: 2, theirs: 2},
        "workloads": {ours: len(WORKLOADS) + 1, theirs: len(WORKLOADS)},
        "protocols": {ours: len(PROTOCOLS)},
    }
    for one in (one for name in command.CURVES for one in record[name]):
        assert one["counts"], one
        assert not one.get("errors"), one
    for one in record["load"]:
        assert one["offered"] == pytest.approx(0.5 * one["maximum"], rel=0.01)
        assert (one["stages"] is not None) == (one["side"] == ours)
    for one in record["workloads"]:
        assert one["cost"]["cpu_seconds_per_million_requests"] > 0
        assert one["cost"]["money_per_million_tokens"] > 0


def test_charts_are_drawn_from_the_result(record: dict[str, Any]) -> None:
    drawn = list(pictures("curves", record))
    assert [one.name for one in drawn] == [chart.name for chart in CHARTS["curves"]]
    assert all(one.png.startswith(b"\x89PNG") for one in drawn)
