"""What goes wrong outside: pipes, encodings, disks, missing packages. In processes of their own."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trunkline.cli import COMMANDS

TRUNKLINE = [sys.executable, "-m", "trunkline"]
# What decides on encodings and buffers is the test's to set.
PLAIN = {
    name: value
    for name, value in os.environ.items()
    if name not in ("PYTHONUNBUFFERED", "PYTHONIOENCODING", "PYTHONUTF8")
}


def run(*arguments: str | Path, given: bytes = b"", **environment: str) -> tuple[int, str, str]:
    """Runs the command line; returns status, output and errors."""
    done = subprocess.run(
        [*TRUNKLINE, *arguments],
        input=given,
        capture_output=True,
        check=False,
        env={**PLAIN, **environment},
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


LOCALE = pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C.UTF-8"},
        {"LC_ALL": "C"},
        {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
    ids=["C.UTF-8", "C", "ascii", "latin-1"],
)


@LOCALE
def test_a_line_that_is_not_utf_8_is_named_and_those_before_it_are_answered(
    bundle: Path, locale: dict[str, str]
) -> None:
    given = b"Ada\nBern\n" + "Ada lives in Zürich\n".encode("latin-1") + b"Rome\n"
    status, out, errors = run("predict", bundle, given=given, **locale)
    assert status == 2
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["Ada", "Bern"]
    assert errors == ("trunkline predict: standard input, line 3: is not UTF-8; convert it first\n")


@LOCALE
def test_input_and_output_are_utf_8_in_every_locale(bundle: Path, locale: dict[str, str]) -> None:
    status, out, errors = run("predict", bundle, given="Zürich 😀\n".encode(), **locale)
    assert (status, errors) == (0, "")
    assert json.loads(out)["text"] == "Zürich 😀"


@pytest.mark.parametrize("arguments", [["predict"], ["inspect", "--json"], ["--help"]])
def test_a_reader_that_goes_away_ends_it_quietly(bundle: Path, arguments: list[str]) -> None:
    command = [*TRUNKLINE, *arguments] + ([] if arguments == ["--help"] else [str(bundle)])
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=PLAIN,
    )
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, errors = process.communicate(b"Ada lives in Rome.\n" * 300)
    assert (process.returncode, errors) == (0, b"")


def test_a_reader_that_takes_one_line_gets_it(bundle: Path) -> None:
    process = subprocess.Popen(
        [*TRUNKLINE, "predict", str(bundle)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=PLAIN,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"Ada lives in Rome.\n" * 3000)
    process.stdin.close()
    process.stdin = None
    assert b'"text": "Ada lives in Rome."' in process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    _, errors = process.communicate()
    assert (process.returncode, errors) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_in_one_line(bundle: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*TRUNKLINE, "predict", bundle, "Ada"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("trunkline predict: ")
    assert "No space left" in line


@pytest.mark.parametrize(
    ("arguments", "closed", "status", "errors"),
    [
        (["predict", "{bundle}"], "<&-", 0, ""),
        (["predict", "{bundle}", "Ada"], ">&-", 0, ""),
        (["pedict"], "2>&-", 2, ""),
        (["pedict"], "<&- >&-", 2, "(did you mean 'predict'?)"),
        (["predict", "{bundle}", "Ada"], "<&- >&- 2>&-", 0, ""),
    ],
    ids=["input", "output", "errors", "all but errors", "all"],
)
def test_a_stream_that_is_closed_is_empty(
    bundle: Path, arguments: list[str], closed: str, status: int, errors: str
) -> None:
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *TRUNKLINE]
    words = [one.format(bundle=bundle) for one in arguments]
    done = subprocess.run([*shell, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (status, "")
    assert errors in done.stderr
    assert len(done.stderr.splitlines()) == bool(errors)


def test_what_is_opened_first_does_not_stand_in_for_a_closed_stream() -> None:
    # main() before anything else, as the command has it; then what each descriptor is.
    script = (
        "import os, sys; from trunkline.cli import main; sys.argv = ['trunkline', '-V']; main()\n"
        "file = os.open(sys.executable, os.O_RDONLY)\n"
        "sys.exit(file < 3 or [os.readlink(f'/proc/self/fd/{at}') for at in (0, 1, 2)]"
        " != [os.devnull] * 3)"
    )
    line = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", script]
    assert subprocess.run(line, check=False).returncode == 0


def test_onnxruntime_reports_to_nobody(bundle: Path, tmp_path: Path) -> None:
    # What it is about to send lies in a database of the user's cache.
    plain = {name: value for name, value in PLAIN.items() if name != "ORT_DISABLE_TELEMETRY"}
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    line = [*TRUNKLINE, "predict", bundle, "Ada"]
    subprocess.run(line, env={**plain, **home}, capture_output=True, check=True)
    assert not [path for path in tmp_path.rglob("*") if "onnxruntime" in path.name]


def without(modules: list[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Runs the command line as if packages were not installed."""
    # None in sys.modules makes an import fail so.
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({modules!r}))\n"
        "from trunkline.cli import main\n"
        "sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("command", "module", "extra"),
    [
        ("train", "torch", "train"),
        ("export", "onnx", "export"),
        ("serve", "grpc", "serve"),
        ("bench", "grpc", "serve"),
    ],
)
def test_a_missing_extra_is_named_with_the_command_that_brings_it(
    command: str, module: str, extra: str, tmp_path: Path
) -> None:
    (tmp_path / "ner.train").write_text("Ada B-PER\n")
    (tmp_path / "config.toml").write_text(
        'name = "x"\nencoder = "x"\n'
        '[tasks.ner]\nkind = "token-classification"\ntrain = "ner.train"\ndev = "ner.train"\n'
    )
    status, out, errors = without([module], command, tmp_path / "config.toml")
    assert (status, out) == (2, "")
    told = rf"trunkline {command}: needs {module}, which is not installed: pip install .*"
    assert re.fullmatch(rf"{told}\[{extra}\]'\n", errors)


@pytest.mark.parametrize(
    ("script", "extra"),
    [
        ("from trunkline_serve.client import Client", "client"),
        ("import trunkline_train; trunkline_train.load('.')", "train"),
        ("import trunkline_export.write", "(train|export)"),
    ],
)
def test_python_names_a_missing_extra_too(script: str, extra: str) -> None:
    # Whoever makes it optional catches ImportError.
    lines = (
        "import sys; sys.modules.update(dict.fromkeys(['grpc', 'torch', 'onnx']))",
        f"try: {script}",
        "except ImportError as error: print(type(error).__name__, error)",
    )
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True
    )
    told = rf"MissingExtra needs \w+, which is not installed: pip install .*\[{extra}\]'\n"
    assert re.fullmatch(told, done.stdout)


def test_a_fault_of_an_import_is_not_taken_for_a_missing_extra(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import a_module_that_nobody_has\n")
    environment = {**PLAIN, "PYTHONPATH": str(tmp_path)}
    command = [*TRUNKLINE, "export", "run", "--out", "bundle"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, cwd=tmp_path
    )
    assert done.returncode == 1
    assert "No module named 'a_module_that_nobody_has'" in done.stderr
    assert "pip install" not in done.stderr


def test_health_needs_the_extra_of_the_clients_alone_and_tokens_none() -> None:
    others = ["grpc_reflection", "msgpack", "prometheus_client", "uvloop", "torch"]
    status, out, errors = without(others, "health", "127.0.0.1:1")
    assert (status, errors) == (1, "")
    assert out.startswith(("UNAVAILABLE", "DEADLINE_EXCEEDED"))
    assert without(["grpc", "google", *others], "token", "ci")[0] == 0
    status, _, errors = without(["grpc"], "health", "127.0.0.1:1")
    assert status == 2
    assert errors.rstrip().endswith("[client]'")


def ended(command: str, *, input_: bytes = b"") -> tuple[int, str]:
    """Runs a shell line; returns its status and errors."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        input=input_,
        capture_output=True,
        env=PLAIN,
        check=False,
    )
    return done.returncode, done.stderr.decode()


def test_a_check_is_made_to_its_end_whoever_reads_on(bundle: Path, tmp_path: Path) -> None:
    line = f"{sys.executable} -m trunkline verify {{}} | true"
    assert ended(line.format(bundle)) == (0, "")
    broken = shutil.copytree(bundle, tmp_path / "broken")
    golden = broken / "golden.jsonl"
    golden.write_text(golden.read_text().replace("PER", "LOC"))
    status, errors = ended(line.format(broken))
    assert status == 2
    assert "differs from the hash" in errors


def test_health_says_how_it_is_by_its_status_whoever_reads_on() -> None:
    line = f"{sys.executable} -m trunkline health 127.0.0.1:1 --timeout 1 | true"
    assert ended(line)[0] == 1


def test_the_base_commands_need_no_extra(bundle: Path) -> None:
    extras = ["torch", "transformers", "datasets", "onnx", "grpc", "google.protobuf"]
    for command in ("inspect", "verify"):
        status, _, errors = without(extras, command, bundle)
        assert (status, errors) == (0, "")


def test_only_what_does_nothing_but_print_may_end_early() -> None:
    assert {name for name, one in COMMANDS.items() if one.shows} == {"inspect", "predict", "top"}
