"""Fan-out calls ask all and wait for all; new peers do the same work; engines take turns."""

import asyncio
import time
from collections.abc import Awaitable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import onnxruntime
import pytest

import trunkline
from benchmarks.graph_peers.__main__ import Found, timed, turn
from benchmarks.graph_peers.engine import Difference, Engine, difference, running
from benchmarks.graph_peers.turns import Task, read_batches, rows, save_batches
from benchmarks.serving.contenders import Bench, expected_of, peer_served
from benchmarks.serving.load import Generators
from benchmarks.serving.peers.answers import same, shared
from benchmarks.serving.peers.one_per_task import task_graph
from benchmarks.serving.peers.options import VARIABLE, Options, Setting, given
from benchmarks.serving.peers.registry import PEERS, described
from benchmarks.serving.peers.work import Work, padded_graph, to_json
from benchmarks.serving.processes import ServerError
from benchmarks.serving.rounds import choose
from benchmarks.serving.targets import Failed, FanOutTarget, GrpcTarget, joined, parted
from benchmarks.serving.traffic import Traffic
from tests.tiny import build_tiny_bundle
from trunkline import Document, Model, Question
from trunkline.batching import pad
from trunkline.bundle import open_bundle
from trunkline.kinds import all_outputs

ONE = Setting(batch=1, wait_ms=0.0, workers=1, threads=1)
TEXTS = ("IBM opened an office in Bern.", "Ada lives in Paris.", "The river is in Rome.")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("peers") / "tiny")


@pytest.fixture(scope="module")
def model(bundle: Path) -> Model:
    return trunkline.load(bundle, 1)


@pytest.fixture(scope="module")
def traffic(model: Model) -> Traffic:
    """Documents that ask for all tasks, and one that asks for one."""
    everything = ("ner", "pos", "topic", "mood", "qa")
    whole = [Document(text, (Question("Where is it?", "qa"),), everything) for text in TEXTS]
    documents = (*whole, Document(TEXTS[0], tasks=("pos",)))
    prepared = tuple(model.pipeline.prepare(one) for one in documents)
    return Traffic("five-tasks", documents, prepared, "here")


@pytest.fixture
def bench(
    bundle: Path, model: Model, traffic: Traffic, generators: Generators, tmp_path: Path
) -> Bench:
    return Bench(bundle, traffic, expected_of(model, traffic), generators, 2, 1, tmp_path)


def test_bodies_joined_come_apart_again() -> None:
    parts = {"ner": b"a\nb", "qa": b"", "topic": bytes(range(256))}
    assert parted(joined(parts)) == parts
    assert parted(joined({})) == {}


@contextmanager
def server(seconds: float, status: grpc.StatusCode | None = None) -> Iterator[GrpcTarget]:
    """Echoes after some seconds, or fails with a status."""

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        time.sleep(seconds)
        if status is not None:
            context.abort(status, "no")
        return request.upper()

    found = grpc.server(ThreadPoolExecutor(4))
    methods = {"B": grpc.unary_unary_rpc_method_handler(answer)}
    found.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.A", methods),))
    port = found.add_insecure_port("127.0.0.1:0")
    found.start()
    try:
        yield GrpcTarget(f"127.0.0.1:{port}", "/a.A/B")
    finally:
        found.stop(None).wait()


def ask(target: FanOutTarget, parts: dict[str, bytes], seconds: float = 10.0) -> dict[str, bytes]:
    async def once() -> bytes:
        async with target.connect() as call:
            reply: Awaitable[bytes] = call(joined(parts), seconds)
            return await reply

    return parted(asyncio.run(once()))


def test_all_that_are_asked_answer_at_the_same_time() -> None:
    with server(0.4) as slow, server(0.4) as other, server(60) as never:
        target = FanOutTarget({"a": slow, "b": other, "never": never})
        ask(FanOutTarget({"a": slow, "b": other}), {"a": b"warm", "b": b"warm"})
        begin = time.perf_counter()
        assert ask(target, {"b": b"x", "a": b"y"}) == {"b": b"X", "a": b"Y"}
        assert time.perf_counter() - begin < 0.75


def test_the_first_failure_is_the_requests() -> None:
    with server(0.0, grpc.StatusCode.INTERNAL) as broken, server(2.0) as slow:
        target = FanOutTarget({"a": slow, "b": broken})
        begin = time.perf_counter()
        with pytest.raises(Failed, match="INTERNAL"):
            ask(target, {"a": b"x", "b": b"y"})
        assert time.perf_counter() - begin < 1.9


def test_a_server_per_task_gives_together_what_one_gives(bench: Bench) -> None:
    peer = PEERS["one-per-task"]
    with peer_served(bench, peer, ONE) as served:
        assert served.check(bench.expected) == 1.0
        report = served.turn(bench.load(0.5)).report
        assert report.documents_per_second > 0
        assert not report.errors


def test_a_tasks_graph_has_its_outputs_alone_and_the_same_answers(
    bundle: Path, model: Model
) -> None:
    graph = task_graph(str(bundle), "ner")
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_outputs()] == ["ner.logits"]
    document = Document(TEXTS[0], tasks=("ner",))
    work = Work(Options(str(bundle), 0, ONE), graph)
    (found,) = work.answer([to_json(model.pipeline.prepare(document))])
    assert found == model.analyze(document).to_dict()


def test_a_peer_that_needs_the_checkpoint_says_so(bench: Bench) -> None:
    choice = choose(bench, replace(PEERS["pipelines"], requirements=()), 0.1)
    assert choice.error == "pipelines: needs --run, the checkpoint that the bundle was made of"


def test_what_is_shared_counts_spans_answers_and_the_best_label() -> None:
    span = {"start": 0, "end": 3, "text": "IBM", "label": "ORG", "score": 0.9}
    labels = [{"label": "Business", "score": 0.6}, {"label": "World", "score": 0.4}]
    asked = {"question": "Who?", "task": "qa", "answers": [{"start": 0, "end": 3, "score": 0.5}]}
    result = {"text": "IBM", "tasks": {"ner": [span], "topic": labels}, "questions": [asked]}
    scored = result | {"tasks": {"ner": [span | {"score": 0.8}], "topic": labels}}
    assert same(scored, result) == shared(scored, result) == 1.0
    other = result | {"tasks": {"ner": [span | {"label": "PER"}], "topic": labels}}
    assert same(other, result) == 0.0
    assert shared(other, result) == pytest.approx(2 / 3)
    turned = result | {"tasks": {"ner": [span], "topic": labels[::-1]}}
    assert shared(turned, result) == pytest.approx(2 / 3)
    nothing = {"text": "", "tasks": {"ner": []}, "questions": []}
    assert shared(nothing, nothing) == 1.0


def test_options_come_through_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options("bundle", 1, ONE, "run", {"ner": 2})
    monkeypatch.setenv(VARIABLE, options.variables()[VARIABLE])
    assert given() == options


def test_every_peer_is_described() -> None:
    assert all(f"{name}: {peer.about}" in described() for name, peer in PEERS.items())


ENGINE = Engine("onnxruntime", "onnxruntime_engine", "fp32")


@pytest.fixture
def task(bundle: Path, model: Model, traffic: Traffic, tmp_path: Path) -> Task:
    found = [row for one in traffic.prepared for row in one.rows]
    batches = [pad(found[:3], 0), pad(found[3:], 0)]
    save_batches(str(tmp_path / "batches"), list(batches))
    path = str(bundle / padded_graph(open_bundle(bundle)))
    return Task(path, "fp32", 1, str(tmp_path / "batches"), str(tmp_path / "answers"))


def test_an_engine_answers_then_takes_turns(task: Task, model: Model, tmp_path: Path) -> None:
    outputs = all_outputs(model.manifest.tasks)
    with running(ENGINE, task, tmp_path / "log") as engine:
        expected = read_batches(task.answers)
        assert difference(task, expected, outputs) == Difference(0.0, 0.0)
        assert engine.tell("padded")["seconds"] > 0
        assert engine.tell("singly")["seconds"] > 0
        for one in expected:
            one["ner.logits"] += 1.0
        apart = difference(task, expected, outputs)
        assert apart.most == 1.0
        with pytest.raises(ServerError, match="onnxruntime: its logits differ by"):
            apart.check(ENGINE.name, exact=True)
        apart.check(ENGINE.name, exact=False)


def test_an_engine_that_does_not_start_tells_why(task: Task, tmp_path: Path) -> None:
    lost = replace(task, path="nowhere.onnx")
    with (
        pytest.raises(ServerError, match=r"onnxruntime: ended: .*nowhere\.onnx"),
        running(ENGINE, lost, tmp_path / "log"),
    ):
        pass


def test_single_rows_have_no_padding(task: Task) -> None:
    (batch, *_) = read_batches(task.batches)
    lengths = batch["attention_mask"].sum(axis=1).tolist()
    assert [one["input_ids"].shape for one in rows(batch)] == [(1, length) for length in lengths]
    assert all(np.all(one["attention_mask"] == 1) for one in rows(batch))


def test_an_engine_that_ends_on_the_way_is_reported_and_the_others_go_on(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline_export.speed.MOST_STOLEN", 1.0)  # a busy machine is no failure
    found = Found()
    with running(ENGINE, task, tmp_path / "log") as engine:
        for way in ("padded", "singly"):
            found.works[f"{engine.name}, {way}"] = partial(turn, engine, way, found.failed)
        found.works["fatal"] = partial(turn, engine, "no such way", found.failed)
        found.works["other"] = lambda: None
        times = timed(found, 3)
    assert found.failed.keys() == {ENGINE.name}
    assert "ended: KeyError: 'no such way'" in found.failed[ENGINE.name]
    assert set(times.seconds) == {"fatal", "other"}
    assert len(times.seconds["other"]) == 3
