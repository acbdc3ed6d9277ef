"""The key holder: decrypts sums, never single updates, one a round, and says nothing of what it
refuses to release.

Its policy: at least `min_clients` contributors, counted inside the sum; no coordinate larger than
they can make it; one decryption a round, whatever comes of it, so that refusals are no oracle to
ask again and again; rounds in order, and no more of them than the run has.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption import totals
from hyperlock.encryption.grid import largest_value
from hyperlock.encryption.scheme import Encryptor, KeyPair, Scheme
from hyperlock.errors import CiphertextRefused, MessageRefused, ReleaseRefused
from hyperlock.metrics import Stage
from hyperlock.monitor import Monitor
from hyperlock.parties.identity import Identity
from hyperlock.parties.messages import Aggregate, Message, PublicKey, Release, key_id_of


class KeyHolder:
    """Keeps the secret key; sees the encrypted sum, no data and no model.

    Attributes:
        key: the public key's id and the scheme's fingerprint, which every message under it names.

    Args:
        identity: its name as a party of the run, its signing key, and who else is enrolled.
        scheme: the encryption.
        length: coordinates of an update's vector.
        min_clients: sums of fewer updates are not released.
        rounds: of the run; nothing is decrypted for a later one.
        monitor: where the seconds of decryption go.
        keys: made before; new ones if there are none.
        decrypted: the last round whose sum was looked at.
    """

    def __init__(
        self,
        identity: Identity,
        scheme: Scheme,
        length: int,
        min_clients: int,
        rounds: int,
        monitor: Monitor,
        keys: KeyPair | None = None,
        decrypted: int = 0,
    ) -> None:
        self._identity, self._scheme, self._length = identity, scheme, length
        self._min_clients, self._rounds, self._monitor = min_clients, rounds, monitor
        keys = keys or scheme.generate_keys()
        self._public, self._secret = keys.public, keys.secret
        self.key = key_id_of(keys.public), scheme.fingerprint
        self._decryptor = scheme.decryptor(keys.secret)
        self._decrypted = decrypted

    def public_key(self) -> bytes:
        """The PublicKey message for everyone."""
        return self._send(PublicKey, 0, 0, self._public)

    def symmetric_encryptor(self) -> Encryptor | None:
        """For the clients that share this key (keys=clients)."""
        return self._scheme.symmetric_encryptor(self._secret)

    def handle(self, data: bytes) -> bytes:
        """Answer an Aggregate with a Release.

        Raises:
            MessageRefused: the bytes are not an Aggregate of this run and key.
            ReleaseRefused: the round was decrypted before or is not one of the run's, the sum does
                not decrypt to integers that updates can sum to, or it holds too few of them.
        """
        message = Aggregate.decode(
            data,
            self._identity,
            max_parts=self._scheme.chunk_count(self._length),
            max_part_bytes=self._scheme.max_chunk_bytes,
        )
        key_id, fingerprint = self.key
        message.expect(key_id=key_id, fingerprint=fingerprint, length=self._length)
        count = self._scheme.chunk_count(self._length)
        if len(message.parts) != count:
            raise MessageRefused(f"{len(message.parts)} ciphertexts instead of {count}")
        return self._send(Release, message.round, self._length, self._sums(message).tobytes())

    def _send(self, kind: type[Message], round_number: int, length: int, payload: bytes) -> bytes:
        identity = self._identity
        message = kind(identity.run, round_number, identity.name, *self.key, length, (payload,))
        return message.encode(identity)

    def _sums(self, message: Aggregate) -> NDArray[np.integer]:
        if not self._decrypted < message.round <= self._rounds:
            raise ReleaseRefused(
                f"round {message.round} was decrypted before, or is none of this run's "
                f"{self._rounds}; "
                f"the last was {self._decrypted}, and a key holder decrypts a round once"
            )
        self._decrypted = message.round
        with self._monitor.measure(Stage.DECRYPT):
            try:
                what = "the key holder decrypts"
                chunks = self._monitor.watch(message.parts, len(message.parts), what)
                sums = self._decryptor.decrypt(chunks, self._length)
            except CiphertextRefused as error:
                raise ReleaseRefused(f"round {message.round}: {error}") from None
        summed = totals.decode(
            sums[: totals.width(self._scheme.value_bits)], self._scheme.value_bits
        )
        contributors = summed.contributors
        if not self._min_clients <= contributors <= self._scheme.max_clients:
            raise ReleaseRefused(
                f"round {message.round}: the sum holds {contributors} updates; "
                f"between keys.min_clients={self._min_clients} and {self._scheme.max_clients} "
                "are released"
            )
        if max(int(sums.max()), -int(sums.min())) > contributors * largest_value(
            self._scheme.value_bits
        ):
            raise ReleaseRefused(
                f"round {message.round}: a coordinate is larger than {contributors} updates can "
                "make it"
            )
        if summed.samples < contributors:
            raise ReleaseRefused(
                f"round {message.round}: {contributors} updates on {summed.samples} samples"
            )
        return sums
