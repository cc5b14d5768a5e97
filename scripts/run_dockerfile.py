"""Builds the Dockerfile's image without Docker, and tries what it would do in production.

    python -m scripts.run_dockerfile BUNDLE

The server runs without privileges in a file system that is read-only but for /tmp. Its health
check, a question and its end by the stop signal must all go well; else the exit status is 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

from scripts.dockerfile import DockerfileError, Image, build
from trunkline_serve.client import Client

_ROOT = Path(__file__).parents[1]
_DOCKERFILE = _ROOT / "deploy" / "docker" / "Dockerfile"
_PATIENCE = 60.0  # seconds
_QUESTION = ("IBM opened an office in Bern.", ["Where is the office?"])
# As `docker run -e`: two images must not meet on a port of this machine.
_GIVEN = {
    "TRUNKLINE_LISTEN_HOST": "127.0.0.1",
    "TRUNKLINE_LISTEN_PORT": "0",
    "TRUNKLINE_METRICS_HOST": "127.0.0.1",
    "TRUNKLINE_METRICS_PORT": "0",
}


class CheckFailed(Exception):
    """The image does not do what it should; the message says what."""


def main(argv: Sequence[str]) -> int:
    """Builds, tries and reports; returns the exit status."""
    parser = argparse.ArgumentParser(description="Run a Dockerfile's steps without Docker.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--dockerfile", type=Path, default=_DOCKERFILE)
    given = parser.parse_args(argv)
    begin = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="trunkline-image-") as folder:
            image = build(given.dockerfile, _ROOT, Path(folder))
            print(f"built in {time.monotonic() - begin:.0f} s", flush=True)
            try_image(image, given.bundle)
    except (CheckFailed, DockerfileError) as error:
        print(f"run_dockerfile: {error}", file=sys.stderr)
        return 1
    return 0


def try_image(image: Image, bundle: Path) -> None:
    """Serves a bundle from an image and prints each check that went well.

    Raises:
        CheckFailed: One did not.
    """
    if image.user.partition(":")[0] in {"", "0", "root"}:
        raise CheckFailed("the image runs as root; give it a USER")
    shutil.copytree(bundle, image.root / "models" / "main")
    with _read_only(image), _served(image) as (process, address):
        _check_read_only(image)
        print("root file system: read-only, but for /tmp")
        print(f"health: {_health(image, address)}")
        print(f"answer: {_ask(address)}")
        process.send_signal(signal.Signals[image.stop_signal])
        status = process.wait(_PATIENCE)
        if status:
            raise CheckFailed(f"{image.stop_signal} ended the server with status {status}")
        print(f"{image.stop_signal}: ended with status 0")


@contextmanager
def _read_only(image: Image) -> Iterator[None]:
    """Takes the write permission from all but /tmp; gives it back, for the folder to be removed."""
    entries = [path for path in (image.root, *image.root.rglob("*")) if not path.is_symlink()]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in entries}
    for path, mode in modes.items():
        path.chmod(mode & ~0o222)
    (image.root / "tmp").chmod(0o1777)
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


@contextmanager
def _served(image: Image) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [*image.entrypoint, str(image.root / "models" / "main")]
    with _start(image, command, _GIVEN) as process, _ended_after(process, _PATIENCE):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("serving "):
                raise CheckFailed("the server did not start; its own message stands above")
            print(line, end="")
            yield process, line.split()[-1]
        finally:
            process.kill()


@contextmanager
def _ended_after(process: subprocess.Popen[str], seconds: float) -> Iterator[None]:
    timer = Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _health(image: Image, address: str) -> str:
    port = {"TRUNKLINE_LISTEN_PORT": address.rpartition(":")[2]}
    with _start(image, ["sh", "-c", image.healthcheck], _GIVEN | port) as process:
        told, _ = process.communicate(timeout=_PATIENCE)
    if process.returncode:
        raise CheckFailed(f"the health check ended with status {process.returncode}: {told}")
    return told.strip()


def _ask(address: str) -> str:
    with Client(address) as client:
        result = client.analyze(*_QUESTION)
    answers = [answer.text for question in result.questions for answer in question.answers]
    if not answers:
        raise CheckFailed("the question has no answer")
    return f"{len(result.tasks)} tasks, best answer {answers[0]!r}"


def _check_read_only(image: Image) -> None:
    for place, permitted in (("opt/trunkline", False), ("models", False), ("tmp", True)):
        with _start(image, ["touch", str(image.root / place / "written")], {}, quiet=True) as one:
            one.wait(_PATIENCE)
        if (one.returncode == 0) != permitted:
            raise CheckFailed(f"/{place}: {'cannot' if permitted else 'can'} be written")


def _start(
    image: Image, command: Sequence[str], given: Mapping[str, str], *, quiet: bool = False
) -> subprocess.Popen[str]:
    # Root may write whatever the permissions say, unless it gives up its capabilities.
    bare = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    return subprocess.Popen(
        [*(bare if os.geteuid() == 0 else []), *command],
        cwd=image.root / image.workdir.relative_to("/"),
        env={**image.environment, **given},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if quiet else None,
        text=True,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
