"""TLS of a federation: its own authority, the SuperLink's certificate, and the nodes' keys.

All keys are elliptic-curve keys on P-256, in files of mode 0600. Certificates and public keys may
be read by anyone.
"""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hyperlock.errors import HyperLockError
from hyperlock.files import write_whole

DAYS = 90
AUTHORITY_KEY = "ca.key"
AUTHORITY = "ca.crt"
SERVER_KEY = "server.key"
SERVER = "server.crt"
NODE_KEY = "node.key"
NODE = "node.pub"
_TOLERANCE = timedelta(
    hours=1
)  # clocks that are behind by less take a new certificate all the same


def make_authority(folder: Path, name: str, days: int = DAYS) -> None:
    """Write ca.key, which stays on the coordinator's machine, and ca.crt, which every site gets.

    Args:
        folder: there, or made with mode 0700.
        name: of the federation, for people.
        days: how long it is valid.

    Raises:
        HyperLockError: there is one already: a new one would shut out all sites that hold it.
    """
    _refuse_existing(folder / AUTHORITY_KEY)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(f"{name} authority")
    begin = _now() - _TOLERANCE
    builder = _builder(subject, subject, key, begin, _now() + timedelta(days=days))
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_key(folder / AUTHORITY_KEY, key, serialization.PrivateFormat.PKCS8)
    _write_public(folder / AUTHORITY, certificate.public_bytes(serialization.Encoding.PEM))


def make_server(folder: Path, hosts: Sequence[str], days: int = DAYS) -> None:
    """Write server.key and server.crt, signed by the folder's authority.

    Args:
        folder: holds ca.key and ca.crt.
        hosts: DNS names and IP addresses by which nodes reach the SuperLink; localhost, 127.0.0.1
            and ::1 are added, for what runs on its own machine.
        days: how long it is valid, but not longer than the authority is.

    Raises:
        HyperLockError: the authority is not there, not its owner's alone, or not valid now.
    """
    authority = check_certificate(folder / AUTHORITY)
    signer = _read_key(folder / AUTHORITY_KEY)
    key = ec.generate_private_key(ec.SECP256R1())
    end = min(_now() + timedelta(days=days), authority.not_valid_after_utc)
    begin = max(_now() - _TOLERANCE, authority.not_valid_before_utc)
    names = list(dict.fromkeys([*hosts, "localhost", "127.0.0.1", "::1"]))
    builder = _builder(_name("SuperLink"), authority.subject, key, begin, end)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=False)
        .add_extension(x509.SubjectAlternativeName([_host(name) for name in names]), critical=False)
        .add_extension(issuer, critical=False)
        .sign(signer, hashes.SHA256())
    )
    _write_key(folder / SERVER_KEY, key, serialization.PrivateFormat.PKCS8)
    _write_public(folder / SERVER, certificate.public_bytes(serialization.Encoding.PEM))


def make_node_key(folder: Path) -> None:
    """Write node.key, by which a SuperLink knows a site's node, and node.pub, in OpenSSH's form.

    Raises:
        HyperLockError: there is one already: the SuperLink would not know the new one.
    """
    _refuse_existing(folder / NODE_KEY)
    key = ec.generate_private_key(ec.SECP256R1())
    _write_key(folder / NODE_KEY, key, serialization.PrivateFormat.OpenSSH)
    form = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    _write_public(folder / NODE, key.public_key().public_bytes(*form) + b"\n")


def check_certificate(
    path: Path, authority: Path | None = None, now: datetime | None = None
) -> x509.Certificate:
    """Read a certificate that is valid now.

    Args:
        path: of a PEM file.
        authority: path of the certificate that must have signed it; None for any.
        now: None for this machine's clock.

    Raises:
        HyperLockError: it is not there, no certificate, not valid yet or any more, or another's.
    """
    certificate = _read_certificate(path)
    now = now or _now()
    begin = certificate.not_valid_before_utc
    end = certificate.not_valid_after_utc
    if now < begin:
        raise HyperLockError(
            f"{path} is valid from {begin:%Y-%m-%d %H:%M} UTC on, and here it is "
            f"{now:%Y-%m-%d %H:%M} UTC\n  try: set this machine's clock, which is "
            f"{_said(begin - now)} behind"
        )
    if now > end:
        raise HyperLockError(
            f"{path} expired at {end:%Y-%m-%d %H:%M} UTC, {_said(now - end)} ago by this machine's "
            "clock\n  try: a new kit from the coordinator, or set the clock if it is wrong"
        )
    if authority is not None:
        _check_signer(path, certificate, authority)
    return certificate


def check_private(path: Path) -> None:
    """A key that others can read is nobody's own any more.

    Raises:
        HyperLockError: the file is missing, or its group or others may do anything with it.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise HyperLockError(f"{path} cannot be read: {error.strerror}") from None
    if mode & 0o077:
        raise HyperLockError(
            f"{path} holds a key that others can read (mode {mode:04o})\n"
            f"  try: chmod 600 {path}, or a new key if anyone could have read it"
        )


def _check_signer(path: Path, certificate: x509.Certificate, authority: Path) -> None:
    try:
        certificate.verify_directly_issued_by(_read_certificate(authority))
    except (ValueError, TypeError, InvalidSignature):
        raise HyperLockError(
            f"{path} was not signed by {authority}: they are of two federations\n"
            "  try: both files of one kit"
        ) from None


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise HyperLockError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise HyperLockError(f"{path} is no certificate in PEM form") from None


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    check_private(path)
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise HyperLockError(f"{path} is no elliptic-curve key in PEM form")
    return key


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    begin: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError:
        raise HyperLockError(f"{name!r} is neither a DNS name in ASCII nor an IP address") from None


def _write_key(
    path: Path, key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat
) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    pem = serialization.Encoding.PEM
    write_whole(path, key.private_bytes(pem, form, serialization.NoEncryption()))


def _write_public(path: Path, data: bytes) -> None:
    write_whole(path, data)
    os.chmod(path, 0o644)


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise HyperLockError(f"{path} is there already, and is not replaced\n  try: another folder")


def _now() -> datetime:
    return datetime.now(UTC)


def _said(span: timedelta) -> str:
    """A time span for people: days, hours or minutes."""
    minutes = round(span.total_seconds() / 60)
    if minutes >= 2 * 24 * 60:
        return f"{minutes // (24 * 60)} days"
    return f"{minutes // 60} hours" if minutes >= 120 else f"{minutes} minutes"
