"""Certificates made for a test."""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LIFE = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key."""

    made: x509.Certificate
    secret: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.made.public_bytes(serialization.Encoding.PEM)

    @property
    def key(self) -> bytes:
        return self._key(serialization.NoEncryption())

    @property
    def locked_key(self) -> bytes:
        """The key behind a password."""
        return self._key(serialization.BestAvailableEncryption(b"password"))

    def _key(self, encryption: serialization.KeySerializationEncryption) -> bytes:
        return self.secret.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )

    def write(self, folder: Path) -> tuple[str, str]:
        """Writes certificate and key, over whatever is there; returns their paths."""
        certificate, key = folder / "server.pem", folder / "server.key"
        for path, data in ((certificate, self.pem), (key, self.key)):
            aside = path.with_suffix(".new")
            aside.write_bytes(data)
            aside.replace(path)
        return str(certificate), str(key)


def authority(name: str = "authority") -> Certificate:
    return _make(name, None)


def signed(by: Certificate, name: str) -> Certificate:
    """Returns a certificate for 127.0.0.1, which clients can use as well."""
    return _make(name, by)


def _make(name: str, by: Certificate | None) -> Certificate:
    secret = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if by is None else by.made.subject)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - LIFE)
        .not_valid_after(now + LIFE)
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(secret if by is None else by.secret, hashes.SHA256())
    )
    return Certificate(made, secret)
