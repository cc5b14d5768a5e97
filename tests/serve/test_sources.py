import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serve.hosting import settings as settings_of
from trunkline.errors import ConfigError
from trunkline.structure import plain
from trunkline_serve.commands import serve
from trunkline_serve.settings import Limits, Settings
from trunkline_serve.sources import (
    Leaf,
    add_settings,
    as_toml,
    leaves,
    read_settings,
    read_sources,
)

# What existed before there was a tree, and what scripts may hold.
OLD_FLAGS = [
    "--host",
    "--port",
    "--threads",
    "--max-text-bytes",
    "--max-documents",
    "--max-questions",
    "--max-message-bytes",
    "--max-in-flight",
    "--batch-tokens",
    "--drain-seconds",
    "--no-self-test",
    "--graph",
    "--allow-ungated",
]

TOP = "drain_seconds"  # the one setting without a section


def parsed(*arguments: str | Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_settings(parser)
    return parser.parse_args(list(map(str, arguments)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "server.toml"
    path.write_text('drain_seconds = 5\n[limits]\nmax_documents = 10\n[log]\nlevel = "debug"\n')
    return path


def test_without_sources_there_are_the_defaults() -> None:
    assert read_settings(parsed(), {}) == Settings()


def test_a_file_fills_the_tree(file: Path) -> None:
    found = read_settings(parsed("--config", file), {})
    assert found == settings_of(drain_seconds=5.0, max_documents=10, level="debug")


def test_the_file_may_come_from_any_editor(file: Path) -> None:
    text = file.read_text().replace("\n", "\r\n")
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = read_settings(parsed("--config", file), {})
    assert found == settings_of(drain_seconds=5.0, max_documents=10, level="debug")


def test_flags_go_over_variables_over_the_file_over_defaults(file: Path) -> None:
    environ = {"TRUNKLINE_LIMITS_MAX_DOCUMENTS": "20", "TRUNKLINE_DRAIN_SECONDS": "6"}
    found = read_sources(parsed("--config", file, "--max-documents", "30"), environ)
    assert found.settings == settings_of(max_documents=30, drain_seconds=6.0, level="debug")
    assert found.origins == {
        "limits.max_documents": "--max-documents",
        "drain_seconds": "TRUNKLINE_DRAIN_SECONDS",
        "log.level": f"file {file}",
    }


def test_a_flag_can_take_back_what_a_variable_says() -> None:
    environ = {"TRUNKLINE_COMPUTE_ALLOW_UNGATED": "true", "TRUNKLINE_COMPUTE_SELF_TEST": "0"}
    assert read_settings(parsed(), environ).compute.allow_ungated
    assert not read_settings(parsed(), environ).compute.self_test
    found = read_settings(parsed("--no-allow-ungated", "--self-test"), environ)
    assert found == Settings()


def test_an_empty_variable_counts_as_not_set() -> None:
    assert read_settings(parsed(), {"TRUNKLINE_METRICS_PORT": ""}) == Settings()


def test_variables_of_others_do_not_matter() -> None:
    assert read_settings(parsed(), {"HOME": "/", "TRUNKLINES": "2"}) == Settings()


def test_settings_that_only_work_together_may_come_from_several_sources(file: Path) -> None:
    file.write_text('[tls]\ncertificate = "server.pem"\n')
    found = read_settings(parsed("--config", file), {"TRUNKLINE_TLS_KEY": "key.pem"})
    assert (found.tls.certificate, found.tls.key) == ("server.pem", "key.pem")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("TRUNKLINE_LIMITS_MAX_DOCUMENT", "1", "did you mean TRUNKLINE_LIMITS_MAX_DOCUMENTS?"),
        ("TRUNKLINE_LIMITS_", "", "no such setting"),
        ("TRUNKLINE_SERVICE_HOST", "10.0.0.1", "no such setting"),
        ("TRUNKLINE_LISTEN_PORT", "high", "expected int, got 'high'"),
        ("TRUNKLINE_DRAIN_SECONDS", "long", "expected float, got 'long'"),
        ("TRUNKLINE_LOG_CALLS", "perhaps", "expected true or false, got 'perhaps'"),
        ("TRUNKLINE_LOG_LEVEL", "loud", "expected one of debug, info, warning, error"),
    ],
)
def test_a_wrong_variable_is_named_in_one_line(name: str, value: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_settings(parsed(), {name: value})
    assert str(caught.value).startswith(f"{name}: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[limits]\nmax_document = 1", "limits.max_document: unknown key (did you mean 'max_docum"),
        ("[limit]\nmax_documents = 1", "limit: unknown key (did you mean 'limits'?)"),
        ("limits = 3", "limits: expected a table, got int 3"),
        ('[listen]\nport = "50051"', "listen.port: expected int, got str '50051'"),
        ("[log]\ncalls = 1", "log.calls: expected bool, got int 1"),
        ('[log]\nlevel = "loud"', "log.level: expected one of 'debug', 'info', 'warning', 'error'"),
        ("[log", "is not valid TOML"),
        ("# \udcff", "is not valid TOML"),
    ],
)
def test_a_wrong_file_is_named_with_the_key(file: Path, text: str, told: str) -> None:
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        read_settings(parsed("--config", file), {"TRUNKLINE_LIMITS_MAX_QUESTIONS": "2"})
    assert str(caught.value).startswith(f"{file}: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        read_settings(parsed("--config", tmp_path / "none.toml"), {})


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--port=99999", "listen.port: 99999 is too large; give at most 65535 (from --port)"),
        ("--port=-1", "listen.port: -1 is too small; give at least 0"),
        ("--metrics-port=65536", "metrics.port: 65536 is too large; give at most 65535"),
        ("--max-message-bytes=2147483648", "limits.max_message_bytes: 2147483648 is too large"),
        ("--drain-seconds=inf", "drain_seconds: must be a finite number, not inf (from"),
        ("--drain-seconds=nan", "drain_seconds: must be a finite number, not nan (from"),
        (
            f"--port={10**30}",
            "listen.port: expected a number of 64 bits, got one of 31 digits (from",
        ),
        ("--tracing-share=2", "tracing.share: 2.0 is too large; give at most 1"),
        ("--host=", "listen.host: is empty; give a value, or leave it out"),
        ("--auth-tokens=", "auth.tokens: is empty"),
    ],
)
def test_what_could_not_be_is_refused(flag: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_settings(parsed(flag), {})
    assert str(caught.value).startswith(told)


def test_the_token_of_clients_is_no_setting() -> None:
    assert read_settings(parsed(), {"TRUNKLINE_TOKEN": "secret"}) == Settings()


def test_a_value_out_of_range_is_told_with_its_origin(file: Path) -> None:
    file.write_text("[limits]\nmax_documents = 0\n")
    with pytest.raises(ConfigError, match=r"^limits\.max_documents: .*\(from file .*server\.toml"):
        read_settings(parsed("--config", file), {})
    with pytest.raises(ConfigError, match=r"\(from TRUNKLINE_LIMITS_MAX_QUESTIONS\)$"):
        read_settings(parsed(), {"TRUNKLINE_LIMITS_MAX_QUESTIONS": "0"})
    with pytest.raises(ConfigError, match=r"\(from --threads\)$"):
        read_settings(parsed("--threads", "0"), {})


def test_each_setting_has_a_flag_a_variable_and_a_key_of_its_own() -> None:
    for names in ("flag", "variable", "path"):
        given = [getattr(leaf, names) for leaf in leaves()]
        assert len(set(given)) == len(given)


def test_every_field_of_the_tree_is_a_setting() -> None:
    tree = plain(Settings())
    paths = {f"{name}.{key}" for name, section in tree.items() if name != TOP for key in section}
    assert {leaf.path for leaf in leaves()} == paths | {TOP}


@pytest.mark.parametrize("flag", OLD_FLAGS)
def test_flags_keep_their_names(flag: str) -> None:
    value = [] if flag in {"--no-self-test", "--allow-ungated"} else ["7"]
    given = vars(parsed(flag, *value))
    assert len(given.keys() - vars(parsed()).keys()) == 1


LEAST = {"max_in_flight": 256, "max_held_bytes": 4 * Limits().max_message_bytes}
"""What must be enough for the greatest values, or the defaults, of others."""


def values_of(leaf: Leaf) -> st.SearchStrategy[object]:
    if leaf.choices:
        return st.sampled_from(leaf.choices)
    # A call with as many documents as are permitted must fit in.
    if leaf.name == "share":
        return st.sampled_from([0.0, 0.25, 1.0])
    counts = st.integers(1, 256)
    if leaf.name in LEAST:
        counts = st.integers(LEAST[leaf.name], 2 * LEAST[leaf.name])
    # Python 3.11 loses a value that is `--`.
    texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
    texts = texts.filter(lambda text: text != "--")
    kinds: dict[type, st.SearchStrategy[object]] = {
        int: counts,
        float: st.floats(0.001, 1e9),
        bool: st.booleans(),
        str: texts,
    }
    return kinds[leaf.kind]


def together(tree: dict[Leaf, object]) -> dict[Leaf, object]:
    """Fills up the section of which parts alone are refused."""
    given = {leaf.section for leaf in tree}
    return {leaf: "x" for leaf in leaves() if leaf.section == "tls" and "tls" in given} | tree


TREES = st.fixed_dictionaries({}, optional={leaf: values_of(leaf) for leaf in leaves()})


@settings(
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
)
@given(TREES.map(together))
def test_what_is_printed_can_be_read_back(tmp_path: Path, tree: dict[Leaf, object]) -> None:
    first = read_sources(parsed(*(_flag(leaf, value) for leaf, value in tree.items())), {})
    file = tmp_path / "printed.toml"
    file.write_text(as_toml(first), encoding="utf-8", newline="")
    second = read_sources(parsed("--config", file), {})
    assert second.settings == first.settings
    assert second.origins.keys() >= first.origins.keys()


def _flag(leaf: Leaf, value: object) -> str:
    if isinstance(value, bool):
        return leaf.flag if value else f"--no-{leaf.flag.removeprefix('--')}"
    return f"{leaf.flag}={value}"


def test_the_command_prints_the_settings_and_their_origins(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRUNKLINE_METRICS_PORT", "9090")
    assert serve(["--config", str(file), "--port", "0", "--print-config"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"max_documents = 10  # file {file}" in lines
    assert "port = 0  # --port" in lines
    assert "port = 9090  # TRUNKLINE_METRICS_PORT" in lines
    assert "max_questions = 64  # default" in lines
    assert "# threads is not set" in lines


def test_a_variable_that_is_unknown_ends_the_command_with_one_line() -> None:
    line = [sys.executable, "-m", "trunkline", "serve", "--print-config"]
    environ = {**os.environ, "TRUNKLINE_LISTEN_PROT": "1"}
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environ)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "trunkline serve: TRUNKLINE_LISTEN_PROT: no such setting"
        " (did you mean TRUNKLINE_LISTEN_PORT?); unset it\n"
    )


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        serve(["--help"])
    shown = capsys.readouterr().out
    assert [leaf.flag for leaf in leaves() if leaf.flag not in shown] == []
