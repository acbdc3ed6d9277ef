"""One party's voice in a run: how it writes messages, and all that it checks of those it reads.

What the header and the size of a message must be follows from its kind and from what the party was
told when it joined: the scheme, the vector's layout, the public key. That stands here and nowhere
else; what a payload means is for the party to judge.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

from hyperlock.encryption.scheme import Scheme
from hyperlock.encryption.vector import Vector
from hyperlock.errors import MessageRefused
from hyperlock.monitor import Monitor
from hyperlock.parties.identity import Identity
from hyperlock.parties.messages import (
    Aggregate,
    Message,
    Part,
    PublicKey,
    Release,
    Train,
    Update,
    key_id_of,
)

M = TypeVar("M", bound=Message)


@lru_cache(maxsize=2)
def _one_copy(public_key: bytes) -> bytes:
    """The first of equal keys: the clients of a simulation, ten thousand perhaps, hold one."""
    return public_key


@dataclass(frozen=True)
class Session:
    """What one party of a run speaks and listens with.

    Attributes:
        identity: its name, its signing key, and who else is enrolled.
        scheme: the encryption.
        vector: the layout of what is encrypted.
        monitor: where its seconds go.
        key_id: which public key is in use; "" before there is one.
    """

    identity: Identity
    scheme: Scheme
    vector: Vector
    monitor: Monitor
    key_id: str = ""

    @property
    def name(self) -> str:
        """The party's, under which it is enrolled."""
        return self.identity.name

    def under(self, public_key: bytes) -> Session:
        """The same party, once it has this public key."""
        return replace(self, key_id=key_id_of(public_key))

    def public_key(self, data: bytes) -> bytes:
        """The key in this run's PublicKey message, or MessageRefused."""
        key = PublicKey.read(data, self.identity, fingerprint=self.scheme.fingerprint)
        return _one_copy(key)

    def write(self, kind: type[Message], round_number: int, payload: Iterable[Part]) -> bytes:
        """A signed message of this party."""
        message = kind(
            run=self.identity.run,
            round=round_number,
            sender=self.identity.name,
            key_id=self.key_id,
            fingerprint=self.scheme.fingerprint,
            length=self._length(kind),
            payload=payload,
        )
        return message.encode(self.identity)

    def read(self, kind: type[M], data: bytes, round_number: int | None = None) -> M:
        """A message of this run, scheme and key, with a payload of the size that its kind has.

        Args:
            kind: what is due.
            data: what arrived.
            round_number: of the message; None where the reader judges that itself.

        Raises:
            MessageRefused: it is not that; the text says why.
        """
        parts, part_bytes = self._limits(kind)
        message = kind.decode(data, self.identity, max_parts=parts, max_part_bytes=part_bytes)
        if round_number is not None:
            message.expect(round=round_number)
        fingerprint = self.scheme.fingerprint
        message.expect(key_id=self.key_id, fingerprint=fingerprint, length=self._length(kind))
        if kind in (Update, Aggregate) and len(message.parts) != parts:
            raise MessageRefused(f"{len(message.parts)} ciphertexts instead of {parts}")
        if kind is Release and [len(part) for part in message.parts] != [part_bytes]:
            raise MessageRefused("the release has another length than the model")
        return message

    def _length(self, kind: type[Message]) -> int:
        """What a header of this kind says of its payload's length, in coordinates."""
        return self.vector.length if kind.of_vector else 0

    def _limits(self, kind: type[Message]) -> tuple[int, int]:
        """The most parts that a payload of this kind has, and the most bytes of each."""
        if kind is Train:
            return 2, 4 * max(self.vector.parameters, len(self.vector.sizes))
        if kind is Release:
            sums = self.vector.sum_type(self.scheme.max_clients)
            return 1, self.vector.length * sums.itemsize
        return self.scheme.chunk_count(self.vector.length), self.scheme.max_chunk_bytes
