"""The key holder: decrypts sums, never single updates, and releases each round once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption import totals
from hyperlock.encryption.grid import largest_value
from hyperlock.encryption.scheme import CiphertextRefused, Encryptor, Scheme
from hyperlock.errors import ReleaseRefused
from hyperlock.messages import Aggregate, PublicKey, Release, key_id_of
from hyperlock.timing import Timings


class KeyHolder:
    """Makes the keys and keeps the secret one; sees the encrypted sum, no data and no model.

    Args:
        run: the run's id.
        scheme: the encryption.
        length: coordinates of an update's vector.
        min_clients: sums of fewer updates are not released.
        timings: where the seconds of decryption go.
    """

    name = "keyholder"

    def __init__(self, run: str, scheme: Scheme, length: int, min_clients: int, timings: Timings) -> None:
        self._run, self._scheme, self._length = run, scheme, length
        self._min_clients, self._timings = min_clients, timings
        keys = scheme.generate_keys()
        self._public, self._secret = keys.public, keys.secret
        self._decryptor = scheme.decryptor(keys.secret)
        self._released: set[int] = set()

    def public_key(self) -> bytes:
        """The PublicKey message for everyone."""
        return PublicKey(
            self._run, 0, self.name, key_id_of(self._public), self._scheme.fingerprint, 0, (self._public,)
        ).encode()

    def symmetric_encryptor(self) -> Encryptor | None:
        """For the clients that share this key (keys=clients)."""
        return self._scheme.symmetric_encryptor(self._secret)

    def handle(self, data: bytes) -> bytes:
        """Answer an Aggregate with a Release.

        Raises:
            MessageRefused: the bytes are not an Aggregate of this run and key.
            ReleaseRefused: the round was released before, the sum does not decrypt to integers that updates
                can sum to, or it holds too few of them.
        """
        message = Aggregate.decode(
            data, max_parts=self._scheme.chunks(self._length), max_part_bytes=self._scheme.max_chunk_bytes
        )
        message.expect(
            run=self._run, key_id=key_id_of(self._public), fingerprint=self._scheme.fingerprint, length=self._length
        )
        sums = self._sums(message)
        return Release(
            self._run,
            message.round,
            self.name,
            message.key_id,
            message.fingerprint,
            self._length,
            (sums.astype("<i8").tobytes(),),
        ).encode()

    def _sums(self, message: Aggregate) -> NDArray[np.int64]:
        if message.round in self._released:
            raise ReleaseRefused(f"round {message.round} was released before; a key holder releases a round once")
        with self._timings.measure("decrypt"):
            try:
                sums = self._decryptor.decrypt(message.payload, self._length)
            except CiphertextRefused as error:
                raise ReleaseRefused(f"round {message.round}: {error}") from None
        summed = totals.decode(sums[: totals.width(self._scheme.value_bits)], self._scheme.value_bits)
        contributors = summed.contributors
        if not self._min_clients <= contributors <= self._scheme.max_clients:
            raise ReleaseRefused(
                f"round {message.round}: the sum holds {contributors} updates; "
                f"between keys.min_clients={self._min_clients} and {self._scheme.max_clients} are released"
            )
        if np.abs(sums).max() > contributors * largest_value(self._scheme.value_bits):
            raise ReleaseRefused(
                f"round {message.round}: a coordinate is larger than {contributors} updates can make it"
            )
        if summed.samples < contributors:
            raise ReleaseRefused(f"round {message.round}: {contributors} updates on {summed.samples} samples")
        self._released.add(message.round)
        return sums
