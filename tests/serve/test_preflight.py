"""What is wrong with settings is told before models are loaded."""

import os
import socket
from pathlib import Path

import pytest

from trunkline.cli import main
from trunkline.errors import ConfigError
from trunkline_serve import commands
from trunkline_serve.preflight import check_settings
from trunkline_serve.settings import Auth, Compute, Listen, Metrics, Models, Settings, Tls


@pytest.fixture
def taken() -> socket.socket:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_port_that_is_taken_is_told(taken: socket.socket) -> None:
    port = taken.getsockname()[1]
    for settings in (
        Settings(listen=Listen(port=port)),
        Settings(listen=Listen(port=0), metrics=Metrics(port=port)),
    ):
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}"):
            check_settings(settings)


@pytest.mark.parametrize("host", ["192.0.2.1", "a name", "no.such.host.invalid"])
def test_a_host_of_another_machine_is_told(host: str) -> None:
    with pytest.raises(ConfigError, match=r"listen|host"):
        check_settings(Settings(listen=Listen(host=host, port=0)))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "::1", "[::1]"])
def test_a_host_of_this_machine_will_do(host: str) -> None:
    if ":" in host and not _has_six():
        pytest.skip("needs IPv6")
    check_settings(Settings(listen=Listen(host=host, port=0)))


def _has_six() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (Settings(auth=Auth("none.toml")), "auth.tokens: cannot read none.toml"),
        (Settings(tls=Tls("none.pem", "none.key")), "tls.certificate: cannot read none.pem"),
        (Settings(compute=Compute(device="gpu")), "device: unknown 'gpu'"),
        (Settings(models=Models("/nope")), "models.folder: /nope: No such file or directory"),
        (Settings(models=Models("/dev/null")), "models.folder: /dev/null: Not a directory"),
    ],
)
def test_files_and_devices_are_looked_at(settings: Settings, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_settings(settings)
    assert str(caught.value).startswith(told)


def test_the_command_loads_nothing_before(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def load(*_: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(commands, "run", load)
    tokens = tmp_path / "tokens.toml"
    tokens.write_text("[[token]]\n")
    os.chmod(tokens, 0o600)
    assert main(["serve", str(bundle), "--auth-tokens", str(tokens)]) == 2
    assert "auth.tokens" in capsys.readouterr().err


def test_a_bundle_is_no_folder_of_models(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", "0", "--models-folder", str(bundle)]) == 2
    told = capsys.readouterr().err
    assert f"models.folder: {bundle} is a bundle" in told
    assert f"give the folder that holds it, {bundle.parent}" in told


def test_a_server_without_a_model_says_so(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "tiny").symlink_to(bundle)
    monkeypatch.setattr(commands, "run", lambda *given: None)
    monkeypatch.setattr(commands, "set_up_logs", lambda *given: None)
    line = ["serve", "--port", "0", "--models-folder", str(tmp_path)]
    assert main(line) == 0
    assert "no model is served yet" in caplog.text
    assert "holds 1: ask for them by LoadModel" in caplog.text
    assert main([*line, "--models-watch-seconds", "1"]) == 0
    assert "(now 1) are served" in caplog.text
    caplog.clear()
    assert main([*line, str(bundle)]) == 0
    assert not caplog.text
