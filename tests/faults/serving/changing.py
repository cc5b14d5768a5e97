"""Models that change while a server has work, and bundles that must not be served."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.faults.serving.calls import SECONDS, ClientPool, channel_to, code_of, good_call, words_of
from tests.faults.serving.fault_fixture import FaultFixture
from tests.faults.serving.fault_report import FaultReport
from tests.faults.serving.versions import edit_manifest, write_apart
from trunkline.bundle import GOLDEN, MANIFEST, open_bundle, seal
from trunkline.v1 import model_service_pb2 as pb
from trunkline.v1.model_service_pb2_grpc import ModelServiceStub
from trunkline_serve.launch import Launched

_WATCH = 0.05  # seconds
_CALLS = 80  # between two changes
_PROBE = 0.005  # seconds between two looks at the health


def reload(fixture: FaultFixture) -> FaultReport:
    """Replaces the model under load, again and again; no call fails, each names its version."""
    report = FaultReport("reload under load")
    with fixture.folder() as folder, fixture.serving("--models-folder", folder) as server:
        bundles = [fixture.copy(at, folder, f"v{at}").name for at in range(len(fixture.versions))]
        pool = ClientPool(server.address, fixture.oracle, report)
        with channel_to(server.address) as channel, _probed(channel, report), pool.calling():
            models: Any = ModelServiceStub(channel)
            pool.wait(_CALLS)
            for at in range(max(len(bundles), fixture.times(6))):
                swap(models, bundles, at, fixture)
                pool.wait(_CALLS)
        report.notes["versions"] = len(pool.versions)
        unseen = set(fixture.oracle.versions) - pool.versions
        report.check(f"versions that never answered: {sorted(unseen)}" if unseen else "")
    return report


def swap(models: Any, bundles: Sequence[str], at: int, fixture: FaultFixture) -> None:
    """Goes to the next version; after the newest, back to the oldest beside it."""
    place = (at + 1) % len(bundles)
    request = pb.LoadModelRequest(bundle=bundles[place], replace=True)
    models.LoadModel(request, timeout=SECONDS)
    if place == 0:
        newest = pb.UnloadModelRequest(
            model=fixture.oracle.name, model_version=fixture.oracle.versions[-1]
        )
        models.UnloadModel(newest, timeout=SECONDS)


@contextmanager
def _probed(channel: grpc.Channel, report: FaultReport) -> Iterator[None]:
    """Asks for the health every few milliseconds, and notes the slowest answer."""
    done, slowest = threading.Event(), [0.0]
    stub: Any = health_pb2_grpc.HealthStub(channel)

    def probe() -> None:
        while not done.wait(_PROBE):
            begin = time.perf_counter()
            stub.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
            slowest[0] = max(slowest[0], time.perf_counter() - begin)

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        report.notes["ms for health at most"] = round(1e3 * slowest[0])


def truncated_graph(bundle: Path) -> None:
    """Cuts a graph in half."""
    _halve(bundle / open_bundle(bundle).manifest.graphs[0].file)


def wrong_hash(bundle: Path) -> None:
    """Claims another hash for a graph."""
    edit_manifest(bundle, lambda data: data["graphs"][0].update(sha256="0" * 64))


def failing_golden(bundle: Path) -> None:
    """Expects other answers in the self-test, and seals that in."""
    manifest = open_bundle(bundle).manifest
    for name in {GOLDEN, *(graph.golden for graph in manifest.graphs)}:
        lines = (bundle / name).read_text(encoding="utf-8").splitlines()
        first = json.loads(lines[0])
        first["tasks"] = {task: [] for task in first["tasks"]}
        first["questions"] = [
            {**asked, "answers": [], "no_answer_score": 0.5} for asked in first["questions"]
        ]
        write_apart(bundle / name, "\n".join([json.dumps(first), *lines[1:]]).encode())
    (bundle / MANIFEST).unlink()
    seal(bundle, manifest)


def half_manifest(bundle: Path) -> None:
    """Cuts the manifest in half."""
    _halve(bundle / MANIFEST)


def no_tokenizer(bundle: Path) -> None:
    """Leaves a file out, as a copy does that is not finished."""
    (bundle / "tokenizer.json").unlink()


SPOILERS: tuple[Callable[[Path], None], ...] = (
    truncated_graph,
    wrong_hash,
    failing_golden,
    half_manifest,
    no_tokenizer,
)
"""Ways to spoil a bundle."""


def corrupt_bundles(fixture: FaultFixture) -> FaultReport:
    """Puts spoilt bundles into the watched folder under load; then a good one at their place."""
    report = FaultReport("corrupt bundle in the watched folder")
    for spoil in SPOILERS:
        with (
            fixture.folder() as folder,
            fixture.serving("--models-folder", folder, "--models-watch-seconds", _WATCH) as server,
        ):
            pool = ClientPool(server.address, fixture.oracle, report, callers=4)
            with pool.calling():
                _arrive(fixture, folder, spoil)
                server.await_log("not loaded")
                pool.wait(_CALLS // 4)
                time.sleep(4 * _WATCH)
                told = server.log.read_text(encoding="utf-8").count("not loaded")
                report.check(f"{spoil.__name__}: told {told} times" if told != 1 else "")
                report.check(_served_beside(server, fixture.oracle.versions[:1]))
                _mend(fixture, folder)
                server.await_log(f"version {fixture.oracle.versions[1]} from")
                pool.wait(_CALLS // 4)
            unseen = fixture.oracle.versions[1] not in pool.versions
            report.check(f"{spoil.__name__}: not served when mended" if unseen else "")
    return report


def _arrive(fixture: FaultFixture, folder: Path, spoil: Callable[[Path], None]) -> None:
    """Makes a spoilt bundle aside and moves it in."""
    aside = fixture.copy(1, folder, ".arriving")
    spoil(aside)
    aside.rename(folder / "next")


def _mend(fixture: FaultFixture, folder: Path) -> None:
    """Copies the good bundle over the spoilt one as `cp` does, but for the manifest, which is last.

    A manifest that comes before its files would be looked at too early, and again when it changes.
    """
    good, target = fixture.versions[1], folder / "next"
    for file in sorted(good.rglob("*")):
        if file.is_file() and file.name != MANIFEST:
            write_apart(target / file.relative_to(good), file.read_bytes())
    aside = target / ".manifest"
    aside.write_bytes((good / MANIFEST).read_bytes())
    os.replace(aside, target / MANIFEST)


def _served_beside(server: Launched, wanted: list[int]) -> str:
    with channel_to(server.address) as channel:
        models: Any = ModelServiceStub(channel)
        listed = models.ListModels(pb.ListModelsRequest(), timeout=SECONDS).models
    served = [one.version for one in listed]
    return "" if served == wanted else f"serves {served} beside a spoilt bundle, not {wanted}"


def _halve(file: Path) -> None:
    data = file.read_bytes()
    write_apart(file, data[: len(data) // 2])


def refused_paths(fixture: FaultFixture) -> FaultReport:
    """Asks to load bundles from outside the folder of models; nothing of it is served."""
    report = FaultReport("paths that leave the folder of models")
    with (
        fixture.folder() as scratch,
        channel_within(fixture, scratch / "inside") as (server, channel),
    ):
        outside = fixture.copy(1, scratch, "outside")
        (scratch / "inside" / "link").symlink_to(outside)
        models: Any = ModelServiceStub(channel)
        for name in (
            "../outside",
            str(outside),
            "",
            ".",
            "..",
            "a\0b",
            "link",
            "no/such",
            "x" * 9999,
        ):
            try:
                models.LoadModel(pb.LoadModelRequest(bundle=name), timeout=SECONDS)
                report.fail(f"loaded {name!r}")
            except grpc.RpcError as error:
                allowed = code_of(error) in _REFUSALS
                report.check("" if allowed else f"{name!r}: {words_of(error)}")
        good_call(channel, fixture.oracle, report)
        report.check(_served_beside(server, fixture.oracle.versions[:1]))
    return report


_REFUSALS = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}


@contextmanager
def channel_within(fixture: FaultFixture, folder: Path) -> Iterator[tuple[Launched, grpc.Channel]]:
    """Runs a server with a folder of models, and connects to it."""
    folder.mkdir()
    with (
        fixture.serving("--models-folder", folder) as server,
        channel_to(server.address) as channel,
    ):
        yield server, channel
