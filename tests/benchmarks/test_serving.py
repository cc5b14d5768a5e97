"""The bars are what the rounds say, peers do the same work, and the command runs whole."""

import json
import sys
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

import trunkline
from benchmarks.bars import Bar, show
from benchmarks.family import resident
from benchmarks.serving import bars as command
from benchmarks.serving.contenders import Bench, InProcess, Load, Turn, expected_of, peer_served
from benchmarks.serving.judge import bars, best_batching, figures
from benchmarks.serving.load import Closed, Generators, Report
from benchmarks.serving.overload import Overload, growth
from benchmarks.serving.peers.options import Setting
from benchmarks.serving.peers.registry import PEERS
from benchmarks.serving.processes import ServerError, free_port, started
from benchmarks.serving.rounds import Round, choose, kept
from benchmarks.serving.targets import GrpcTarget
from benchmarks.serving.traffic import Traffic, workload
from tests.tiny import build_tiny_bundle
from trunkline import Model

ONE = Setting(batch=1, wait_ms=0.0, workers=1, threads=1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("serving") / "tiny")


@pytest.fixture(scope="module")
def model(bundle: Path) -> Model:
    return trunkline.load(bundle, 1)


def mixed(model: Model, data: Path | None = None, *, count: int = 80, seed: int = 0) -> Traffic:
    return workload("mixed", model, data, count=count, seed=seed)


@pytest.fixture(scope="module")
def traffic(model: Model) -> Traffic:
    return mixed(model)


def test_generated_traffic_is_three_sentences_to_a_question_and_the_same_each_time(
    model: Model, traffic: Traffic
) -> None:
    asking = [bool(document.questions) for document in traffic.documents]
    assert sum(asking) == 20
    assert asking != sorted(asking)
    assert {document.tasks for document in traffic.documents} == {("ner",), ("qa",)}
    assert mixed(model).documents == traffic.documents
    assert mixed(model, seed=1).documents != traffic.documents
    long = [tokens for tokens, asks in zip(traffic.tokens, asking, strict=True) if asks]
    short = [tokens for tokens, asks in zip(traffic.tokens, asking, strict=True) if not asks]
    assert sum(long) / len(long) > 2 * sum(short) / len(short)


def test_traffic_of_a_folder_is_its_sentences_and_questions(model: Model, tmp_path: Path) -> None:
    (tmp_path / "ner.test.conll").write_text("Ada B-PER\nwrote O\n\nBern B-LOC\n\n")
    asked = {"id": "1", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 0}]}
    squad = {"data": [{"paragraphs": [{"context": "Ada wrote.", "qas": [asked]}]}]}
    (tmp_path / "qa.dev.json").write_text(json.dumps(squad))
    found = mixed(model, tmp_path, count=8).documents
    assert Counter(one.text for one in found) == {"Ada wrote": 3, "Bern": 3, "Ada wrote.": 2}
    assert {one.text for document in found for one in document.questions} == {"Who?"}


def test_the_graph_in_process_does_whole_batches(model: Model, traffic: Traffic) -> None:
    found = InProcess(model, traffic).turn(Load(traffic, Closed(1), 0.05)).to_dict()
    assert found["tokens_per_second"] > found["documents_per_second"] > 0
    assert found["p99_ms"] is None


@pytest.fixture
def bench(
    bundle: Path, model: Model, traffic: Traffic, generators: Generators, tmp_path: Path
) -> Bench:
    return Bench(bundle, traffic, expected_of(model, traffic), generators, 4, 1, tmp_path)


def stands_still(process: psutil.Process) -> bool:
    """Waits for a signal that was sent to arrive."""
    for _ in range(400):
        if process.status() == psutil.STATUS_STOPPED:
            return True
        time.sleep(0.005)
    return False


def test_a_peer_does_the_same_work_and_stands_still_until_its_turn(bench: Bench) -> None:
    peer = PEERS["plain"]
    with peer_served(bench, peer, ONE) as served:
        process = psutil.Process(served.server.process.pid)
        assert stands_still(process)
        assert served.check(bench.expected) == 1.0
        turn = served.turn(bench.load(0.3))
        assert turn.report.documents_per_second > 0
        assert not turn.report.errors
        assert (turn.server_cpu_seconds or 0) > 0
        assert stands_still(process)
        assert resident(served.server.process) > 1_000_000
    assert not process.is_running()


def test_other_answers_are_not_the_same_work(bench: Bench) -> None:
    peer = PEERS["plain"]
    with (
        peer_served(bench, peer, ONE) as served,
        pytest.raises(ServerError, match="100% of its answers are not the model's"),
    ):
        replace(served, read=lambda reply, at: {"tasks": "none"}).check(bench.expected)


def test_a_server_that_dies_has_no_turn(bench: Bench) -> None:
    with peer_served(bench, PEERS["plain"], ONE) as served:
        served.server.process.kill()
        served.server.process.wait()
        with pytest.raises(ServerError, match="plain: ended"):
            served.turn(bench.load(0.1))


def test_a_peer_takes_its_best_setting(bench: Bench) -> None:
    choice = choose(bench, PEERS["plain"], 0.2)
    assert choice.error is None
    assert choice.same_answers == 1.0
    assert len(choice.probes) == 2  # one thread leaves no more
    best = max(probe.tokens_per_second for probe in choice.probes.values())
    assert choice.probes[choice.setting].tokens_per_second == best
    assert all(probe.answered for probe in choice.probes.values())


@pytest.mark.parametrize(("rate", "least"), [(1000.0, 100), (200.0, 100), (1.0, 2), (0.0, 0)])
def test_a_setting_is_judged_by_many_answers_or_that_is_said(
    bench: Bench,
    rate: float,
    least: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[float] = []

    class Fake:
        name = "plain"

        def check(self, *given: object) -> float:
            return 1.0

        def turn(self, load: Load) -> Turn:
            asked.append(load.seconds)
            answered = round(rate * load.seconds)
            return Turn(Report(load.seconds, answered=answered, tokens=50 * answered))

    monkeypatch.setattr("benchmarks.serving.rounds.peer_served", lambda *given: nullcontext(Fake()))
    choice = choose(bench, PEERS["plain"], 0.5)
    assert max(asked) <= 2.0
    assert all(probe.answered >= least for probe in choice.probes.values())
    assert (choice.error == "plain: no answer in 2 s under load") == (rate == 0)
    said = "plain: only 2 answers to judge a setting by" in capsys.readouterr().err
    assert said == (rate == 1)


def test_a_peer_that_does_not_start_is_kept_with_its_error(bench: Bench) -> None:
    choice = choose(bench, replace(PEERS["plain"], module="nowhere"), 0.2)
    assert "No module named benchmarks.serving.peers.nowhere" in (choice.error or "")
    assert choice.to_dict()["setting"] is None


def test_a_server_that_refuses_to_answer_is_told(tmp_path: Path) -> None:
    program = "raise SystemExit('ValueError: no such bundle')"
    target = GrpcTarget(f"127.0.0.1:{free_port()}", "/a.B/C")
    python = [sys.executable, "-c", program]
    with (
        pytest.raises(ServerError, match="odd: ended: ValueError: no such bundle"),
        started("odd", target, python, probe=b"", log=tmp_path / "log"),
    ):
        pass


def turn(tokens: float, p99_ms: float | None = None) -> Turn:
    report = Report(1.0, answered=round(tokens / 50), tokens=round(tokens))
    if p99_ms is not None:
        report.accepted.record(p99_ms / 1000)
    return Turn(report)


def rounds() -> list[Round]:
    """Three rounds on a machine that has half the speed in the second."""
    return [
        Round(
            {
                "in process g": turn(1000 * speed),
                "trunkline g": turn(950 * speed, 100 / speed),
                "mosec": turn(190 * speed, 400 / speed),
                "litserve": turn(95 * speed, 50 / speed),
                "plain": turn(250 * speed, 120 / speed),
            },
            {"trunkline g": 0.4},
        )
        for speed in (1.0, 0.5, 1.0)
    ]


PUSHED: Overload = dict(
    server="trunkline g",
    seconds=60,
    rate=40,
    deadline_ms=200,
    maximum=20,
    goodput_documents=0.99,
    goodput_tokens=0.96,
    accepted_p50_ms=90,
    accepted_p99_ms=190,
    refused=1000,
    refusal_p50_ms=3,
    expired=0,
    errors={},
    health_p99_ms=12,
    health_errors={},
    memory_growth=1.01,
    memory_mb=[100, 101],
    stolen=0.01,
    generator_cpu_share=0.1,
    generator_late_p50_ms=1,
    generator_late_p99_ms=2,
    generator_saturated=False,
)


def judged(found: list[Round], pushed: Overload | None = PUSHED) -> dict[str, Bar]:
    return {bar.name: bar for bar in bars(found, {"g": "int8"}, list(PEERS), pushed)}


def test_bars_are_medians_of_ratios_within_rounds() -> None:
    found = judged(rounds())
    assert all(bar.met for bar in found.values())
    assert found["g: served over the graph in process"].value == pytest.approx(0.95)
    best = found["trunkline g over mosec, the best padded batching peer"]
    assert (best.bar, best.value) == (5.0, pytest.approx(5.0))
    assert found["trunkline g: p99 over that of mosec"].value == pytest.approx(0.25, rel=1e-2)
    plain = found["trunkline g over the plain server without batching"]
    assert (plain.bar, plain.value) == (3.0, pytest.approx(3.8))
    assert found["2x overload: goodput over the maximum"].value == 0.96


def test_what_is_short_is_told_by_how_much() -> None:
    bar = Bar("x", 3.0, [2.0, 2.5, 2.9])
    assert not bar.met
    assert "SHORT by 0.5" in show(bar.to_dict())
    assert "2 - 2.9" in show(bar.to_dict())
    assert bar.to_dict("run me")["range"] == [2.0, 2.9]
    assert "pass" in show(Bar("x", 3.0, [2.0], at_most=True).to_dict())


def test_what_was_not_measured_is_not_met() -> None:
    alone = [Round({"in process g": turn(10)})]
    found = judged(alone, {**PUSHED, "stolen": 0.3, "refusal_p50_ms": None})
    assert len(found) == 10
    assert not any(bar.met for bar in found.values())
    assert "not measured" in show(next(iter(found.values())).to_dict())


def test_peers_that_were_not_asked_for_have_no_bars() -> None:
    assert len(bars(rounds(), {"g": "fp32"}, [], None)) == 2
    assert len(bars(rounds(), {"g": "fp32"}, ["plain"], None)) == 3


def test_figures_are_medians_with_their_range() -> None:
    found = figures(rounds())
    assert found["mosec"]["tokens_per_second"] == 190
    assert found["mosec"]["range"] == [95, 190]
    assert found["in process g"]["p99_ms"] is None
    assert best_batching(rounds()) == "mosec"
    assert best_batching([Round()]) is None


def test_rounds_on_a_throttled_machine_do_not_count() -> None:
    assert [one.stolen for one in kept([Round(stolen=0.05), Round(stolen=0.3)])] == [0.05]


def test_memory_grows_from_the_first_quarter_to_the_last() -> None:
    assert growth([100, 101, 100, 300, 100, 102, 101, 100]) == pytest.approx(1.0, abs=0.01)
    assert growth([100, 100, 150, 150, 180, 180, 200, 200]) == 2.0
    assert growth([100]) == 1.0


def test_the_whole_command(
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A busy machine must not fail the test, nor make it longer.
    monkeypatch.setattr("benchmarks.serving.rounds.MOST_STOLEN", 1.0)
    monkeypatch.setattr("benchmarks.serving.overload.MOST_STOLEN", 1.0)
    monkeypatch.setattr("benchmarks.serving.overload._WARM_SECONDS", 0.1)
    file = tmp_path / "serving.json"
    options = ["--rounds", "2", "--seconds", "0.3", "--overload-seconds", "1", "--threads", "1"]
    options += [
        "--concurrency",
        "8",
        "--graphs",
        "padded-fp32",
        "--peers",
        "plain",
        "--json",
        str(file),
    ]
    assert command.main([str(bundle), *options]) in {0, 1}
    record = json.loads(file.read_text())
    assert {bar["name"]: len(bar["rounds"]) for bar in record["bars"][:3]} == {
        "padded-fp32: served over the graph in process": 2,
        "padded-fp32: unloaded over in process and empty RPC, ms": 2,
        "trunkline padded-fp32 over the plain server without batching": 2,
    }
    assert all(isinstance(bar["pass"], bool) for bar in record["bars"])
    assert record["same_answers"] == {"padded-fp32": 1.0}
    assert record["peers"]["plain"]["error"] is None
    assert record["overload"]["rate"] > 0
    assert record["overload"]["health_p99_ms"] > 0
    assert record["failed"] == {}
    assert record["settings"]["texts"] == "generator"
    assert record["machine"]["cpus"] > 0
    assert record["command"].startswith("python -m benchmarks.serving.bars tiny --rounds 2")
    out = capsys.readouterr().out
    assert "served over the graph in process" in out
    assert "2 of 2 rounds count" in out
    names = ("in process padded-fp32", "trunkline padded-fp32", "plain")
    assert set(record["figures"]) == set(names)


def test_an_unknown_peer_is_told(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main([str(bundle), "--peers", "tritn"])
    assert "no peer 'tritn'; known: plain" in capsys.readouterr().err
