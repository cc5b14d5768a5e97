import ssl
from pathlib import Path

import grpc
import pytest
from cryptography import x509

from tests.serve.hosting import PATIENCE, Loop
from tests.serve.security.certificates import Certificate, authority, signed
from tests.serve.security.echo import ECHO, echoing
from trunkline.errors import ConfigError
from trunkline_serve.security.tls import server_credentials
from trunkline_serve.settings import Tls


@pytest.fixture(scope="module")
def ca() -> Certificate:
    return authority()


def ask(port: int, ca: Certificate, client: Certificate | None = None) -> bytes:
    """Calls over a new connection."""
    key, chain = (None, None) if client is None else (client.key, client.pem)
    credentials = grpc.ssl_channel_credentials(ca.pem, key, chain)
    # Channels of one process to one address share a connection otherwise.
    alone = (("grpc.use_local_subchannel_pool", 1),)
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, alone) as channel:
        answer: bytes = channel.unary_unary(ECHO)(b"hello", timeout=PATIENCE)
    return answer


def served_serial(port: int) -> int:
    """Returns the serial number of the certificate that a new connection is shown."""
    pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=PATIENCE)
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def test_clients_that_know_the_authority_are_answered(
    host: Loop, ca: Certificate, tmp_path: Path
) -> None:
    with echoing(host, server_credentials(Tls(*signed(ca, "server").write(tmp_path)))) as port:
        assert ask(port, ca) == b"hello"
        with pytest.raises(grpc.RpcError) as caught:
            ask(port, authority("stranger"))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        with (
            grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
            pytest.raises(grpc.RpcError),
        ):
            channel.unary_unary(ECHO)(b"plain", timeout=PATIENCE)


def test_mutual_tls_lets_in_only_clients_of_the_authority(
    host: Loop, ca: Certificate, tmp_path: Path
) -> None:
    clients = authority("clients")
    (tmp_path / "clients.pem").write_bytes(clients.pem)
    tls = Tls(*signed(ca, "server").write(tmp_path), str(tmp_path / "clients.pem"))
    with echoing(host, server_credentials(tls)) as port:
        assert ask(port, ca, signed(clients, "client")) == b"hello"
        for stranger in (None, signed(ca, "client")):
            with pytest.raises(grpc.RpcError) as caught:
                ask(port, ca, stranger)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_new_certificate_is_used_without_a_restart(
    host: Loop, ca: Certificate, tmp_path: Path
) -> None:
    first, second = signed(ca, "server"), signed(ca, "server")
    with echoing(host, server_credentials(Tls(*first.write(tmp_path)))) as port:
        assert served_serial(port) == first.made.serial_number
        credentials = grpc.ssl_channel_credentials(ca.pem)
        with grpc.secure_channel(f"127.0.0.1:{port}", credentials) as old:
            assert old.unary_unary(ECHO)(b"before", timeout=PATIENCE) == b"before"
            second.write(tmp_path)
            assert served_serial(port) == second.made.serial_number
            assert ask(port, ca) == b"hello"
            assert old.unary_unary(ECHO)(b"after", timeout=PATIENCE) == b"after"


def test_certificates_may_change_many_times(host: Loop, ca: Certificate, tmp_path: Path) -> None:
    with echoing(host, server_credentials(Tls(*signed(ca, "server").write(tmp_path)))) as port:
        for _ in range(10):
            certificate = signed(ca, "server")
            certificate.write(tmp_path)
            assert served_serial(port) == certificate.made.serial_number


def test_new_authorities_of_clients_replace_the_old_ones(
    host: Loop, ca: Certificate, tmp_path: Path
) -> None:
    old, new = authority("old"), authority("new")
    file = tmp_path / "clients.pem"
    file.write_bytes(old.pem)
    with echoing(
        host, server_credentials(Tls(*signed(ca, "server").write(tmp_path), str(file)))
    ) as port:
        assert ask(port, ca, signed(old, "client")) == b"hello"
        file.write_bytes(b"# ours\n" + new.pem)
        assert ask(port, ca, signed(new, "client")) == b"hello"
        with pytest.raises(grpc.RpcError):
            ask(port, ca, signed(old, "client"))


@pytest.mark.parametrize("fault", ["garbage", "half", "empty", "other key", "missing"])
def test_a_bad_new_certificate_keeps_the_old_one_and_says_so_once(
    host: Loop, ca: Certificate, tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = signed(ca, "server"), signed(ca, "server")
    with echoing(host, server_credentials(Tls(*first.write(tmp_path)))) as port:
        file = tmp_path / "server.pem"
        match fault:
            case "garbage":
                file.write_bytes(b"not a certificate")
            case "half":
                file.write_bytes(second.pem[: len(second.pem) // 2])
            case "empty":
                file.write_bytes(b"")
            case "other key":
                file.write_bytes(second.pem)
            case "missing":
                file.unlink()
        for _ in range(3):
            assert served_serial(port) == first.made.serial_number
        (record,) = caplog.records
        assert record.getMessage().endswith("what was read before stays in force")
        assert str(file) in record.getMessage()
        assert len(record.getMessage().splitlines()) == 1
        second.write(tmp_path)
        assert served_serial(port) == second.made.serial_number


def write(folder: Path, **files: bytes | None) -> Tls:
    """Writes the files that are not None; returns settings that name all."""
    for name, data in files.items():
        if data is not None:
            (folder / name).write_bytes(data)
    return Tls(**{name: str(folder / name) for name in files})


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no certificate", "tls.certificate: cannot read"),
        ("no key", "tls.key: cannot read"),
        ("no authorities", "tls.client_ca: cannot read"),
        ("certificate is garbage", "give a PEM certificate chain and the key of its first"),
        ("key is garbage", "give a PEM certificate chain and the key of its first"),
        ("key of another", "key values mismatch"),
        ("key behind a password", "without a password"),
        ("authorities are garbage", "give PEM certificates of authorities"),
        ("authorities are empty", "give PEM certificates of authorities"),
    ],
)
def test_bad_files_at_the_start_are_one_line(
    ca: Certificate, tmp_path: Path, fault: str, message: str
) -> None:
    server = signed(ca, "server")
    files: dict[str, bytes | None] = {
        "certificate": server.pem,
        "key": server.key,
        "client_ca": ca.pem,
    }
    changes: dict[str, dict[str, bytes | None]] = {
        "no certificate": {"certificate": None},
        "no key": {"key": None},
        "no authorities": {"client_ca": None},
        "certificate is garbage": {"certificate": b"-----BEGIN CERTIFICATE-----\nx\n"},
        "key is garbage": {"key": b"\xff\xfe"},
        "key of another": {"key": signed(ca, "other").key},
        "key behind a password": {"key": server.locked_key},
        "authorities are garbage": {"client_ca": b"\xff\xfe\x00"},
        "authorities are empty": {"client_ca": b""},
    }
    with pytest.raises(ConfigError, match=message) as caught:
        server_credentials(write(tmp_path, **(files | changes[fault])))
    assert len(str(caught.value).splitlines()) == 1
