"""Builds a Dockerfile's stages without Docker, in plain folders.

The base image python:... is a fresh virtual environment of this Python, at usr/local. Absolute
paths of a step lie below the stage's folder; a step that names a file of the base image is refused.
Only what our own Dockerfile uses is understood: anything else is an error.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import venv
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

_ABSOLUTE = re.compile(r"""(?:(?<=[\s"'=:])|^)/(?=\w)""")
_OF_THE_BASE = re.compile(r"""(?:(?<=[\s"'=:])|^)/(?:bin|dev|etc|lib|proc|sys|usr|var)\b""")
_SYSTEM_PATH = "/usr/bin:/bin"


class DockerfileError(Exception):
    """A step is not understood, or failed; the message names its line."""


@dataclass(frozen=True)
class Step:
    """One instruction, e.g. `COPY serve serve`, and the line where it begins."""

    name: str
    text: str
    line: int


@dataclass
class Image:
    """What a stage has come to.

    Attributes:
        root: The folder that is its file system.
        environment: Variables of its processes.
        arguments: Variables of its build alone.
        labels: Facts about it.
        workdir: Where its processes start, below the root.
        user: Who runs them; empty for root.
        ports: Ports it listens on.
        stop_signal: Name of the signal that stops it.
        healthcheck: Shell command that tells whether it is well.
        entrypoint: What it runs.
    """

    root: Path
    environment: dict[str, str]
    arguments: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    workdir: Path = Path("/")
    user: str = ""
    ports: tuple[int, ...] = ()
    stop_signal: str = "SIGTERM"
    healthcheck: str = ""
    entrypoint: tuple[str, ...] = ()


def parse(text: str) -> list[Step]:
    """Returns the steps of a Dockerfile.

    Raises:
        DockerfileError: An instruction is unknown.
    """
    steps, begun, at = [], "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or not line.strip():
            continue
        at = at if begun else number
        begun += line.strip()
        if begun.endswith("\\"):
            begun = begun[:-1]
            continue
        name, _, rest = begun.partition(" ")
        if name not in _RUNNERS:
            raise DockerfileError(f"line {at}: {name} is not understood")
        steps.append(Step(name, rest.strip(), at))
        begun = ""
    return steps


def build(dockerfile: Path, context: Path, folder: Path) -> Image:
    """Runs all steps and returns the last stage; the others are gone, as in what Docker ships.

    Args:
        dockerfile: Its steps.
        context: The folder that files are copied from.
        folder: An empty folder to build in.

    Raises:
        DockerfileError: A step is not understood, or failed.
    """
    builder = _Builder(context, folder)
    for step in parse(dockerfile.read_text(encoding="utf-8")):
        try:
            _RUNNERS[step.name](builder, step.text)
        except DockerfileError as error:
            raise DockerfileError(f"{dockerfile}:{step.line}: {step.name}: {error}") from None
    shutil.rmtree(builder.stages, ignore_errors=True)
    return builder.image


def placed(text: str, root: Path) -> str:
    """Returns a text with the absolute paths in it put below a root.

    Raises:
        DockerfileError: A path is one of the base image.
    """
    if found := _OF_THE_BASE.search(text):
        raise DockerfileError(f"{found[0]} is of the base image, which there is not here")
    return _ABSOLUTE.sub(f"{root}/".replace("\\", r"\\"), text)


class _Builder:
    """Runs steps one by one. All stages have their root at one place: scripts name it."""

    def __init__(self, context: Path, folder: Path) -> None:
        self.stages = folder / "stages"
        self._context = context
        self._root = folder / "root"
        self._base = folder / "base"
        self._name = ""
        self.image = Image(self._root, {})

    def begin(self, text: str) -> None:
        match text.split():
            case [image]:
                name = ""
            case [image, "AS", name]:
                pass
            case _:
                raise DockerfileError(f"{text!r} is not understood")
        if not image.startswith("python:"):
            raise DockerfileError(f"{image} is no image of Python")
        if self._root.exists():
            self._root.rename(_made(self.stages) / (self._name or "unnamed"))
        self._name = name
        self._lay_base()
        path = f"{self._root}/usr/local/bin:{_SYSTEM_PATH}"
        self.image = Image(self._root, {"PATH": path})

    def run(self, text: str) -> None:
        # The package index is the machine's own affair; all else is the image's.
        own = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        variables = own | self.image.arguments | self.image.environment
        command = ["sh", "-ec", placed(text, self._root)]
        place = self._below(self.image.workdir)
        done = subprocess.run(
            command, cwd=place, env=variables, capture_output=True, text=True, check=False
        )
        if done.returncode:
            told = (done.stdout + done.stderr).strip()[-2000:]
            raise DockerfileError(f"ended with status {done.returncode}:\n{told}")

    def copy(self, text: str) -> None:
        words = shlex.split(self._expanded(text))
        stage = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else None
        *sources, target = words
        place = self._below(self.image.workdir / target)
        for name in sources:
            source = self._context / name if stage is None else self._of_stage(stage, name)
            _copy(source, place, into=target.endswith("/"), fresh=stage is None)

    def set_environment(self, text: str) -> None:
        self.image.environment |= self._pairs(placed(text, self._root))

    def set_arguments(self, text: str) -> None:
        self.image.arguments |= self._pairs(text)

    def set_labels(self, text: str) -> None:
        self.image.labels |= self._pairs(text)

    def set_workdir(self, text: str) -> None:
        self.image.workdir /= text
        self._below(self.image.workdir).mkdir(parents=True, exist_ok=True)

    def set_user(self, text: str) -> None:
        self.image.user = text

    def set_ports(self, text: str) -> None:
        self.image.ports = tuple(map(int, text.split()))

    def set_stop_signal(self, text: str) -> None:
        self.image.stop_signal = text

    def set_healthcheck(self, text: str) -> None:
        options, found, command = text.partition("CMD ")
        if not found or command.startswith("[") or not re.fullmatch(r"(--[\w-]+=\w+ +)*", options):
            raise DockerfileError(f"{text!r} is not understood")
        self.image.healthcheck = placed(command, self._root)

    def set_entrypoint(self, text: str) -> None:
        try:
            self.image.entrypoint = tuple(map(str, json.loads(text)))
        except json.JSONDecodeError:
            raise DockerfileError(f"{text!r} is no JSON list") from None

    def _lay_base(self) -> None:
        """Gives the stage a Python as fresh as the image's."""
        place = self._root / "usr" / "local"
        if not self._base.exists():
            venv.create(place, with_pip=True)
            shutil.copytree(place, self._base, symlinks=True)
        else:
            shutil.copytree(self._base, place, symlinks=True)
        (self._root / "tmp").mkdir()

    def _below(self, path: Path) -> Path:
        return self._root / path.relative_to("/")

    def _of_stage(self, stage: str, name: str) -> Path:
        folder = self.stages / stage
        if not folder.is_dir():
            raise DockerfileError(f"there is no stage {stage}")
        return folder / Path(name).relative_to("/")

    def _expanded(self, text: str) -> str:
        try:
            return Template(text).substitute(self.image.arguments | self.image.environment)
        except KeyError as error:
            raise DockerfileError(f"{error} is not set") from None

    def _pairs(self, text: str) -> dict[str, str]:
        words = shlex.split(self._expanded(text))
        if bare := [word for word in words if "=" not in word]:
            raise DockerfileError(f"{bare[0]!r} has no value")
        return dict(word.split("=", 1) for word in words)


_RUNNERS = {
    "FROM": _Builder.begin,
    "RUN": _Builder.run,
    "COPY": _Builder.copy,
    "ENV": _Builder.set_environment,
    "ARG": _Builder.set_arguments,
    "LABEL": _Builder.set_labels,
    "WORKDIR": _Builder.set_workdir,
    "USER": _Builder.set_user,
    "EXPOSE": _Builder.set_ports,
    "STOPSIGNAL": _Builder.set_stop_signal,
    "HEALTHCHECK": _Builder.set_healthcheck,
    "ENTRYPOINT": _Builder.set_entrypoint,
}


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _copy(source: Path, target: Path, *, into: bool, fresh: bool) -> None:
    """Copies a file, or what is in a folder; byte code of the checkout is left behind."""
    if source.is_dir():
        ignored = shutil.ignore_patterns("__pycache__") if fresh else None
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True, ignore=ignored)
    elif source.is_file():
        place = target / source.name if into else target
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, place)
    else:
        raise DockerfileError(f"{source} does not exist")
