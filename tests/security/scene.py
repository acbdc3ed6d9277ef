"""A round in which one client turned hostile, for the tests of what its ciphertexts can do."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from hyperlock.encryption import seeded
from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.ciphertexts import PackedScheme
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.ckks_parameters import ckks_parameters
from hyperlock.encryption.scheme import KeyPair
from hyperlock.parties.messages import Update
from tests.parties.cast import Cast
from tests.security.forge import Forgery

COHORT = [f"client-{i}" for i in range(4)]
SCHEMES: dict[str, PackedScheme] = {
    # Two data primes, so that there are levels.
    "ckks": Ckks(ckks_parameters(8192, [40, 40, 40], 30, 8, 16, 128)),
    "bfv": Bfv(bfv_parameters(4096, [36, 36, 37], "auto", 8, 16, 128)),
}
FORMS = ["whole", "seeded"] if seeded.available else ["whole"]

Forge = Callable[[Forgery], Forgery]


class Scene:
    """The parties, their good messages, and client-3's ciphertexts to forge; updates take two, the
    second short.

    Attributes:
        cast: the parties.
        form: of client-3's ciphertexts, whole or seeded.
        reads: what SEAL's reader was handed.
    """

    def __init__(self, scheme: PackedScheme, form: str) -> None:
        self.cast = Cast(
            scheme, sizes=(scheme.parameters.slots * scheme.parameters.packing.fields,)
        )
        self.keys = KeyPair(self.cast.keyholder.public, self.cast.keyholder._secret)
        self.form = form
        symmetric = self.cast.keyholder.symmetric_encryptor() if form == "seeded" else None
        self.chunks = list(
            (symmetric or scheme.encryptor(self.keys.public)).encrypt(self.cast.vector(9))
        )
        self.slots = [stop - start for start, stop in scheme.blocks(self.cast.length)]
        self.good = [self.cast.update(name, self.cast.vector(i)) for i, name in enumerate(COHORT)]
        self.reads: list[bytes] = []

    def taken_apart(self, place: int) -> Forgery:
        """Client-3's ciphertext at this place."""
        return Forgery.of(self.chunks[place], self.cast.scheme.layout, self.slots[place])

    def forged(self, place: int, forge: Forge) -> bytes:
        """The same, forged."""
        return forge(self.taken_apart(place)).write()

    def update(self, *chunks: bytes, sender: str = "client-3") -> bytes:
        """A good message with these ciphertexts."""
        message = self.cast.read(Update, self.good[COHORT.index(sender)])
        return self.cast.sign(replace(message, payload=chunks))

    def open(self) -> None:
        """Begin the round anew."""
        self.cast.server.open(1, COHORT)
        self.reads.clear()

    def receive(self, *chunks: bytes, sender: str = "client-3") -> str | None:
        """What the server says to such a message."""
        return self.cast.server.receive(self.update(*chunks, sender=sender))

    def offer(self, place: int, chunk: bytes) -> str | None:
        """What the server says when, in a new round after one good update, this stands at this
        place of another."""
        self.open()
        assert self.cast.server.receive(self.good[0]) is None
        self.reads.clear()
        return self.receive(*self.chunks[:place], chunk, *self.chunks[place + 1 :])

    def finish(self, *senders: str, of: tuple[int, ...] = (0, 1, 2, 3)) -> None:
        """These still send good updates, and the round ends with the exact sum of the vectors of
        these seeds."""
        for sender in senders:
            assert self.cast.server.receive(self.good[COHORT.index(sender)]) is None
        release = self.cast.another_keyholder(self.keys).handle(self.cast.server.close())
        assert (self.cast.sums(release) == sum(self.cast.vector(i).astype(int) for i in of)).all()

    def framed(self, place: int, ciphertext: Any) -> bytes:
        """One of SEAL's ciphertexts as TenSEAL would frame it at this place."""
        memory = os.memfd_create("ciphertext")
        try:
            ciphertext.save(f"/proc/self/fd/{memory}")
            data = os.pread(memory, os.fstat(memory).st_size, 0)
        finally:
            os.close(memory)
        return self.cast.scheme.layout.frame(self.slots[place], data)


def random_coefficients(forgery: Forgery) -> Forgery:
    """Below every prime, and otherwise anything."""
    values = np.random.default_rng(0).integers(0, 2**34, forgery.coefficients.size, np.uint64)
    return replace(forgery, coefficients=values)
