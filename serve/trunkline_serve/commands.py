"""The commands of this room: `trunkline serve` and `trunkline bench`."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from trunkline.errors import ConfigError
from trunkline.options import path
from trunkline_serve.bench.command import bench
from trunkline_serve.host import run
from trunkline_serve.loading import bundles_in
from trunkline_serve.observe.logs import set_up_logs
from trunkline_serve.preflight import check_settings
from trunkline_serve.settings import Settings
from trunkline_serve.sources import add_settings, as_toml, read_sources

__all__ = ["bench", "serve"]

_log = logging.getLogger("trunkline_serve")


def serve(argv: Sequence[str]) -> int:
    """Serves bundles until SIGTERM or SIGINT; returns the exit status.

    Prints `serving NAME version N on HOST:PORT` per model to stdout when ready.

    Raises:
        BundleError: A bundle is broken, fails its self-test, or is given twice.
        ConfigError: A setting makes no sense, or the address cannot be listened on.
    """
    given = _parser().parse_args(argv)
    sourced = read_sources(given, os.environ)
    if given.print_config:
        print(as_toml(sourced))
        return 0
    _check_something_to_serve(given.bundles, sourced.settings)
    check_settings(sourced.settings)
    set_up_logs(sourced.settings.log)
    _tell_if_nothing_is_served(given.bundles, sourced.settings)
    run(given.bundles, sourced.settings)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "trunkline serve",
        description="Serve bundles over gRPC.",
        epilog="A flag goes over an environment variable, that over the file, that over the"
        " default. --print-config shows what is in force, and where it comes from.",
    )
    parser.add_argument("bundles", nargs="*", type=path, metavar="BUNDLE")
    add_settings(parser)
    return parser


def _check_something_to_serve(bundles: Sequence[Path], settings: Settings) -> None:
    if not bundles and settings.models.folder is None:
        raise ConfigError(
            "nothing to serve; name a bundle, or a folder of bundles with --models-folder"
        )


def _tell_if_nothing_is_served(bundles: Sequence[Path], settings: Settings) -> None:
    """Warns of a server that has a folder of models and serves none of them by itself."""
    folder, seconds = settings.models.folder, settings.models.watch_seconds
    if bundles or folder is None:
        return
    count = len(bundles_in(Path(folder)))
    if seconds:
        mend = f"those in {folder} (now {count}) are served once they were looked at"
    else:
        mend = (
            f"{folder} holds {count}: ask for them by LoadModel, name them as BUNDLE, or have the "
            "folder watched (--models-watch-seconds)"
        )
    _log.warning("no model is served yet; %s", mend)
