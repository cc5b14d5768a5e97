"""What the runtime knows of the extras, against what pyproject.toml says."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from trunkline import extras
from trunkline.errors import MissingExtra, TrunklineError
from trunkline.extras import BROUGHT, explained, install_command

ROOT = Path(__file__).parents[2]
# Distributions whose modules have another name.
MODULES = {
    "googleapis-common-protos": "google",
    "grpcio": "grpc",
    "grpcio-health-checking": "grpc_health",
    "grpcio-reflection": "grpc_reflection",
    "grpcio-status": "grpc_status",
    "protobuf": "google",
    "optimum-onnx": "optimum",
    "opentelemetry-sdk": "opentelemetry",
    "opentelemetry-exporter-otlp-proto-grpc": "opentelemetry",
    "prometheus-client": "prometheus_client",
}


def test_the_modules_of_all_extras_are_known() -> None:
    given = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    names = {
        re.split(r"[<>=;\[ ]", line)[0]
        for extra, lines in given["project"]["optional-dependencies"].items()
        if extra not in ("dev", "gpu")
        for line in lines
    }
    assert {MODULES.get(name, name) for name in names - {"trunkline"}} == BROUGHT


@pytest.mark.parametrize(
    ("about", "command"),
    [
        (None, "pip install 'trunkline[serve]'"),
        ("no JSON", "pip install 'trunkline[serve]'"),
        (
            {"url": "file:///a%20b/trunkline", "dir_info": {"editable": True}},
            "pip install -e '/a b/trunkline[serve]'",
        ),
        ({"url": "file:///a/trunkline", "dir_info": {}}, "pip install '/a/trunkline[serve]'"),
        (
            {"url": "file:///a/trunkline-1-py3-none-any.whl", "archive_info": {}},
            "pip install '/a/trunkline-1-py3-none-any.whl[serve]'",
        ),
        (
            {"url": "https://host/trunkline.git", "vcs_info": {"vcs": "git"}},
            "pip install 'trunkline[serve] @ git+https://host/trunkline.git'",
        ),
    ],
)
def test_an_extra_is_installed_from_where_trunkline_came_from(
    about: object, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Distribution:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return None if about is None else about if about == "no JSON" else json.dumps(about)

    monkeypatch.setattr(metadata, "distribution", lambda name: Distribution())
    assert install_command("serve") == command


def test_what_is_missing_is_told_from_what_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "grpc" else name)
    found = explained(ModuleNotFoundError("no grpc.aio", name="grpc.aio"), "serve")
    assert isinstance(found, MissingExtra)
    assert isinstance(found, TrunklineError)
    assert (found.module, found.extra) == ("grpc", "serve")
    for error in (
        ModuleNotFoundError("no torch.gone", name="torch.gone"),  # torch is there, and old
        ModuleNotFoundError("no einops", name="einops"),  # of no extra of ours
        ImportError("cannot import name", name="grpc"),
    ):
        assert explained(error, "serve") is error


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_no_page_installs_from_an_index_that_has_no_trunkline(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"pip install (?:-\S+ )*'?trunkline(?![\w.-])[^\n]*", text)


@pytest.mark.parametrize("version", [(2, 7), (3, 10), (3, 11), (3, 13)])
def test_make_says_first_which_python_it_needs(version: tuple[int, int], tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    python = tmp_path / "python"  # another version of it, which could do nothing but say so
    python.write_text(
        f"#!{sys.executable}\nimport sys\nsys.version_info = {(*version, 0)}\n"
        "assert sys.argv[1] == '-c', 'went on'\nexec(sys.argv[2])\n"
    )
    python.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    done = subprocess.run(
        ["make", "setup", f"PYTHON={python}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    told = f"Trunkline needs Python 3.11 or newer, and {python} is {version[0]}.{version[1]}: "
    assert (told in done.stderr) == (version < (3, 11))
    assert ("went on" in done.stderr) == (version >= (3, 11))
