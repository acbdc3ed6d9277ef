"""One party's voice in a run: how it writes messages, and all that it checks of those it reads.

What the header and the size of a message must be follows from its kind and from what the party was
told when it joined, the scheme, the vector's layout and the terms, and from the attempt that is
under way: its round, its key, its Train. That stands here and nowhere else; what a payload means is
for the party to judge.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

from hyperlock.encryption.scheme import Scheme
from hyperlock.encryption.vector import Vector
from hyperlock.errors import MessageRefused
from hyperlock.monitor import Monitor
from hyperlock.parties.identity import WITNESS, Identity
from hyperlock.parties.messages import (
    DIGEST_BYTES,
    MAX_BESIDE,
    MAX_COMMITMENT,
    MAX_ENVELOPE,
    MAX_PUBLIC_KEY,
    MAX_SECRET_KEY,
    Accept,
    Aggregate,
    Announced,
    Box,
    Boxes,
    Close,
    Commitment,
    Commitments,
    Message,
    Open,
    Part,
    PublicKey,
    Release,
    Roster,
    Share,
    Show,
    Shown,
    State,
    Stepped,
    Tally,
    Train,
    Update,
    key_id_of,
)
from hyperlock.parties.terms import Terms

M = TypeVar("M", bound=Message)
_KEPT_BYTES = 8
_NAME_BYTES = 300  # of a name and what is around it, at most
_PACKED_BYTES = 5  # what msgpack adds to a byte string or a list, at most
_SHOWN_BYTES = 40  # a nonce and a seed


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
        terms: what it joined the run under.
        monitor: where its seconds go.
        round, attempt: what is under way; 0 before the first.
        key_id: which public key is in use; "" before there is one.
        train: digest of the Train payload that was sent or received; empty before there is one.
    """

    identity: Identity
    scheme: Scheme
    vector: Vector
    terms: Terms
    monitor: Monitor
    round: int = 0
    attempt: int = 0
    key_id: str = ""
    train: bytes = b""

    @property
    def name(self) -> str:
        """The party's, under which it is enrolled."""
        return self.identity.name

    def at(self, round_number: int, attempt: int) -> Session:
        """The same party in this attempt, before there is a key for it."""
        return replace(self, round=round_number, attempt=attempt, key_id="", train=b"")

    def under(self, public_key: bytes) -> Session:
        """The same party, once it has this public key."""
        return replace(self, key_id=key_id_of(public_key))

    def after(self, train: bytes) -> Session:
        """The same party, once it has the Train payload of this digest."""
        return replace(self, train=train)

    def write(self, kind: type[Message], payload: Iterable[Part]) -> bytes:
        """A signed message of this party."""
        message = kind(
            run=self.identity.run,
            round=self.round,
            attempt=self.attempt,
            sender=self.identity.name,
            key_id=self.key_id,
            fingerprint=self.scheme.fingerprint,
            length=self._length(kind),
            terms=self.terms.digest,
            train=self.train,
            payload=payload,
        )
        return message.encode(self.identity)

    def read(self, kind: type[M], data: bytes) -> M:
        """A message of this run, scheme, terms, attempt, key and Train, with a payload of the size
        that its kind has; MessageRefused if it is not that, with a text that says why."""
        message = self.hear(kind, data)
        self._expect_here(message)
        return message

    def hear(self, kind: type[M], data: bytes, part_bytes: int = 0) -> M:
        """The same of any attempt, key and Train, which the reader judges; with parts of up to so
        many bytes, where that is more than its kind has in every run."""
        parts, limit = self._limits(kind)
        part_bytes = max(limit, part_bytes)
        message = kind.decode(data, self.identity, max_parts=parts, max_part_bytes=part_bytes)
        self._expect_joined(message)
        if kind in (Update, Aggregate) and len(message.parts) != parts:
            raise MessageRefused(f"{len(message.parts)} payload parts instead of {parts}")
        if kind is Commitment and [len(part) for part in message.parts] != [part_bytes]:
            raise MessageRefused("the commitment is not a SHA-256")
        if kind is Release and [len(part) for part in message.parts] != [part_bytes]:
            raise MessageRefused("the release has another length than the model")
        return message

    def read_envelope(self, envelope: bytes) -> Update:
        """An Update of this attempt by its envelope alone; MessageRefused if it is none."""
        parts, part_bytes = self._limits(Update)
        message, found = Update.header(
            envelope, self.identity, max_parts=parts, max_part_bytes=part_bytes
        )
        if found != parts:
            raise MessageRefused(f"{found} payload parts instead of {parts}")
        self._expect_joined(message)
        self._expect_here(message)
        return message

    def read_public_key(self, data: bytes) -> bytes:
        """The serialised key in the PublicKey message of this attempt, or MessageRefused."""
        message, (key,) = self._public_key(data, 1)
        message.expect(train=b"")
        return key

    def read_shared_key(self, data: bytes) -> tuple[bytes, bytes]:
        """The same of clients that share a key, with the digest of the model that they hold."""
        message, (key,) = self._public_key(data, 1)
        return key, message.train

    def read_announced(self, data: bytes) -> tuple[bytes, Announced]:
        """The same under trust=malicious, with what the key holder announces."""
        message, (key, announced) = self._public_key(data, 2)
        message.expect(train=b"")
        if len(announced) > _NAME_BYTES * len(self.identity.clients):
            raise MessageRefused(f"not an announcement ({len(announced)} bytes)")
        return key, Announced.read(announced)

    def _public_key(self, data: bytes, parts: int) -> tuple[PublicKey, tuple[bytes, ...]]:
        """The message, and key and whatever else, as many parts as are due."""
        message = self.hear(PublicKey, data)
        message.expect(round=self.round, attempt=self.attempt)
        if len(message.parts) != parts:
            raise MessageRefused(f"{len(message.parts)} payload parts instead of {parts}")
        key, *others = map(bytes, message.parts)
        if key_id_of(key) != message.key_id:
            raise MessageRefused("the public key is not the one that its key id names")
        return message, (_one_copy(key), *others)

    def copied(self, digest: bytes, others: Collection[bytes]) -> bool:
        """Whether a payload of ciphertexts, by its digest, is what somebody else sent; in the clear
        two may honestly be equal."""
        return self.scheme.security_bits > 0 and digest in others

    def _expect_joined(self, message: Message) -> None:
        """Refuse what was written under another scheme or other terms."""
        message.expect(
            fingerprint=self.scheme.fingerprint,
            length=self._length(type(message)),
            terms=self.terms.digest,
        )

    def _expect_here(self, message: Message) -> None:
        """Refuse what is of another attempt, key or Train."""
        message.expect(round=self.round, attempt=self.attempt, key_id=self.key_id, train=self.train)

    def _length(self, kind: type[Message]) -> int:
        """What a header of this kind says of its payload's length, in coordinates."""
        return self.vector.length if kind.of_vector else 0

    def _limits(self, kind: type[Message]) -> tuple[int, int]:
        """The most parts that a payload of this kind has, and the most bytes of each."""
        if kind is Open:
            return 1, _KEPT_BYTES
        clients = len(self.identity.clients)
        proofs = int(WITNESS in self.identity.enrolled)  # trust=malicious
        if kind is PublicKey:
            return 1 + proofs, MAX_PUBLIC_KEY
        if kind is Commitment:
            return 1, DIGEST_BYTES
        if kind is Accept:
            return 2, DIGEST_BYTES
        if kind in (Close, Share, Show):
            return 0, 0
        if kind is Shown:
            return 1, _SHOWN_BYTES
        if kind is Tally:
            return 1, _NAME_BYTES * clients
        if kind is Roster:
            return 1, (_NAME_BYTES + DIGEST_BYTES) * clients
        if kind is Commitments:
            return 1, (MAX_COMMITMENT + _PACKED_BYTES) * (clients + 1)
        if kind is Train:
            model = 4 * max(self.vector.parameters, len(self.vector.sizes))
            return 3 + self.vector.evaluated, max(MAX_PUBLIC_KEY + MAX_ENVELOPE, model)
        if kind is Box:
            return 3, max(MAX_PUBLIC_KEY, MAX_SECRET_KEY)
        if kind is Boxes:
            return clients, MAX_PUBLIC_KEY + MAX_SECRET_KEY + MAX_BESIDE
        each = self.vector.sum_type(self.scheme.max_clients).itemsize
        if kind is Stepped:
            return 2, max(DIGEST_BYTES, self.vector.head * each)
        sums = self.vector.length * each
        if kind is Release:
            return 1, sums
        if kind is State:
            return 2, sums + MAX_BESIDE
        ciphertexts = self.scheme.chunk_count(self.vector.length)
        if kind is Aggregate:
            # The manifest and, under trust=malicious, the tally.
            manifest = self.scheme.max_clients * MAX_ENVELOPE
            return ciphertexts + 1 + proofs, max(self.scheme.max_chunk_bytes, manifest)
        return ciphertexts, self.scheme.max_chunk_bytes
