import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from trunkline_serve import notify


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.settimeout(5.0)
        yield found


def test_a_socket_in_the_file_system_is_told(
    manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    notify.ready()
    notify.stopping()
    assert (manager.recv(64), manager.recv(64)) == (b"READY=1", b"STOPPING=1")


def test_a_socket_with_an_abstract_name_is_told(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"trunkline-test-{os.getpid()}"
    manager.bind(f"\0{name}")
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    notify.ready()
    assert manager.recv(64) == b"READY=1"


def test_without_a_manager_nothing_happens(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify.ready()
    assert caplog.records == []


def test_a_manager_that_is_gone_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify.ready()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "READY=1" in record.getMessage()
