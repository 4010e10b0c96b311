"""A certificate of our own for 127.0.0.1: kubectl sends a bearer token over TLS only."""

from __future__ import annotations

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

LIFETIME = datetime.timedelta(days=3650)
# A clock that is set back does not make the certificate invalid, one near its end is made anew.
HEAD_START = datetime.timedelta(days=365)
RENEW_BEFORE = datetime.timedelta(days=30)


@dataclass(frozen=True)
class Certificate:
    """Files: the authority that clients trust, and the server's certificate and key."""

    authority: Path
    certificate: Path
    key: Path


def ensure(folder: Path) -> Certificate:
    """The certificate in `folder`, made if it is not there or near its end. Imports `cryptography` only then."""
    found = Certificate(folder / "ca.crt", folder / "server.crt", folder / "server.key")
    marker = folder / "valid-until"
    try:
        until = datetime.datetime.fromisoformat(marker.read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        until = datetime.datetime.min.replace(tzinfo=datetime.UTC)
    whole = all(path.exists() for path in (found.authority, found.certificate, found.key))
    if not whole or until - RENEW_BEFORE < datetime.datetime.now(datetime.UTC):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        until = _make(found)
        marker.write_text(until.isoformat() + "\n", encoding="utf-8")
    return found


def _make(target: Certificate) -> datetime.datetime:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    start, end = now - HEAD_START, now + LIFETIME
    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kanary sandbox")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kube-apiserver")])

    def builder(name: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        made = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key)
        made = made.serial_number(x509.random_serial_number()).not_valid_before(start).not_valid_after(end)
        known = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
        return made.add_extension(known, critical=False).add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key), critical=False
        )

    def usage(*, signs: bool) -> x509.KeyUsage:
        return x509.KeyUsage(not signs, False, False, False, False, signs, signs, False, False)

    authority = (
        builder(issuer, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(signs=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    hosts = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost"), x509.DNSName("kubernetes")]
    server = (
        builder(subject, server_key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    _write(target.key, server_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    _write(target.certificate, server.public_bytes(Encoding.PEM))
    # Last: whoever finds the authority finds the rest. Its key is not kept, nothing else is ever signed.
    _write(target.authority, authority.public_bytes(Encoding.PEM))
    return end


def _write(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    os.replace(beside, path)
