"""The commands of this room: `trunkline serve` and `trunkline bench`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import logging
import signal
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import trunkline
from trunkline import Model
from trunkline.options import add_graph_options, graph_options
from trunkline_serve.bench.command import bench
from trunkline_serve.engine import Engine
from trunkline_serve.rpc.server import Server
from trunkline_serve.settings import Settings

__all__ = ["bench", "serve"]

_log = logging.getLogger("trunkline_serve")


def serve(argv: Sequence[str]) -> int:
    """Serves bundles until SIGTERM or SIGINT; returns the exit status.

    Prints `serving NAME version N on HOST:PORT` per model to stdout when ready.

    Raises:
        BundleError: A bundle is broken, fails its self-test, or is given twice.
        ConfigError: A limit makes no sense, or the address cannot be listened on.
    """
    given = _parser().parse_args(argv)
    names = {one.name for one in dataclasses.fields(Settings)}
    settings = Settings(**{name: value for name, value in vars(given).items() if name in names})
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    models = [_load(bundle, settings.threads, given) for bundle in given.bundles]
    asyncio.run(_serve(models, settings))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("trunkline serve", description="Serve bundles over gRPC.")
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    for name, kind in typing.get_type_hints(Settings).items():
        option = next(one for one in dataclasses.fields(Settings) if one.name == name)
        about = option.metadata["help"]
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=int if kind == int | None else kind,
            default=option.default,
            metavar="HOST" if kind is str else "N",
            help=about if option.default is None else f"{about} (default: {option.default})",
        )
    parser.add_argument(
        "--no-self-test",
        dest="self_test",
        action="store_false",
        help="be ready sooner, without analysing the bundle's golden texts first",
    )
    add_graph_options(parser)
    return parser


def _load(bundle: Path, threads: int | None, given: argparse.Namespace) -> Model:
    model = trunkline.load(bundle, threads, **graph_options(given))
    _log.info("%s: runs %s", bundle, model.graph.name)
    if given.self_test:
        _log.info("%s: %d golden texts as expected", bundle, model.self_test())
    return model


async def _serve(models: Sequence[Model], settings: Settings) -> None:
    with contextlib.closing(Engine(models, settings)) as engine:
        server = Server(engine)
        stopped = _stop_on_signal()
        address = await server.start()
        for model in engine.models:
            name, version = model.manifest.name, model.manifest.version
            print(f"serving {name} version {version} on {address}", flush=True)
        await stopped.wait()
        await server.stop()


def _stop_on_signal() -> asyncio.Event:
    """Returns an event that the first SIGTERM or SIGINT sets; a second one kills as usual."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        loop.call_soon_threadsafe(stopped.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return stopped
