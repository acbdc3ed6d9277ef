"""The key holder: decrypts sums, never single updates, and is silent on what it does not release.

Its policy: at least `min_clients` contributors, counted inside the sum; no coordinate larger than
they can make it; one decryption a round, whatever comes of it, so that refusals are no oracle to
ask again and again; rounds in order, and no more of them than the run has.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption.scheme import Encryptor, KeyPair
from hyperlock.errors import CiphertextRefused, ReleaseRefused
from hyperlock.metrics import Stage
from hyperlock.parties.messages import Aggregate, PublicKey, Release
from hyperlock.parties.session import Session


class KeyHolder:
    """Keeps the secret key; sees the encrypted sum, no data and no model.

    Attributes:
        session: its voice in the run, under the key that it holds.
        public: the public half of that key, serialised.

    Args:
        session: the same before there is a key.
        min_clients: sums of fewer updates are not released.
        rounds: of the run; nothing is decrypted for a later one.
        keys: made before; new ones if there are none.
        decrypted: the last round whose sum was looked at.
    """

    def __init__(
        self,
        session: Session,
        *,
        min_clients: int,
        rounds: int,
        keys: KeyPair | None = None,
        decrypted: int = 0,
    ) -> None:
        keys = keys or session.scheme.generate_keys()
        self.session = session.under(keys.public)
        self._min_clients = min_clients
        self._rounds = rounds
        self.public = keys.public
        self._secret = keys.secret
        self._decryptor = session.scheme.decryptor(keys.secret)
        self._decrypted = decrypted

    def public_key(self) -> bytes:
        """The PublicKey message for everyone."""
        return self.session.write(PublicKey, 0, (self.public,))

    def symmetric_encryptor(self) -> Encryptor | None:
        """For the clients that share this key (keys=clients)."""
        return self.session.scheme.symmetric_encryptor(self._secret)

    def handle(self, data: bytes) -> bytes:
        """Answer an Aggregate with a Release.

        Raises:
            MessageRefused: the bytes are not an Aggregate of this run and key.
            ReleaseRefused: the round was decrypted before or is not one of the run's, the sum does
                not decrypt to integers that updates can sum to, or it holds too few of them.
        """
        message = self.session.read(Aggregate, data)
        self._spend(message.round)
        sums = self._decrypt(message)
        self._check(message.round, sums)
        return self.session.write(Release, message.round, (sums.tobytes(),))

    def _spend(self, round_number: int) -> None:
        """A round's one decryption, used up before anything is decrypted."""
        if not self._decrypted < round_number <= self._rounds:
            raise ReleaseRefused(
                f"round {round_number} was decrypted before, or is none of this run's "
                f"{self._rounds}; the last was {self._decrypted}, and a key holder decrypts a "
                "round once"
            )
        self._decrypted = round_number

    def _decrypt(self, message: Aggregate) -> NDArray[np.integer]:
        """The exact sums, int[length], before anything is known to be right with them."""
        monitor = self.session.monitor
        chunks = monitor.watch(message.parts, len(message.parts), "the key holder decrypts")
        with monitor.measure(Stage.DECRYPT):
            try:
                return self._decryptor.decrypt(chunks, self.session.vector.length)
            except CiphertextRefused as error:
                raise ReleaseRefused(f"round {message.round}: {error}") from None

    def _check(self, round_number: int, sums: NDArray[np.integer]) -> None:
        """Refuse what is not the sum of enough updates."""
        totals, _ = self.session.vector.split(sums)
        contributors = totals.contributors
        most = self.session.scheme.max_clients
        if not self._min_clients <= contributors <= most:
            raise ReleaseRefused(
                f"round {round_number}: the sum holds {contributors} updates; between "
                f"keys.min_clients={self._min_clients} and {most} are released"
            )
        largest = max(int(sums.max()), -int(sums.min()))
        if largest > self.session.vector.bound(contributors):
            raise ReleaseRefused(
                f"round {round_number}: a coordinate is larger than {contributors} updates "
                "can make it"
            )
        if totals.samples < contributors:
            raise ReleaseRefused(
                f"round {round_number}: {contributors} updates on {totals.samples} samples"
            )
