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

from benchmarks.faults.calls import SECONDS, Crowd, channel_to, code_of, good_call, words_of
from benchmarks.faults.tally import Tally
from benchmarks.faults.versions import edit_manifest, write_apart
from benchmarks.faults.world import World
from trunkline.bundle import GOLDEN, MANIFEST, open_bundle, seal
from trunkline.v1 import model_service_pb2 as pb
from trunkline.v1.model_service_pb2_grpc import ModelServiceStub
from trunkline_serve.launch import Launched

_WATCH = 0.05  # seconds
_CALLS = 80  # between two changes
_PROBE = 0.005  # seconds between two looks at the health


def reload(world: World) -> Tally:
    """Replaces the model under load, again and again; no call fails, each names its version."""
    tally = Tally("reload under load")
    with world.folder() as folder, world.serving("--models-folder", folder) as server:
        bundles = [world.copy(at, folder, f"v{at}").name for at in range(len(world.versions))]
        crowd = Crowd(server.address, world.truth, tally)
        with channel_to(server.address) as channel, _probed(channel, tally), crowd.calling():
            models: Any = ModelServiceStub(channel)
            crowd.wait(_CALLS)
            for at in range(max(len(bundles), world.times(6))):
                swap(models, bundles, at, world)
                crowd.wait(_CALLS)
        tally.notes["versions"] = len(crowd.versions)
        unseen = set(world.truth.versions) - crowd.versions
        tally.check(f"versions that never answered: {sorted(unseen)}" if unseen else "")
    return tally


def swap(models: Any, bundles: Sequence[str], at: int, world: World) -> None:
    """Goes to the next version; after the newest, back to the oldest beside it."""
    place = (at + 1) % len(bundles)
    request = pb.LoadModelRequest(bundle=bundles[place], replace=True)
    models.LoadModel(request, timeout=SECONDS)
    if place == 0:
        newest = pb.UnloadModelRequest(
            model=world.truth.name, model_version=world.truth.versions[-1]
        )
        models.UnloadModel(newest, timeout=SECONDS)


@contextmanager
def _probed(channel: grpc.Channel, tally: Tally) -> Iterator[None]:
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
        tally.notes["ms for health at most"] = round(1e3 * slowest[0])


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


def corrupt_bundles(world: World) -> Tally:
    """Puts spoilt bundles into the watched folder under load; then a good one at their place."""
    tally = Tally("corrupt bundle in the watched folder")
    for spoil in SPOILERS:
        with (
            world.folder() as folder,
            world.serving("--models-folder", folder, "--models-watch-seconds", _WATCH) as server,
        ):
            crowd = Crowd(server.address, world.truth, tally, callers=4)
            with crowd.calling():
                _arrive(world, folder, spoil)
                server.await_log("not loaded")
                crowd.wait(_CALLS // 4)
                time.sleep(4 * _WATCH)
                told = server.log.read_text(encoding="utf-8").count("not loaded")
                tally.check(f"{spoil.__name__}: told {told} times" if told != 1 else "")
                tally.check(_served_beside(server, world.truth.versions[:1]))
                _mend(world, folder)
                server.await_log(f"version {world.truth.versions[1]} from")
                crowd.wait(_CALLS // 4)
            unseen = world.truth.versions[1] not in crowd.versions
            tally.check(f"{spoil.__name__}: not served when mended" if unseen else "")
    return tally


def _arrive(world: World, folder: Path, spoil: Callable[[Path], None]) -> None:
    """Makes a spoilt bundle aside and moves it in."""
    aside = world.copy(1, folder, ".arriving")
    spoil(aside)
    aside.rename(folder / "next")


def _mend(world: World, folder: Path) -> None:
    """Copies the good bundle over the spoilt one as `cp` does, but for the manifest, which is last.

    A manifest that comes before its files would be looked at too early, and again when it changes.
    """
    good, target = world.versions[1], folder / "next"
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


def refused_paths(world: World) -> Tally:
    """Asks to load bundles from outside the folder of models; nothing of it is served."""
    tally = Tally("paths that leave the folder of models")
    with (
        world.folder() as scratch,
        channel_within(world, scratch / "inside") as (server, channel),
    ):
        outside = world.copy(1, scratch, "outside")
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
                tally.fail(f"loaded {name!r}")
            except grpc.RpcError as error:
                allowed = code_of(error) in _REFUSALS
                tally.check("" if allowed else f"{name!r}: {words_of(error)}")
        good_call(channel, world.truth, tally)
        tally.check(_served_beside(server, world.truth.versions[:1]))
    return tally


_REFUSALS = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}


@contextmanager
def channel_within(world: World, folder: Path) -> Iterator[tuple[Launched, grpc.Channel]]:
    """Runs a server with a folder of models, and connects to it."""
    folder.mkdir()
    with (
        world.serving("--models-folder", folder) as server,
        channel_to(server.address) as channel,
    ):
        yield server, channel
