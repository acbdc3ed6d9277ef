"""A sealed box: a secret that one reader alone can open, whoever carries it.

An X25519 key of this box' own and the reader's agree on a secret (RFC 7748), HKDF-SHA256 makes a
key of it, and ChaCha20-Poly1305 (RFC 8439) seals under that. A box says nothing of who made it:
whoever reads one asks for a signature over it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import msgpack
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hyperlock.errors import MessageRefused

KEY_BYTES = 32
TAG_BYTES = 16
_DOMAIN = "hyperlock box"
# One key seals one box, so that its nonce cannot come twice.
_NONCE = bytes(12)


@dataclass(frozen=True)
class About:
    """What a box is bound to: it opens for these and for nothing else.

    Attributes:
        run: the run's id.
        sender, recipient: parties of it.
        offer: SHA-256 of the Invite under which both take part.
        key_id: which public key the secret belongs to.
    """

    run: str
    sender: str
    recipient: str
    offer: bytes
    key_id: str

    @property
    def bytes(self) -> bytes:
        """All of it."""
        fields = [_DOMAIN, self.run, self.sender, self.recipient, self.offer, self.key_id]
        return cast(bytes, msgpack.packb(fields))


def seal(secret: bytes, reader: bytes, about: About) -> tuple[bytes, bytes]:
    """Seal a secret for who has the other half of this X25519 key.

    Returns:
        The public half of the box' own key, 32 bytes; the sealed secret, `TAG_BYTES` longer.

    Raises:
        MessageRefused: `reader` is no key that a secret can be agreed on with.
    """
    own = X25519PrivateKey.generate()
    ephemeral = own.public_key().public_bytes_raw()
    key = _agreed(own, reader, ephemeral + reader, about)
    return ephemeral, ChaCha20Poly1305(key).encrypt(_NONCE, secret, about.bytes)


def unseal(ephemeral: bytes, sealed: bytes, reader: X25519PrivateKey, about: About) -> bytes:
    """The secret; MessageRefused if the box is another's, about something else, or altered."""
    halves = ephemeral + reader.public_key().public_bytes_raw()
    key = _agreed(reader, ephemeral, halves, about)
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, sealed, about.bytes)
    except InvalidTag:
        raise MessageRefused(
            f"a box that does not open for {about.recipient}: it is another party's, of another "
            "run or offer, or was altered"
        ) from None


def _agreed(own: X25519PrivateKey, other: bytes, halves: bytes, about: About) -> bytes:
    """The key that both halves come to."""
    try:
        shared = own.exchange(X25519PublicKey.from_public_bytes(other))
    except ValueError:
        raise MessageRefused("what stands for an X25519 key is none") from None
    return HKDF(SHA256(), KEY_BYTES, salt=halves, info=about.bytes).derive(shared)
