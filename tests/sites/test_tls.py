"""TLS: an authority, certificates that a TLS library accepts, and clear refusals."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from hyperlock.errors import HyperLockError
from hyperlock.sites.tls import (
    check_certificate,
    check_private,
    make_authority,
    make_node_key,
    make_server,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls") / "federation"
    make_authority(folder, "four hospitals")
    make_server(folder, ["link.example.org", "192.0.2.7"])
    return folder


def shaken(folder: Path, ca: Path, host: str) -> None:
    """A TLS handshake with a server that has the folder's certificate."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.crt", folder / "server.key")
    client = ssl.create_default_context(cafile=str(ca))
    here, there = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(there, server_side=True).close()
        except (OSError, ValueError):
            there.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(here, server_hostname=host).close()
    finally:
        here.close()
        thread.join()


@pytest.mark.parametrize("host", ["link.example.org", "192.0.2.7", "localhost", "127.0.0.1", "::1"])
def test_a_client_trusts_the_server_under_its_names(folder: Path, host: str) -> None:
    shaken(folder, folder / "ca.crt", host)


def test_a_client_trusts_neither_another_name_nor_another_authority(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match=r"other\.example\.org"):
        shaken(folder, folder / "ca.crt", "other.example.org")
    make_authority(tmp_path, "others")
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(folder, tmp_path / "ca.crt", "localhost")
    with pytest.raises(HyperLockError, match="two federations"):
        check_certificate(folder / "server.crt", tmp_path / "ca.crt")
    check_certificate(folder / "server.crt", folder / "ca.crt")


def test_keys_are_their_owners_alone(folder: Path, tmp_path: Path) -> None:
    make_node_key(tmp_path / "site")
    keys = [folder / "ca.key", folder / "server.key", tmp_path / "site" / "node.key"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
    assert {stat.S_IMODE(path.parent.stat().st_mode) for path in keys} == {0o700}


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    make_node_key(tmp_path)
    check_private(tmp_path / "node.key")
    (tmp_path / "node.key").chmod(0o640)
    with pytest.raises(HyperLockError, match="mode 0640"):
        check_private(tmp_path / "node.key")
    with pytest.raises(HyperLockError, match="No such file"):
        check_private(tmp_path / "none.key")


def test_node_keys_are_elliptic_and_in_the_form_of_openssh(tmp_path: Path) -> None:
    make_node_key(tmp_path)
    private = load_ssh_private_key((tmp_path / "node.key").read_bytes(), None)
    public = load_ssh_public_key((tmp_path / "node.pub").read_bytes())
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert private.public_key() == public
    with pytest.raises(HyperLockError, match="not replaced"):
        make_node_key(tmp_path)


def test_an_authority_is_not_replaced(folder: Path) -> None:
    with pytest.raises(HyperLockError, match="not replaced"):
        make_authority(folder, "again")


def test_the_server_is_valid_no_longer_than_its_authority(tmp_path: Path) -> None:
    make_authority(tmp_path, "short", days=2)
    make_server(tmp_path, [], days=90)
    authority = check_certificate(tmp_path / "ca.crt")
    assert check_certificate(tmp_path / "server.crt").not_valid_after_utc <= (
        authority.not_valid_after_utc
    )


def test_a_clock_that_is_wrong_or_a_certificate_that_expired_is_named(folder: Path) -> None:
    now = datetime.now(UTC)
    with pytest.raises(HyperLockError, match=r"set this machine's clock, which is 23 hours behind"):
        check_certificate(folder / "ca.crt", now=now - timedelta(days=1))
    with pytest.raises(HyperLockError, match=r"expired at .* 10 days ago .*\n.*new kit"):
        check_certificate(folder / "ca.crt", now=now + timedelta(days=100, hours=1))


@pytest.mark.parametrize(("text", "said"), [("", "no certificate"), (None, "cannot be read")])
def test_what_is_no_certificate_is_named(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "ca.crt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(HyperLockError, match=said):
        check_certificate(path)


def test_a_host_must_be_a_name_or_an_address(tmp_path: Path) -> None:
    make_authority(tmp_path, "x")
    with pytest.raises(HyperLockError, match="neither a DNS name"):
        make_server(tmp_path, ["höst"])
