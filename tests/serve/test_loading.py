"""Models that come and go while a server has work."""

import errno
import gc
import logging
import os
import shutil
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import trunkline
from tests.faults.serving.calls import ClientPool, channel_to
from tests.faults.serving.changing import SPOILERS
from tests.faults.serving.fault_fixture import FaultFixture, fault_fixture
from tests.faults.serving.fault_report import FaultReport
from tests.faults.serving.inference import Requests
from tests.faults.serving.malformed import many_malformed
from tests.faults.serving.versions import reversioned, write_apart
from tests.serve.hosting import PATIENCE, Hosted, Loop, wait_for
from tests.tiny import build_tiny_bundle
from trunkline.bundle import MANIFEST, written_bundle
from trunkline.errors import InvalidInput, RuntimeFault
from trunkline.v1 import model_service_pb2 as pb
from trunkline.v1.model_service_pb2_grpc import ModelServiceStub
from trunkline_serve import loading
from trunkline_serve.launch import serving
from trunkline_serve.rpc.status import to_error

SERVING = health_pb2.HealthCheckResponse.SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
WATCH = 0.02  # seconds

Models = Any


@pytest.fixture(scope="module")
def faults(bundle: Path) -> Iterator[FaultFixture]:
    """The tiny bundle in three versions, and what each answers."""
    with fault_fixture(bundle) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def hosted(host: Loop, bundle: Path, folder: Path) -> Iterator[Hosted]:
    """A server of version 1 with a folder of models that it does not watch."""
    with host.serving([trunkline.load(bundle, 1)], folder=str(folder)) as hosted:
        yield hosted


@pytest.fixture
def watching(host: Loop, bundle: Path, folder: Path) -> Iterator[Hosted]:
    """One that does."""
    served = [trunkline.load(bundle, 1)]
    with host.serving(served, folder=str(folder), watch_seconds=WATCH) as hosted:
        served.clear()
        yield hosted


@pytest.fixture
def models(request: pytest.FixtureRequest) -> Iterator[Models]:
    name = "watching" if "watching" in request.fixturenames else "hosted"
    with channel_to(request.getfixturevalue(name).address) as channel:
        yield ModelServiceStub(channel)


def load(models: Models, bundle: str, *, replace: bool = False) -> pb.ModelId:
    request = pb.LoadModelRequest(bundle=bundle, replace=replace)
    found: pb.ModelId = models.LoadModel(request, timeout=PATIENCE).id
    return found


def unload(models: Models, model: str, version: int = 0) -> list[int]:
    request = pb.UnloadModelRequest(model=model, model_version=version)
    return [one.version for one in models.UnloadModel(request, timeout=PATIENCE).models]


def versions(models: Models) -> list[tuple[str, int]]:
    listed = models.ListModels(pb.ListModelsRequest(), timeout=PATIENCE).models
    return [(one.name, one.version) for one in listed]


def refusal(call: Callable[[], object]) -> grpc.Call:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert isinstance(caught.value, grpc.Call)
    return caught.value


def serves(address: str, service: str) -> bool:
    """Tells if the server's health says that it serves a model."""
    with channel_to(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            assert stub.Check(request, timeout=PATIENCE).status == SERVING
            return True
        except grpc.RpcError as error:
            assert isinstance(error, grpc.Call)
            assert error.code() is grpc.StatusCode.NOT_FOUND
            return False


def told(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [line for line in caplog.messages if words in line]


def test_a_new_version_replaces_the_old_under_load_and_no_call_fails(
    faults: FaultFixture, hosted: Hosted, folder: Path, models: Models
) -> None:
    report = FaultReport("reload")
    pool = ClientPool(hosted.address, faults.oracle, report, callers=4)
    for at in (1, 2):
        faults.copy(at, folder, f"v{at}")
    with pool.calling():
        for at in (1, 2):
            pool.wait(40)
            assert load(models, f"v{at}", replace=True).version == at + 1
            assert versions(models) == [("tiny", at + 1)]
        pool.wait(40)
    assert report.clean, report
    assert pool.versions == {1, 2, 3}


def test_the_replaced_model_is_gone_when_the_call_that_replaced_it_returns(
    faults: FaultFixture, hosted: Hosted, folder: Path, models: Models
) -> None:
    for at in (1, 2):
        faults.copy(at, folder, f"v{at}")
    load(models, "v1", replace=True)
    old = weakref.ref(hosted.engine.models.find("tiny", 2).model)
    runner = weakref.ref(hosted.engine.models.find("tiny", 2).model.runner)
    pool = ClientPool(hosted.address, faults.oracle, FaultReport("reload"), callers=2)
    with pool.calling(), channel_to(hosted.address) as channel:
        pool.wait(20)
        # Whatever else knows models must let go of this one, too.
        many_malformed(channel, Requests(faults.oracle, 0), pool.report, 60)
        load(models, "v2", replace=True)
    assert pool.report.clean, pool.report
    assert (old(), runner()) == (None, None)


def test_several_versions_and_models_are_served_side_by_side(
    faults: FaultFixture, hosted: Hosted, folder: Path, models: Models
) -> None:
    faults.copy(1, folder, "second")
    build_tiny_bundle(folder / "other", "other", 7)
    load(models, "second")
    load(models, "other")
    assert versions(models) == [("other", 7), ("tiny", 1), ("tiny", 2)]
    for name in ("tiny", "tiny/1", "tiny/2", "other", "other/7"):
        wait_for(lambda name=name: serves(hosted.address, name))
    assert not serves(hosted.address, "tiny/3")
    assert unload(models, "tiny", 1) == [1]
    wait_for(lambda: not serves(hosted.address, "tiny/1"))
    assert serves(hosted.address, "tiny")
    assert unload(models, "tiny") == [2]
    wait_for(lambda: not serves(hosted.address, "tiny"))
    assert versions(models) == [("other", 7)]


def test_a_watch_of_health_sees_a_model_go_and_come(
    hosted: Hosted, folder: Path, faults: FaultFixture, models: Models
) -> None:
    faults.copy(1, folder, "second")
    request = health_pb2.HealthCheckRequest(service="tiny")
    with channel_to(hosted.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=PATIENCE)
        assert next(watch).status == SERVING
        unload(models, "tiny")
        assert next(watch).status == UNKNOWN
        assert not serves(hosted.address, "tiny")
        load(models, "second")
        assert next(watch).status == SERVING


def test_a_model_that_is_unloaded_answers_the_calls_it_has(
    faults: FaultFixture, hosted: Hosted, models: Models
) -> None:
    report = FaultReport("unload")
    unknown = lambda error: "unknown" if error.code() is grpc.StatusCode.NOT_FOUND else ""  # noqa: E731
    pool = ClientPool(hosted.address, faults.oracle, report, callers=4, allowed=unknown)
    with pool.calling():
        pool.wait(40)
        assert unload(models, "tiny") == [1]
        pool.wait(10)
    assert report.clean, report
    assert report.notes["unknown"] >= 4


class Stuck:
    """Holds the newest version of the tiny model, as a call that never ends would."""

    def __init__(self, host: Loop, hosted: Hosted) -> None:
        self._run, self._models = host.run, hosted.engine.models
        self._held = ExitStack()

    def hold(self) -> None:
        async def hold() -> None:
            self._held.enter_context(self._models.find("tiny", 0).held())

        self._run(hold())

    def let_go(self) -> None:
        async def let_go() -> None:
            self._held.close()

        self._run(let_go())


@pytest.fixture
def stuck(host: Loop, hosted: Hosted) -> Iterator[Stuck]:
    stuck = Stuck(host, hosted)
    yield stuck
    stuck.let_go()


def test_old_calls_that_never_end_do_not_hold_up_loads(
    faults: FaultFixture,
    folder: Path,
    models: Models,
    stuck: Stuck,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loading, "_GONE_SECONDS", 0.05)
    for at in (1, 2):
        faults.copy(at, folder, f"v{at}")
        stuck.hold()
        assert load(models, f"v{at}", replace=True).version == at + 1
    stuck.hold()
    assert unload(models, "tiny") == [3]


def test_a_load_does_not_wait_for_the_calls_of_another(
    faults: FaultFixture, folder: Path, models: Models, stuck: Stuck
) -> None:
    faults.copy(1, folder, "v1")
    build_tiny_bundle(folder / "other", "other")
    stuck.hold()
    replacing = models.LoadModel.future(pb.LoadModelRequest(bundle="v1", replace=True))
    wait_for(lambda: versions(models) == [("tiny", 2)])
    assert load(models, "other").name == "other"
    assert not replacing.done(), "it waits until the old version has no calls"
    stuck.let_go()
    assert replacing.result(PATIENCE).id.version == 2


SLOW = """
import sys, time
from trunkline.cli import main
from trunkline_serve import host

opened = host.open_for_serving
host.open_for_serving = lambda path, settings: (
    time.sleep(60) if path.name == "slow" else opened(path, settings)
)
sys.exit(main())
"""


def test_a_load_that_hangs_does_not_hold_up_the_end(bundle: Path, folder: Path) -> None:
    shutil.copytree(bundle, folder / "slow")
    (folder / "slow_server.py").write_text(SLOW)
    flags = ("--threads", 1, "--models-folder", folder)
    paths = {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    with (
        serving([bundle], *flags, module="slow_server", environment=paths) as launched,
        channel_to(launched.address) as channel,
    ):
        stub: Any = ModelServiceStub(channel)
        slow = stub.LoadModel.future(pb.LoadModelRequest(bundle="slow"), timeout=PATIENCE)
        with pytest.raises(grpc.FutureTimeoutError):
            slow.result(0.5)
        begin = time.monotonic()
        assert launched.end(signal.SIGTERM) == 0
        assert time.monotonic() - begin < 5
        with pytest.raises(grpc.RpcError) as caught:
            slow.result(PATIENCE)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_model_to_unload_has_a_name(models: Models) -> None:
    error = refusal(lambda: unload(models, ""))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "model: is empty; name the model to unload; known: tiny"
    assert versions(models) == [("tiny", 1)]


def test_what_is_served_is_not_loaded_twice(
    bundle: Path, hosted: Hosted, folder: Path, models: Models
) -> None:
    shutil.copytree(bundle, folder / "same")
    error = refusal(lambda: load(models, "same", replace=True))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "has the name and version of" in str(error.details())
    assert versions(models) == [("tiny", 1)]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_a_spoilt_bundle_that_is_asked_for_is_refused_with_the_reason(
    *,
    faults: FaultFixture,
    hosted: Hosted,
    folder: Path,
    models: Models,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path], None],
) -> None:
    spoil(faults.copy(1, folder, "next"))
    error = refusal(lambda: load(models, "next", replace=True))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert str(error.details()).startswith(f"bundle: {folder / 'next'}")
    assert versions(models) == [("tiny", 1)]
    assert not told(caplog, "internal error")


def test_without_a_folder_nothing_can_be_loaded(address: str) -> None:
    with channel_to(address) as channel:
        error = refusal(lambda: load(ModelServiceStub(channel), "any"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "has no folder of models" in str(error.details())


def test_unloading_what_is_not_there_is_not_found(models: Models) -> None:
    assert refusal(lambda: unload(models, "tinny")).code() is grpc.StatusCode.NOT_FOUND
    assert refusal(lambda: unload(models, "tiny", 9)).code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    "name", ["../outside", "{outside}", "", ".", "..", "link", "sub/inner", "./inner", "inner/"]
)
def test_paths_that_leave_the_folder_are_refused(
    bundle: Path, hosted: Hosted, folder: Path, models: Models, name: str
) -> None:
    outside = shutil.copytree(bundle, folder.parent / "outside")
    shutil.copytree(bundle, folder / "inner")
    shutil.copytree(bundle, folder / "sub" / "inner")
    (folder / "link").symlink_to(outside)
    error = refusal(lambda: load(models, name.format(outside=outside)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    rebuilt = to_error(error)
    assert isinstance(rebuilt, InvalidInput)
    assert rebuilt.field == "bundle"


@pytest.mark.parametrize("name", ["a\0b", "inner\0", "x" * 5000, ".hidden", "none"])
def test_names_of_no_bundle_are_not_found(
    bundle: Path, hosted: Hosted, folder: Path, models: Models, name: str
) -> None:
    shutil.copytree(bundle, folder / "inner")
    shutil.copytree(bundle, folder / ".hidden")
    assert refusal(lambda: load(models, name)).code() is grpc.StatusCode.NOT_FOUND


def test_a_folder_whose_name_is_no_unicode_is_told_in_a_name_that_is(
    bundle: Path, hosted: Hosted, folder: Path, models: Models
) -> None:
    try:
        shutil.copytree(bundle, folder / os.fsdecode(b"next\xff"))
    except OSError:
        pytest.skip("this file system has no such names")
    error = refusal(lambda: load(models, "next"))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "next\\udcff" in str(error.details())


def test_a_link_within_the_folder_is_followed(
    faults: FaultFixture, hosted: Hosted, folder: Path, models: Models
) -> None:
    faults.copy(1, folder, "v2")
    (folder / "current").symlink_to("v2")
    assert load(models, "current").version == 2


@pytest.mark.parametrize("spoil", SPOILERS)
def test_a_spoilt_bundle_is_told_once_and_served_when_mended(
    *,
    faults: FaultFixture,
    watching: Hosted,
    folder: Path,
    models: Models,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path], None],
) -> None:
    caplog.set_level(logging.INFO, "trunkline_serve")
    aside = faults.copy(1, folder, ".arriving")
    spoil(aside)
    aside.rename(folder / "next")
    wait_for(lambda: told(caplog, "not loaded"))
    threading.Event().wait(5 * WATCH)
    (line,) = told(caplog, "not loaded")
    assert str(folder.resolve() / "next") in line
    assert "\n" not in line
    assert versions(models) == [("tiny", 1)]
    faults.copy(1, folder, ".mended")
    (folder / "next").rename(folder / ".spoilt")
    (folder / ".mended").rename(folder / "next")
    wait_for(lambda: versions(models) == [("tiny", 2)])
    assert len(told(caplog, "not loaded")) == 1


@pytest.mark.parametrize("first", [MANIFEST, "graphs"])
def test_a_bundle_that_is_being_copied_is_let_alone_until_it_is_whole(
    *,
    faults: FaultFixture,
    watching: Hosted,
    folder: Path,
    models: Models,
    caplog: pytest.LogCaptureFixture,
    first: str,
) -> None:
    source, target = faults.versions[1], folder / "next"
    files = sorted(
        (file.relative_to(source) for file in source.rglob("*") if file.is_file()),
        key=lambda file: (file.parts[0] != first, file),
    )
    pause = threading.Event()
    for file in files:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        with (target / file).open("wb") as copied:
            data = (source / file).read_bytes()
            for at in range(0, len(data), len(data) // 3 + 1):
                copied.write(data[at : at + len(data) // 3 + 1])
                copied.flush()
                pause.wait(WATCH / 4)
        assert versions(models) == [("tiny", 1)] or file == files[-1]
    wait_for(lambda: versions(models) == [("tiny", 2)])


def test_a_bundle_is_served_once_its_files_are_there_even_if_it_was_looked_at_too_early(
    faults: FaultFixture,
    watching: Hosted,
    folder: Path,
    models: Models,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = faults.versions[1]
    (folder / "next").mkdir()
    shutil.copy(source / MANIFEST, folder / "next")
    wait_for(lambda: told(caplog, "not loaded"))
    shutil.copytree(source, folder / "next", dirs_exist_ok=True)
    wait_for(lambda: versions(models) == [("tiny", 2)])


def test_a_bundle_exported_into_the_watched_folder_is_served_once(
    faults: FaultFixture,
    watching: Hosted,
    folder: Path,
    models: Models,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with written_bundle(folder / "next") as aside:
        shutil.copytree(faults.versions[1], aside, dirs_exist_ok=True)
        threading.Event().wait(5 * WATCH)
    wait_for(lambda: versions(models) == [("tiny", 2)])
    reversioned(faults.versions[0], folder / "next", 3)
    wait_for(lambda: versions(models) == [("tiny", 3)])
    threading.Event().wait(5 * WATCH)
    assert not told(caplog, "not loaded")


def test_an_older_version_that_arrives_does_not_replace_a_newer_one(
    faults: FaultFixture,
    watching: Hosted,
    folder: Path,
    models: Models,
    caplog: pytest.LogCaptureFixture,
) -> None:
    faults.copy(2, folder, "third")
    wait_for(lambda: versions(models) == [("tiny", 3)])
    faults.copy(1, folder, "second")
    wait_for(lambda: told(caplog, "not loaded"))
    (line,) = told(caplog, "not loaded")
    assert "is version 2 of tiny, and version 3 is served" in line
    assert versions(models) == [("tiny", 3)]
    assert load(models, "second").version == 2
    assert versions(models) == [("tiny", 2), ("tiny", 3)]


def test_a_link_out_of_the_watched_folder_is_not_followed(
    faults: FaultFixture, watching: Hosted, folder: Path, models: Models
) -> None:
    (folder / "link").symlink_to(faults.versions[1])
    threading.Event().wait(10 * WATCH)
    assert versions(models) == [("tiny", 1)]
    faults.copy(2, folder, "real")
    wait_for(lambda: versions(models) == [("tiny", 3)])


def test_bundles_given_at_the_start_are_not_loaded_again_from_the_folder(
    host: Loop, faults: FaultFixture, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trunkline_serve")
    model = trunkline.load(faults.copy(0, folder, "first"), 1)
    with host.serving([model], folder=str(folder), watch_seconds=WATCH) as hosted:
        faults.copy(1, folder, "second")
        wait_for(lambda: hosted.engine.models.find("tiny", 0).id.version == 2)
    assert not told(caplog, "not loaded")


def test_the_watch_outlives_what_it_cannot_read(
    faults: FaultFixture,
    watching: Hosted,
    folder: Path,
    models: Models,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (folder / "odd" / MANIFEST).mkdir(parents=True)
    (folder / "loop").symlink_to("loop")
    (folder / "file").write_text("no bundle")
    broken = faults.copy(1, folder, ".broken")
    write_apart(broken / MANIFEST, b"\xff\xfe not json")
    broken.rename(folder / "broken")
    wait_for(lambda: len(told(caplog, "not loaded")) == 2)
    faults.copy(2, folder, "third")
    wait_for(lambda: versions(models) == [("tiny", 3)])


def test_a_bundle_that_could_not_be_read_just_then_is_served_later(
    *,
    faults: FaultFixture,
    watching: Hosted,
    folder: Path,
    models: Models,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_descriptor(path: Path) -> str:
        tries.append(path)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    tries: list[Path] = []
    with monkeypatch.context() as patched:
        patched.setattr("trunkline.bundle.sha256_of", no_descriptor)
        faults.copy(1, folder, "next")
        wait_for(lambda: len(tries) > 1)
    wait_for(lambda: versions(models) == [("tiny", 2)])
    (line,) = told(caplog, "not loaded")
    assert "cannot be read: Too many open files" in line


def test_a_model_that_cannot_compute_is_refused_with_the_reason(
    host: Loop, bundle: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> int:
        raise RuntimeFault("onnxruntime failed: it is broken")

    shutil.copytree(bundle, folder / "next")
    with host.serving([], folder=str(folder)) as hosted, channel_to(hosted.address) as channel:
        monkeypatch.setattr(trunkline.Model, "self_test", broken)
        error = refusal(lambda: load(ModelServiceStub(channel), "next"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "bundle: onnxruntime failed: it is broken"


@pytest.mark.slow
def test_memory_of_replaced_models_is_given_back(
    host: Loop, faults: FaultFixture, exported: Path, folder: Path
) -> None:
    names = [reversioned(exported, folder / f"v{at}", at).name for at in range(2, 22)]
    process = psutil.Process(os.getpid())
    with (
        host.serving([trunkline.load(exported, 1)], folder=str(folder)) as hosted,
        channel_to(hosted.address) as channel,
    ):
        models = ModelServiceStub(channel)
        for name in names[:5]:
            load(models, name, replace=True)
        gc.collect()
        before = process.memory_info().rss
        for name in names[5:]:
            load(models, name, replace=True)
        gc.collect()
        grown = (process.memory_info().rss - before) / 2**20
    assert grown < 8, f"{grown:.1f} MiB more after 15 replacements"
