"""Who wrote a message: Ed25519 signatures (RFC 8032) against enrolled public keys.

Each party of a run holds its own signing key and the public keys of all others. Signing keys have
nothing to do with the encryption's keys: they prove who speaks, and open no ciphertext.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hyperlock.errors import MessageRefused

SERVER = "server"
KEYHOLDER = "keyholder"
WITNESS = "witness"
SIGNATURE_BYTES = 64
# So that no signature made for another purpose is one of a message.
_DOMAIN = b"hyperlock message\0"


@dataclass(frozen=True)
class Identity:
    """One party of one run.

    Attributes:
        run: the run's id.
        name: the party's name in it.
        enrolled: raw Ed25519 public keys (32 bytes) of all parties by name; who is not in it has no
            say.
        clients: who of them may send updates, each with the fewest and the most samples that it may
            say it has.
    """

    run: str
    name: str
    enrolled: Mapping[str, bytes] = field(repr=False)
    clients: Mapping[str, tuple[int, int]] = field(repr=False)
    _key: Ed25519PrivateKey = field(repr=False)

    def without(self, party: str) -> Identity:
        """It in a run in which this one has no say."""
        others = {name: key for name, key in self.enrolled.items() if name != party}
        return replace(self, enrolled=others)

    def standing_in(self, role: str) -> Identity:
        """It as a party of this role towards itself, where it does for itself what that party does
        elsewhere; nobody else takes its signature for that party's."""
        own = self._key.public_key().public_bytes_raw()
        return replace(self, name=role, enrolled={**self.enrolled, role: own})

    def sign(self, data: bytes) -> bytes:
        """A signature of 64 bytes."""
        return self._key.sign(_DOMAIN + data)

    def verify(self, sender: str, signature: bytes, data: bytes) -> None:
        """Refuse `data` unless `sender` is enrolled and signed it.

        Raises:
            MessageRefused: unknown sender, or not its signature.
        """
        if sender not in self.enrolled:
            raise MessageRefused(f"sender {sender!r:.80} is not enrolled")
        try:
            Ed25519PublicKey.from_public_bytes(self.enrolled[sender]).verify(
                signature, _DOMAIN + data
            )
        except InvalidSignature:
            raise MessageRefused(f"the signature is not that of {sender!r:.80}") from None


@dataclass(frozen=True)
class Signer:
    """A party, for all its runs.

    Attributes:
        name, enrolled, clients: as an identity's.
    """

    name: str
    enrolled: Mapping[str, bytes] = field(repr=False)
    clients: Mapping[str, tuple[int, int]] = field(repr=False)
    _key: Ed25519PrivateKey = field(repr=False)

    def join(self, run: str) -> Identity:
        """It in one run."""
        return Identity(run, self.name, self.enrolled, self.clients, self._key)


def enrol(
    run: str, clients: Mapping[str, int], roles: Iterable[str] = (SERVER, KEYHOLDER)
) -> dict[str, Identity]:
    """New signing keys for all parties of a run that lives in one process; each knows all public
    keys.

    Args:
        run: the run's id.
        clients: their names, each with its number of samples, which is enrolled to within a power
            of two.
        roles: the other parties.
    """
    keys = {name: Ed25519PrivateKey.generate() for name in (*roles, *clients)}
    public = {name: key.public_key().public_bytes_raw() for name, key in keys.items()}
    limits = {name: sample_limits(samples) for name, samples in clients.items()}
    return {name: Identity(run, name, public, limits, key) for name, key in keys.items()}


def sample_limits(samples: int) -> tuple[int, int]:
    """The powers of two around a number of samples, the lower one included: they say no more of it
    than its magnitude."""
    return 2 ** samples.bit_length() // 2, 2 ** samples.bit_length()
