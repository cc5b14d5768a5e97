import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.serve.fronts.family import (
    NOT_SERVING,
    SERVING,
    Caller,
    Family,
    calling,
    family,
    own_channel,
    total,
)
from tests.serve.hosting import PATIENCE, wait_for
from tests.tiny import build_tiny_bundle
from trunkline import Document, DocumentResult, Model, Question
from trunkline.v1.analysis_service_pb2_grpc import AnalysisServiceStub
from trunkline.v1.model_service_pb2 import ListModelsRequest
from trunkline.v1.model_service_pb2_grpc import ModelServiceStub
from trunkline_serve.client import Client
from trunkline_serve.description import ModelId
from trunkline_serve.launch import serving
from trunkline_serve.rpc.requests import request_to_pb, results_from_pb

AT_ONCE = 5.0  # seconds; without a fault to notice, a call that died would take PATIENCE

DOCUMENTS = [
    Document("Ada lives in Rome.", (Question("Where is Ada?"),)),
    Document("IBM opened an office in Bern. " * 60),
    Document("Ada lives in Zürich 😀 and works in 東京.", text_pair="Who lives in Zürich?"),
    Document(""),
] * 4
LARGE = [Document("IBM opened an office in Bern. " * 8000, tasks=("topic",))] * 3
UNAVAILABLE = re.compile(r"UNAVAILABLE: ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for version in (1, 2):
        build_tiny_bundle(folder / f"v{version}", version=version)
    return folder


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Family]:
    with family(folder / "v1", "--models-folder", folder, "--metrics-port", "0") as found:
        yield found


@pytest.fixture(scope="module")
def asked(model: Model) -> list[tuple[Document, DocumentResult]]:
    return [(document, model.analyze(document)) for document in DOCUMENTS]


def check(callers: list[Caller], allowed: re.Pattern[str]) -> Counter[str]:
    outcomes = total(callers)
    others = [one for one in outcomes if one != "right" and not allowed.match(one)]
    assert not others
    assert max(caller.slowest for caller in callers) < AT_ONCE
    return outcomes


def test_answers_of_both_fronts_are_right(
    served: Family, asked: list[tuple[Document, DocumentResult]]
) -> None:
    with calling(served.address, asked) as callers:
        connected = [
            sum(
                one.status == psutil.CONN_ESTABLISHED and one.laddr.port == served.port
                for one in found
            )
            for found in (front.net_connections() for front in served.role("front"))
        ]
    # The system chooses the front of each connection by chance: one of them gets none once in 2^15.
    assert all(connected)
    assert set(total(callers)) == {"right"}


def test_each_process_has_its_own_metrics(
    served: Family, asked: list[tuple[Document, DocumentResult]]
) -> None:
    with calling(served.address, asked):
        pass
    (batches,) = (metrics(served, one) for one in served.role("engine"))
    assert 'trunkline_batches_total{model="tiny"' in batches
    calls = [metrics(served, one) for one in served.role("front")]
    assert all('trunkline_calls_total{model="tiny",version="1"}' in one for one in calls)


def metrics(served: Family, process: psutil.Process) -> str:
    own = {one.laddr.port for one in process.net_connections() if one.status == psutil.CONN_LISTEN}
    (port,) = own - {served.port}
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as reply:
        text: str = reply.read().decode()
    return text


def test_an_engine_killed_under_load_is_back_and_nothing_hangs(
    served: Family, asked: list[tuple[Document, DocumentResult]]
) -> None:
    (engine,) = served.role("engine")
    with calling(served.address, asked) as callers, own_channel(served.address) as channel:
        health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(health).status == SERVING
        engine.kill()
        assert next(health).status == NOT_SERVING
        assert next(health).status == SERVING
        served.wait_until_whole()
        before = total(callers)["right"]
        wait_for(lambda: total(callers)["right"] > before + 100)
    outcomes = check(callers, UNAVAILABLE)
    assert any("being started again" in one for one in outcomes)
    assert served.role("engine") != [engine]


def test_a_front_killed_under_load_is_back_and_nothing_hangs(
    served: Family, asked: list[tuple[Document, DocumentResult]]
) -> None:
    front, other = served.role("front")
    with calling(served.address, asked) as callers:
        front.kill()
        wait_for(lambda: front not in served.children)
        served.wait_until_whole()
        before = total(callers)["right"]
        wait_for(lambda: total(callers)["right"] > before + 100)
    check(callers, UNAVAILABLE)
    assert other in served.role("front")


def test_models_are_loaded_and_unloaded_in_all_fronts_under_load(
    served: Family, asked: list[tuple[Document, DocumentResult]]
) -> None:
    with (
        calling(served.address, asked) as callers,
        Client(served.address) as client,
    ):
        assert client.load("v2", replace=True) == ModelId("tiny", 2)
        for _ in range(8):
            assert listed(served) == [ModelId("tiny", 2)]
        assert client.load("v1") == ModelId("tiny", 1)
        for _ in range(8):
            assert listed(served) == [ModelId("tiny", 1), ModelId("tiny", 2)]
    assert set(total(callers)) == {"right"}


def test_an_engine_that_comes_back_serves_what_the_dead_one_did(served: Family) -> None:
    before = listed(served)
    (engine,) = served.role("engine")
    engine.kill()
    wait_for(lambda: served.role("engine") not in ([], [engine]))
    served.wait_until_whole()
    assert listed(served) == before


def listed(served: Family) -> list[ModelId]:
    """Returns the models of whichever front takes a new connection."""
    with own_channel(served.address) as channel:
        stub = ModelServiceStub(channel)
        models = stub.ListModels(ListModelsRequest(), timeout=PATIENCE).models
    return [ModelId(one.name, one.version) for one in models]


def test_a_signal_under_load_loses_no_accepted_call(
    bundle: Path, model: Model, asked: list[tuple[Document, DocumentResult]]
) -> None:
    with (
        family(bundle) as served,
        own_channel(served.address) as channel,
    ):
        children = served.children
        with calling(served.address, asked) as callers:
            request = request_to_pb(LARGE, "", 0)
            # Its deadline is far off: the callers' tiny runs make it look longer than it is.
            stub = AnalysisServiceStub(channel)
            answer = stub.Analyze.future(request, timeout=100 * PATIENCE)
            time.sleep(0.2)
            # However slow the machine, it is accepted when calls behind it have their answers, and
            # takes far longer.
            small = request_to_pb([asked[0][0]], "", 0)
            for _ in range(3):
                stub.Analyze(small, timeout=PATIENCE)
            served.supervisor.terminate()
            assert not answer.done()
            assert served.supervisor.wait(PATIENCE) == 0
        assert results_from_pb(answer.result(PATIENCE), LARGE) == model.analyze(LARGE)
        assert not any(child.is_running() for child in children)
        check(callers, UNAVAILABLE)


def test_a_cleaner_of_temporary_files_does_not_keep_processes_from_coming_back(
    bundle: Path, asked: list[tuple[Document, DocumentResult]]
) -> None:
    with family(bundle) as served:
        (engine,) = served.role("engine")
        shutil.rmtree(engine.cmdline()[-2])
        for one in (engine, served.role("front")[0]):
            one.kill()
        served.wait_until_whole()
        with calling(served.address, asked) as callers:
            wait_for(lambda: total(callers)["right"] > 20)


def test_nothing_outlives_a_supervisor_that_is_killed(bundle: Path) -> None:
    with family(bundle) as served:
        children = served.children
        assert len(children) == 3
        runtime = Path(served.role("engine")[0].cmdline()[-2])
        assert runtime.stat().st_mode & 0o777 == 0o700
        served.supervisor.kill()
        _, alive = psutil.wait_procs(children, PATIENCE)
        assert not alive
        assert not runtime.exists()


def test_a_process_that_cannot_be_started_is_started_later_and_others_go_on(
    bundle: Path, asked: list[tuple[Document, DocumentResult]]
) -> None:
    with family(bundle) as served:
        supervisor = psutil.Process(served.supervisor.pid)
        limits = resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE)
        none_left = (supervisor.num_fds() - 1, limits[1])
        resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE, none_left)
        front, other = served.role("front")
        (engine,) = served.role("engine")
        front.kill()
        served.await_log("no front process can be started", 2)
        with calling(served.address, asked) as callers:
            pass
        assert set(total(callers)) == {"right"}
        assert served.supervisor.poll() is None
        resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE, limits)
        served.wait_until_whole()
        assert other in served.role("front")
        assert served.role("engine") == [engine]


def test_what_a_library_prints_does_not_disturb_a_start(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text('print("hello from a library", flush=True)\n')
    with serving([bundle], "--fronts", 1, environment={"PYTHONPATH": str(tmp_path)}) as server:
        assert server.end(signal.SIGTERM) == 0
        # The children's goes to the log; standard output is for the lines of the command.
        assert server.log.read_text().count("hello from a library") == 2
        assert server.out.read_text().count("hello from a library") == 1


def test_a_broken_bundle_is_one_line_and_no_process_is_left(bundle: Path, tmp_path: Path) -> None:
    broken = build_tiny_bundle(tmp_path / "broken")
    (broken / "golden.jsonl").write_text("no\n", encoding="utf-8")
    begin = time.monotonic()
    done = command(broken, "--fronts", "2", "--port", "0")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"trunkline serve: {broken}/golden.jsonl: differs from the hash")
    assert time.monotonic() - begin < PATIENCE


def test_a_taken_port_is_told(served: Family, bundle: Path) -> None:
    done = command(bundle, "--fronts", "2", "--port", str(served.port))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "cannot listen on" in line


def command(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "trunkline", "serve", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE, check=False)
