"""Both clients, and certificates."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.serve.client.scripted import CLIENTS, Certificates, Face
from tests.serve.hosting import Loop


@pytest.fixture(params=list(CLIENTS))
def connect(request: pytest.FixtureRequest, host: Loop) -> Callable[..., Any]:
    """Connects a client of each kind, and closes it."""

    @contextmanager
    def connected(address: str, **options: Any) -> Iterator[Face]:
        client = CLIENTS[request.param](host, address, options)
        try:
            yield client
        finally:
            client.close()

    return connected


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    _make(folder, "ca", ["-x509", "-subj", "/CN=tests"])
    for name in ("server", "client"):
        alternative = folder / f"{name}.cnf"
        alternative.write_text("subjectAltName=DNS:trunkline.test,IP:127.0.0.1\n")
        _make(folder, name, ["-subj", f"/CN={name}"], ".csr")
        sign = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"]
        files = ["-in", f"{name}.csr", "-out", f"{name}.pem", "-extfile", alternative.name]
        _openssl(folder, "x509", "-req", *sign, *files)
    return Certificates(folder)


def _make(folder: Path, name: str, options: list[str], suffix: str = ".pem") -> None:
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    files = ["-keyout", f"{name}.key", "-out", f"{name}{suffix}"]
    _openssl(folder, "req", *kind, *files, *options)


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, check=True)
