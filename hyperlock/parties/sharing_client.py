"""A client under keys=clients in a process of its own: it makes the run's key, or is given it in a
box, and says what it has stepped the model to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgpack
import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from hyperlock.encryption.scheme import KeyPair
from hyperlock.errors import HyperLockError, MessageRefused
from hyperlock.files import write_whole
from hyperlock.parties.box import About, seal, unseal
from hyperlock.parties.client import Client, Replica
from hyperlock.parties.messages import (
    Aggregate,
    Box,
    Boxes,
    Share,
    Stepped,
    Train,
    key_id_of,
    kind_of,
)
from hyperlock.parties.model import ModelKeeper
from hyperlock.parties.session import Session


@dataclass(frozen=True)
class Sharing:
    """How a client shares the run's key with the others.

    Attributes:
        readers: the X25519 keys of all clients, in order; the first one makes the run's key.
        reader: the client's own.
        offer: SHA-256 of the Invite under which it takes part.
        file: where the client keeps the pair until the run's last round, so that it answers when
            it is restarted in the middle of one. Whoever can read it there can read `reader` too,
            which opens the box that came by the wire.
        rounds: of the run, that in which the clients evaluate its last model included.
    """

    readers: Mapping[str, bytes] = field(repr=False)
    reader: X25519PrivateKey = field(repr=False)
    offer: bytes
    file: Path
    rounds: int

    @property
    def first(self) -> str:
        """Who makes the key."""
        return next(iter(self.readers))


class SharingClient(Client):
    """Has no key before it made it or was given it, and then one for the run.

    Args:
        sharing: how.
        keeper: of its model.
        replica: of a pair, what holds it with the model.
        others: as any client's.
    """

    def __init__(
        self,
        session: Session,
        *,
        sharing: Sharing,
        keeper: ModelKeeper,
        replica: Callable[[KeyPair], Replica],
        **others: Any,
    ) -> None:
        super().__init__(session, **others)
        self._sharing = sharing
        self._keeper = keeper
        self._with = replica
        self._pair: KeyPair | None = None
        if sharing.file.exists():
            self._hold(_kept(sharing.file))

    def handle(self, data: bytes) -> bytes:
        """As any client, but Share with Boxes, Box with nothing, Aggregate with Stepped.

        Raises:
            MessageRefused: besides what any client refuses: a box that is not the first client's
                for this one, a second key, a Train or a sum before there is a key.
        """
        match kind_of(data):
            case Share.kind:
                return self._share(data)
            case Box.kind:
                self._take_box(data)
                return b""
            case Aggregate.kind:
                return self._step(data)
            case Train.kind if self._replica is None:
                raise MessageRefused(f"{self.name} has not been given the run's key yet")
        return super().handle(data)

    # The key.

    def _share(self, data: bytes) -> bytes:
        """The pair, sealed for each of the others; made now, if it is asked for first."""
        self._session.hear(Share, data)
        sharing = self._sharing
        if self.name != sharing.first:
            raise MessageRefused(f"{self.name} makes no key: {sharing.first} does, the first site")
        pair = self._pair or self._session.scheme.generate_keys()
        if self._pair is None:
            self._keep(pair)
        session = self._session.under(pair.public)
        boxes = []
        for name, reader in sharing.readers.items():
            if name != self.name:
                about = self._about(self.name, name, pair.public)
                parts = (pair.public, *seal(pair.secret, reader, about))
                boxes.append(session.write(Box, parts))
        return session.write(Boxes, boxes)

    def _take_box(self, data: bytes) -> None:
        """The pair out of this client's box."""
        message = self._session.hear(Box, data)
        sharing = self._sharing
        if message.sender != sharing.first:
            raise MessageRefused(
                f"a key from {message.sender!r:.80}, and {sharing.first} makes it, the first site"
            )
        if len(message.parts) != 3:
            raise MessageRefused(f"a box of {len(message.parts)} parts")
        public, ephemeral, sealed = map(bytes, message.parts)
        message.expect(key_id=key_id_of(public))
        about = self._about(message.sender, self.name, public)
        pair = KeyPair(public, unseal(ephemeral, sealed, sharing.reader, about))
        if self._pair is None:
            self._refuse_halves(pair)
            self._keep(pair)
        elif pair != self._pair:
            raise MessageRefused(f"another key than the one that {self.name} has")

    def _about(self, sender: str, recipient: str, public: bytes) -> About:
        run = self._session.identity.run
        return About(run, sender, recipient, self._sharing.offer, key_id_of(public))

    def _refuse_halves(self, pair: KeyPair) -> None:
        """MessageRefused unless what one half encrypts the other one decrypts."""
        scheme = self._session.scheme
        probe = np.array([1, -1, 3], np.int8)
        try:
            total = scheme.accumulator(pair.public, probe.size)
            total.add(list(scheme.encryptor(pair.public).encrypt(probe)))
            found = scheme.decryptor(pair.secret).decrypt(total.total(), probe.size)
        except Exception as error:  # SEAL raises many kinds for what is no key
            raise MessageRefused(f"what the box holds is no key ({error})") from None
        if not np.array_equal(found, probe):
            raise MessageRefused("the halves of the key do not belong together")

    def _keep(self, pair: KeyPair) -> None:
        write_whole(self._sharing.file, msgpack.packb([pair.public, pair.secret]))
        self._hold(pair)

    def _hold(self, pair: KeyPair) -> None:
        self._pair = pair
        self._replica = self._with(pair)
        shared = self._replica.encryptor
        if shared is not None:
            self._encryptor = lambda public: shared

    # The model.

    def _step(self, data: bytes) -> bytes:
        """Take a sum, and say what it came to; the same again says the same."""
        replica = self._replica
        if replica is None:
            raise MessageRefused(f"{self.name} has not been given the run's key yet")
        message = self._session.hear(Aggregate, data)
        due = self._keeper.round + 1
        if message.round > due:
            raise MessageRefused(f"the sum of round {message.round}, where {due} is due")
        release = replica.take(data) if message.round == due else replica.again(data)
        replica.forget()
        if self._keeper.round >= self._sharing.rounds:
            self._sharing.file.unlink(missing_ok=True)
        session = self._session.at(message.round, message.attempt).under(replica.public)
        totals = replica.totals_of(release)
        return session.write(Stepped, (totals, self._keeper.model.digest))


def _kept(file: Path) -> KeyPair:
    """The pair that was made before a restart.

    Raises:
        HyperLockError: it cannot be read.
    """
    try:
        public, secret = cast(list[bytes], msgpack.unpackb(file.read_bytes()))
        return KeyPair(bytes(public), bytes(secret))
    except Exception as error:  # msgpack raises many kinds for malformed input
        raise HyperLockError(
            f"{file}: the run's key cannot be read ({type(error).__name__})\n"
            "  try: the file as it was, or another run"
        ) from None
